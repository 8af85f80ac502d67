// Kernels that are wrong, each in one way: the tests ask that the emulator says so.
#pragma once
#include "../cuda/device.cuh"

struct Fault {
    float* out; // [THREADS]
};

// Reads what another warp writes, without a barrier between.
DEVICE void fault_race(const Fault& a) {
    float* numbers = reinterpret_cast<float*>(shared_memory());
    numbers[threadIdx.x] = float(threadIdx.x);
    a.out[threadIdx.x] = numbers[THREADS - 1 - threadIdx.x];
}

// Writes one number too many.
DEVICE void fault_outside(const Fault& a) { a.out[threadIdx.x + 1] = 1.0f; }

// Reads shared memory beyond what the launch asked for.
DEVICE void fault_shared(const Fault& a) { a.out[threadIdx.x] = reinterpret_cast<float*>(shared_memory())[threadIdx.x + 1]; }

// Some threads wait for the block, the others for their warp.
DEVICE void fault_barrier(const Fault& a) {
    if (threadIdx.x % 2) __syncthreads();
    else __syncwarp();
    a.out[threadIdx.x] = 1.0f;
}

// Loads 16 bytes from an address that is not a multiple of 16.
DEVICE void fault_alignment(const Fault& a) { a.out[threadIdx.x] = load(a.out + 1).v[0]; }

EXPORT(fault_race_f32, THREADS, Fault, fault_race)
EXPORT(fault_outside_f32, THREADS, Fault, fault_outside)
EXPORT(fault_shared_f32, THREADS, Fault, fault_shared)
EXPORT(fault_barrier_f32, THREADS, Fault, fault_barrier)
EXPORT(fault_alignment_f32, THREADS, Fault, fault_alignment)
