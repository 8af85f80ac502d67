// Runs kernels on a CPU: blocks one after another, the threads of a block as fibers that hand over at barriers.
//
// What it can find: reads and writes outside a buffer or outside shared memory (guard pages), reads of memory that nobody wrote (it holds
// NaNs), barriers that not all threads reach, packs off their alignment, and races, as results that depend on the order of threads or blocks.
#include "../cuda/kernels.cu"
#include "faults.cuh"

#include <map>
#include <random>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace emulator {
thread_local Thread* current = nullptr;
thread_local Index block_size;
thread_local unsigned char* shared = nullptr;

namespace {
struct Kernel {
    unsigned threads;
    size_t arguments;
    void (*run)(const void*);
};

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

// What a fiber waits for.
enum class State { Ready, Block, Warp, Done };

constexpr size_t STACK = 128 << 10;

struct Fiber {
    Thread thread;
    State state = State::Done;
    ucontext_t context;
    jmp_buf place;
    bool started = false;
    // two places: a lane may publish again before a slower lane has read
    alignas(16) unsigned char slots[2][32];
    unsigned turn = 0;
};

thread_local std::vector<Fiber*> fibers;
thread_local Fiber* running = nullptr;
thread_local jmp_buf scheduler;
thread_local ucontext_t scheduler_context;
thread_local const Kernel* kernel = nullptr;
thread_local const char* kernel_name = "";
thread_local const void* arguments = nullptr;

void body() {
    for (;;) {
        kernel->run(arguments);
        running->state = State::Done;
        if (!_setjmp(running->place)) _longjmp(scheduler, 1);
    }
}

__attribute__((noinline)) void enter(Fiber* fiber) {
    running = fiber;
    current = &fiber->thread;
    if (_setjmp(scheduler)) return;
    if (fiber->started) _longjmp(fiber->place, 1);
    fiber->started = true;
    swapcontext(&scheduler_context, &fiber->context);
}

__attribute__((noinline)) void leave(State state) {
    running->state = state;
    if (!_setjmp(running->place)) _longjmp(scheduler, 1);
}

void grow(size_t count) {
    while (fibers.size() < count) {
        Fiber* fiber = new Fiber;
        void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) fail("no memory for a fiber's stack");
        getcontext(&fiber->context);
        fiber->context.uc_stack = {stack, 0, STACK};
        fiber->context.uc_link = nullptr;
        makecontext(&fiber->context, body, 0);
        fibers.push_back(fiber);
    }
}

// All lanes of one warp, or all threads, that still run wait for the same: they go on.
bool release(size_t first, size_t end, State waits) {
    size_t waiting = 0, done = 0;
    for (size_t i = first; i < end; i++) {
        waiting += fibers[i]->state == waits;
        done += fibers[i]->state == State::Done;
    }
    if (waiting == 0 || waiting + done < end - first) return false;
    if (waits == State::Warp && done > 0) fail("a lane has left before a shuffle of its warp");
    for (size_t i = first; i < end; i++)
        if (fibers[i]->state == waits) fibers[i]->state = State::Ready;
    return true;
}

std::vector<size_t> permutation(size_t count, unsigned order) {
    std::vector<size_t> places(count);
    for (size_t i = 0; i < count; i++) places[i] = order == 1 ? count - 1 - i : i;
    if (order > 1) {
        std::mt19937 generator(order);
        for (size_t i = count; i > 1; i--) std::swap(places[i - 1], places[generator() % i]);
    }
    return places;
}

// Runs the ready lanes of a warp; whether there were any.
bool run_warp(size_t first, size_t count, const std::vector<size_t>& lanes) {
    bool ran = false;
    for (size_t lane : lanes)
        if (first + lane < count && fibers[first + lane]->state == State::Ready) ran = true, enter(fibers[first + lane]);
    return ran;
}

// A warp goes as far as it can before the next one starts, which shows where one must wait for another; or, `together`, all go from shuffle
// to shuffle side by side.
void run_block(Index block, size_t count, const std::vector<size_t>& warps, const std::vector<size_t>& lanes, bool together) {
    for (size_t i = 0; i < count; i++) {
        fibers[i]->thread = {{unsigned(i), 0, 0}, block};
        fibers[i]->state = State::Ready;
        fibers[i]->turn = 0;
    }
    for (;;) {
        bool ran = false, left = false;
        for (size_t warp : warps) {
            size_t first = warp * 32, end = first + 32 < count ? first + 32 : count;
            do ran |= run_warp(first, count, lanes);
            while (release(first, end, State::Warp) && !together);
        }
        bool released = release(0, count, State::Block);
        for (size_t i = 0; i < count; i++) left |= fibers[i]->state != State::Done;
        if (!left) return;
        if (!ran && !released) fail("threads of a block wait at different barriers");
    }
}

const size_t PAGE = 4096;

struct Guarded {
    unsigned char* whole;
    size_t pages;
    unsigned char* bytes;
    size_t count;
};

