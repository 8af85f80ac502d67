// One reverse step of DDPM or DDIM: `diffusion/src/reverse.rs` on a GPU, the same bits for the same output.
#pragma once
#include "exact.cuh"

// The coefficients of one call, made on the CPU.
struct ReverseStep {
    float recip, recipm1, limit; // x0 = recip x_t - recipm1 eps, held to [-limit, limit]
    float mean_x0, mean_xt;      // DDPM: weights of the mean
    float middle, half_range;    // DDPM: ln std = middle + half_range v
    float signal, spread, sigma; // DDIM: x_{t-1} = signal x0 + spread eps + sigma noise
    uint32_t ddim, noisy;
};

// `e^x` as `diffusion/src/exp.rs` has it, to the bit.
DEVICE Exact exact_exp(float x) {
    Exact held = fminf(fmaxf(x, -87.0f), 88.0f), round = 12582912.0f, one = 1.0f;
    Exact shifted = held * Exact(1.44269504088896340736f) + round, n = shifted - round;
    Exact r = held - n * Exact(0.693359375f) - n * Exact(-2.12194440e-4f);
    Exact series = one + r * (one + r * (Exact(0.5f) + r * (Exact(1.0f / 6.0f) + r * (Exact(1.0f / 24.0f) + r * (Exact(1.0f / 120.0f) + r * Exact(1.0f / 720.0f))))));
    return series * Exact(__uint_as_float((__float_as_uint(shifted.v) << 23) + __float_as_uint(1.0f)));
}

struct Reverse {
    const uint32_t* call;     // number of the call
    const ReverseStep* steps; // by call
    const float* output;      // [B, 2 n] noise, then variance values; [B, n] where the variance is not learned
    const float* noise;       // [B, n]
    float* x;                 // [B, n]
    int batch, n, learned;
};

DEVICE void reverse(const Reverse& a) {
    size_t at = thread_number();
    if (at >= size_t(a.batch) * a.n) return;
    ReverseStep s = a.steps[*a.call];
    size_t from = at / a.n * (a.learned ? 2 : 1) * a.n + at % a.n;
    Exact x = a.x[at], eps = a.output[from];
    Exact x0 = fminf(fmaxf((Exact(s.recip) * x - Exact(s.recipm1) * eps).v, -s.limit), s.limit), next = 0.0f;
    if (s.ddim) {
        Exact implied = (Exact(s.recip) * x - x0) / Exact(s.recipm1);
        next = Exact(s.signal) * x0 + Exact(s.spread) * implied;
        if (s.noisy) next = next + Exact(s.sigma) * Exact(a.noise[at]);
    } else {
        next = Exact(s.mean_x0) * x0 + Exact(s.mean_xt) * x;
        Exact v = a.learned ? a.output[from + a.n] : 0.0f;
        if (s.noisy) next = next + exact_exp((Exact(s.middle) + Exact(s.half_range) * v).v) * Exact(a.noise[at]);
    }
    a.x[at] = next.v;
}

struct Spread {
    const uint32_t* number;
    const uint32_t* values; // by number; null: the number itself
    uint32_t* out;          // [count]
    int count;
};

// Tells all rows the value of this call.
DEVICE void spread(const Spread& a) {
    size_t at = thread_number();
    if (at < size_t(a.count)) a.out[at] = a.values ? a.values[*a.number] : *a.number;
}
