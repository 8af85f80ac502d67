// One reverse step of DDPM, DDIM or PNDM, behind guidance: `diffusion/src/reverse.rs` and `pndm.rs` on a GPU, the same bits for the same output.
#pragma once
#include "exact.cuh"

// The coefficients of one call, made on the CPU.
struct ReverseStep {
    float recip, recipm1, limit; // x0 = recip x_t - recipm1 eps, held to [-limit, limit]
    float mean_x0, mean_xt;      // DDPM: weights of the mean
    float middle, half_range;    // DDPM: ln std = middle + half_range v
    float signal, spread, sigma; // DDIM: x_{t-1} = signal x0 + spread eps + sigma noise
    uint32_t ddim, noisy;
    float weights[4];         // PNDM: of the predictions, the latest first
    uint32_t terms, restarts; // PNDM: how many there are, 0 with the others; whether the first step is taken again
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
    float* history;           // [4, B, n] PNDM: the last three predictions, the latest first, and where the run began; else null
    int batch, n, learned;
    int guided;  // values of an image that are guided, from its first on; 0: none. Else `output` and `x` have B more rows: the same without labels
    float scale; // of the guidance
};

// What is predicted for a value: in those that are guided, `without + scale (with - without)`.
DEVICE Exact predicted(const Reverse& a, size_t sample, int place) {
    size_t values = size_t(a.learned ? 2 : 1) * a.n, from = sample * values + place;
    Exact with = a.output[from];
    if (place >= a.guided) return with;
    Exact without = a.output[from + a.batch * values];
    return without + Exact(a.scale) * (with - without);
}

// PNDM's combination of this call's prediction with those before it, which are remembered; `x` begins anew where the step does.
DEVICE Exact multistep(const Reverse& a, const ReverseStep& s, size_t at, Exact eps, Exact* x) {
    size_t apart = size_t(a.batch) * a.n;
    float *past = a.history + at, *start = past + 3 * apart, predictions[4] = {eps.v};
    Exact sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (i >= int(s.terms)) break;
        if (i > 0) predictions[i] = past[(i - 1) * apart];
        sum = sum + Exact(s.weights[i]) * Exact(predictions[i]);
    }
    if (s.restarts) {
        *x = *start;
        return sum;
    }
    if (s.terms == 1) *start = x->v;
#pragma unroll
    for (int i = 0; i < 3; i++)
        if (i < int(s.terms)) past[i * apart] = predictions[i];
    return sum;
}

DEVICE void reverse(const Reverse& a) {
    size_t at = thread_number();
    if (at >= size_t(a.batch) * a.n) return;
    ReverseStep s = a.steps[*a.call];
    size_t sample = at / a.n;
    int place = int(at % a.n);
    Exact x = a.x[at], eps = predicted(a, sample, place);
    if (s.terms) eps = multistep(a, s, at, eps, &x);
    Exact x0 = fminf(fmaxf((Exact(s.recip) * x - Exact(s.recipm1) * eps).v, -s.limit), s.limit), next = 0.0f;
    if (s.ddim) {
        Exact implied = (Exact(s.recip) * x - x0) / Exact(s.recipm1);
        next = Exact(s.signal) * x0 + Exact(s.spread) * implied;
        if (s.noisy) next = next + Exact(s.sigma) * Exact(a.noise[at]);
    } else {
        next = Exact(s.mean_x0) * x0 + Exact(s.mean_xt) * x;
        Exact v = a.learned ? a.output[(2 * sample + 1) * a.n + place] : 0.0f;
        if (s.noisy) next = next + exact_exp((Exact(s.middle) + Exact(s.half_range) * v).v) * Exact(a.noise[at]);
    }
    a.x[at] = next.v;
    if (a.guided) a.x[at + size_t(a.batch) * a.n] = next.v;
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
