// Arithmetic that no compiler may fuse: the bits are those of the CPU.
#pragma once
#include "device.cuh"

struct Exact {
    float v;
    DEVICE Exact(float v) : v(v) {}
};

DEVICE Exact operator+(Exact a, Exact b) { return __fadd_rn(a.v, b.v); }
DEVICE Exact operator-(Exact a, Exact b) { return __fadd_rn(a.v, -b.v); }
DEVICE Exact operator*(Exact a, Exact b) { return __fmul_rn(a.v, b.v); }
DEVICE Exact operator/(Exact a, Exact b) { return __fdiv_rn(a.v, b.v); }
DEVICE Exact root(Exact a) { return __fsqrt_rn(a.v); }
