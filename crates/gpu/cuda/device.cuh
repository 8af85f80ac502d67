// What every kernel is written in: the element types, packs of 16 bytes, sums over a warp, and how a kernel gets its name.
//
// nvcc compiles these files for a GPU; g++ compiles the same files against ../emulator/emulator.h.
#pragma once
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <stdint.h>
#define DEVICE __device__ __forceinline__
typedef __nv_bfloat16 bf16;
extern __shared__ __align__(128) unsigned char shared_arena[];
DEVICE unsigned char* shared_memory() { return shared_arena; }
DEVICE float to_float(bf16 x) { return __bfloat162float(x); }
template <class T> DEVICE void aligned(const T*) {}
// A kernel takes one structure of arguments and is found by its name.
#define EXPORT(name, threads, Arguments, function) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Arguments a) { function(a); }
#else
#include "emulator.h"
#define DEVICE inline
#define EXPORT(name, threads, Arguments, function)                                                   \
    static const emulator::Registration name##_registration(#name, threads, sizeof(Arguments),       \
        [](const void* a) { function(*static_cast<const Arguments*>(a)); });
#endif

// The same kernel for both element types.
#define EXPORT_BOTH(name, threads, Arguments, function)            \
    EXPORT(name##_f32, threads, Arguments<float>, function<float>) \
    EXPORT(name##_bf16, threads, Arguments<bf16>, function<bf16>)

constexpr int WARP = 32;
// Threads of a block of every kernel but attention's.
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
// The widest token: a row fits the registers of a warp. DiT-XL's is 1152.
constexpr int MAX_WIDTH = 1280;
// The longest sequence: a head fits shared memory, a row of prompts the registers of a warp.
constexpr int MAX_TOKENS = 320;
// LayerNorm's epsilon in DiT.
constexpr float EPSILON = 1e-6f;

DEVICE float to_float(float x) { return x; }
template <class T> DEVICE T from_float(float x) { return T(x); }
template <> DEVICE bf16 from_float<bf16>(float x) { return __float2bfloat16(x); }

// 16 bytes of neighbouring elements: one transaction of a thread.
template <class T> struct alignas(16) Pack {
    static constexpr int N = 16 / sizeof(T);
    T v[N];
};

template <class T> DEVICE Pack<T> load(const T* from) {
    aligned(from);
    return *reinterpret_cast<const Pack<T>*>(from);
}

template <class T> DEVICE void store(T* to, const Pack<T>& pack) {
    aligned(to);
    *reinterpret_cast<Pack<T>*>(to) = pack;
}

// Sums and maxima that all lanes receive, always in the same order.
template <class F> DEVICE F warp_sum(F x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(~0u, x, apart);
    return x;
}

DEVICE float warp_max(float x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, apart));
    return x;
}

DEVICE int lane() { return threadIdx.x % WARP; }
DEVICE int warp() { return threadIdx.x / WARP; }
// This thread's number in the grid, along x.
DEVICE size_t thread_number() { return size_t(blockIdx.x) * blockDim.x + threadIdx.x; }

// The sum over the block's threads, for thread 0.
DEVICE double block_sum(double x, double* parts) {
    x = warp_sum(x);
    if (lane() == 0) parts[warp()] = x;
    __syncthreads();
    double sum = 0.0;
    if (threadIdx.x == 0)
        for (int i = 0; i < WARPS; i++) sum += parts[i];
    __syncthreads();
    return sum;
}