// `count` bytes between pages that nobody may touch: against the last of them, or, at the start, against the first.
Guarded guard(size_t count, bool at_end) {
    size_t pages = (count + PAGE - 1) / PAGE + (count == 0);
    auto* whole = static_cast<unsigned char*>(mmap(nullptr, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (whole == MAP_FAILED || mprotect(whole + PAGE, pages * PAGE, PROT_READ | PROT_WRITE)) fail("no memory");
    memset(whole + PAGE, 0xff, pages * PAGE);
    return {whole, pages, whole + PAGE + (at_end ? pages * PAGE - count : 0), count};
}

// Writes beside the buffer that no guard page met.
bool intact(const Guarded& memory) {
    for (unsigned char* p = memory.whole + PAGE; p < memory.whole + (memory.pages + 1) * PAGE; p++)
        if ((p < memory.bytes || p >= memory.bytes + memory.count) && *p != 0xff) return false;
    return true;
}

void outside(int, siginfo_t* info, void*) {
    if (!current) {
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    char text[256];
    int length = snprintf(text, sizeof text, "emulator: %s touches memory outside its buffers at %p: block (%u, %u), thread %u\n", kernel_name,
                          info->si_addr, current->block.x, current->block.y, current->thread.x);
    if (write(2, text, size_t(length)) < 0) _exit(133);
    _exit(134);
}

void watch() {
    static const bool watching = [] {
        struct sigaction action = {};
        action.sa_sigaction = outside;
        action.sa_flags = SA_SIGINFO;
        return sigaction(SIGSEGV, &action, nullptr) == 0 && sigaction(SIGBUS, &action, nullptr) == 0;
    }();
    (void)watching;
}
} // namespace

Registration::Registration(const char* name, unsigned threads, size_t arguments, void (*run)(const void*)) {
    kernels()[name] = {threads, arguments, run};
}

void fail(const char* reason) {
    fprintf(stderr, "emulator: %s: %s", kernel_name, reason);
    if (current) fprintf(stderr, ": block (%u, %u), thread %u", current->block.x, current->block.y, current->thread.x);
    fputc('\n', stderr);
    abort();
}

void sync_block() { leave(State::Block); }
void sync_warp() { leave(State::Warp); }

void publish(const void* bytes, size_t count) {
    running->turn ^= 1;
    memcpy(running->slots[running->turn], bytes, count);
    sync_warp();
}

const unsigned char* published(unsigned from) {
    return fibers[running->thread.thread.x / 32 * 32 + from]->slots[running->turn];
}
} // namespace emulator

namespace {
float half(uint32_t pair, unsigned high) { return to_float(bf16{uint16_t(pair >> (high ? 16 : 0))}); }

struct Sides {
    uint32_t a[4], b[2];
};

const bf16* matrix_row(unsigned lane) {
    const bf16* row;
    memcpy(&row, emulator::published(lane), sizeof row);
    return row;
}

void publish_row(const bf16* row) {
    aligned(row);
    emulator::publish(&row, sizeof row);
}
} // namespace

void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b) {
    Sides own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    static_assert(sizeof own <= 32, "a lane's share fits its slot");
    emulator::publish(&own, sizeof own);
    unsigned group = threadIdx.x % 32 / 4, quarter = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = group + i / 2 * 8, column = quarter * 2 + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            Sides left, right;
            memcpy(&left, emulator::published(row % 8 * 4 + k % 8 / 2), sizeof left);
            memcpy(&right, emulator::published(column * 4 + k % 8 / 2), sizeof right);
            d[i] += half(left.a[row / 8 + k / 8 * 2], k % 2) * half(right.b[k / 8], k % 2);
        }
    }
}

void load_matrices(uint32_t (&r)[4], const bf16* row) {
    publish_row(row);
    unsigned group = threadIdx.x % 32 / 4, quarter = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; i++) {
        const bf16* from = matrix_row(8 * i + group);
        r[i] = pair(from[2 * quarter], from[2 * quarter + 1]);
    }
}

void load_matrices_transposed(uint32_t (&r)[4], const bf16* row) {
    publish_row(row);
    unsigned group = threadIdx.x % 32 / 4, quarter = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; i++)
        r[i] = pair(matrix_row(8 * i + 2 * quarter)[group], matrix_row(8 * i + 2 * quarter + 1)[group]);
}

// What Rust calls.
extern "C" {
void* emulator_allocate(size_t count, int at_end) { return new emulator::Guarded(emulator::guard(count, at_end)); }

unsigned char* emulator_bytes(void* memory) { return static_cast<emulator::Guarded*>(memory)->bytes; }

void emulator_free(void* memory) {
    auto* guarded = static_cast<emulator::Guarded*>(memory);
    if (!emulator::intact(*guarded)) emulator::fail("a kernel wrote beside a buffer");
    munmap(guarded->whole, (guarded->pages + 2) * emulator::PAGE);
    delete guarded;
}

// 0: done. 1: no such kernel. 2: its arguments have another size. 3: its block has another number of threads.
int emulator_launch(const char* name, unsigned x, unsigned y, unsigned threads, size_t shared_bytes, const void* arguments, size_t size,
                    unsigned order) {
    using namespace emulator;
    watch();
    auto found = kernels().find(name);
    if (found == kernels().end()) return 1;
    if (found->second.arguments != size) return 2;
    if (found->second.threads != threads) return 3;
    kernel = &found->second;
    kernel_name = found->first.c_str();
    emulator::arguments = arguments;
    block_size = {threads, 1, 1};
    grow(threads);
    std::vector<size_t> warps = permutation((threads + 31) / 32, order), lanes = permutation(32, order);
    Guarded memory = guard(shared_bytes, true);
    shared = memory.bytes;
    for (size_t number : permutation(size_t(x) * y, order)) {
        memset(memory.bytes, 0xff, shared_bytes);
        run_block({unsigned(number % x), unsigned(number / x), 0}, threads, warps, lanes, order % 4 == 3);
    }
    current = nullptr;
    munmap(memory.whole, (memory.pages + 2) * PAGE);
    return 0;
}
}
