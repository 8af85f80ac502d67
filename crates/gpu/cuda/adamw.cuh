// AdamW over one flat buffer, and the running average of weights: `kernels/src/adamw.rs` on a GPU, to the bit.
#pragma once
#include "exact.cuh"

// One step's factors of a group; written before each step.
struct Factors {
    float keep, step, root_correction;
};

template <class T> struct AdamW {
    float* p;        // [count]
    float* m;        // [count] first moment
    float* v;        // [count] second moment
    const float* g;  // [count]
    T* copy;         // [count] the parameters as the products read them; null: they read `p`
    const Factors* factors;
    size_t count;
};

template <class T> DEVICE void adamw(const AdamW<T>& a) {
    size_t at = thread_number();
    if (at >= a.count) return;
    Exact g = a.g[at], m = a.m[at], v = a.v[at];
    m = m + Exact(float(1.0 - 0.9)) * (g - m);
    v = v * Exact(float(0.999)) + Exact(float(1.0 - 0.999)) * g * g;
    Exact change = m / (root(v) / Exact(a.factors->root_correction) + Exact(1e-8f));
    Exact p = Exact(a.p[at]) * Exact(a.factors->keep) - Exact(a.factors->step) * change;
    a.m[at] = m.v;
    a.v[at] = v.v;
    a.p[at] = p.v;
    if (a.copy) a.copy[at] = from_float<T>(p.v);
}

struct Average {
    float* average;      // [count]
    const float* values; // [count]
    const float* decay;  // one number; written before each step, and behind it `1 - decay`
    size_t count;
};

// `average = decay average + (1 - decay) values`.
DEVICE void average(const Average& a) {
    size_t at = thread_number();
    if (at < a.count) a.average[at] = (Exact(a.average[at]) * Exact(a.decay[0]) + Exact(a.decay[1]) * Exact(a.values[at])).v;
}
