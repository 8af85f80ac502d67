// CUDA's words for g++: the kernels' logic runs on a CPU, one fiber per thread, in an order that the caller chooses.
//
// Emulated: threads and blocks, __syncthreads, __syncwarp, shuffles, dynamic shared memory, bf16, mma and ldmatrix. Not emulated: speed,
// the memory model between barriers beyond the order of threads, what a compiler for GPUs makes of the code.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __device__

namespace emulator {
struct Index {
    unsigned x, y, z;
};

struct Thread {
    Index thread, block;
};

// Of the running launch; fibers of one launch share an operating system's thread.
extern thread_local Thread* current;
extern thread_local Index block_size;
extern thread_local unsigned char* shared;

void sync_block();
void sync_warp();
// The 16 bytes that lane `from` of this warp published last; every lane of the warp publishes before any reads.
void publish(const void* bytes, size_t count);
const unsigned char* published(unsigned from);
[[noreturn]] void fail(const char* reason);

// A kernel under its name.
struct Registration {
    Registration(const char* name, unsigned threads, size_t arguments, void (*run)(const void*));
};
} // namespace emulator

#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::current->block)
#define blockDim (emulator::block_size)

inline unsigned char* shared_memory() { return emulator::shared; }
inline void __syncthreads() { emulator::sync_block(); }
inline void __syncwarp() { emulator::sync_warp(); }

// A pack that is not aligned to its size faults on a GPU.
template <class T> inline void aligned(const T* pointer) {
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) emulator::fail("a pack of 16 bytes is not aligned to 16");
}

template <class F> inline F __shfl_xor_sync(unsigned, F x, int apart) {
    emulator::publish(&x, sizeof x);
    memcpy(&x, emulator::published(threadIdx.x % 32 ^ apart), sizeof x);
    return x;
}

struct float2 {
    float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float __uint_as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline float __uint2float_rn(uint32_t x) { return float(x); }
// compiled with -ffp-contract=off
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }

// The upper half of a float, rounded to the nearest, ties to even.
struct bf16 {
    uint16_t bits;
};

inline bf16 __float2bfloat16(float x) {
    uint32_t bits = __float_as_uint(x);
    if (x != x) return {0x7fff};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline float to_float(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
inline uint16_t __bfloat16_as_ushort(bf16 x) { return x.bits; }

// As ../cuda/tensor.cuh describes.
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b);
void load_matrices(uint32_t (&r)[4], const bf16* row);
void load_matrices_transposed(uint32_t (&r)[4], const bf16* row);
