// Standard normals of the counter generator of crates/random, to the bit: Philox4x32-10 under (seed, stream, step, index), then
// Box and Muller over the CPU's own series for the logarithm, sine and cosine.
#pragma once
#include "exact.cuh"

struct Words {
    uint32_t v[4];
};

DEVICE Words philox4x32(Words words, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; round++) {
        uint64_t a = uint64_t(words.v[0]) * 0xD2511F53u, b = uint64_t(words.v[2]) * 0xCD9E8D57u;
        words = {{uint32_t(b >> 32) ^ words.v[1] ^ key0, uint32_t(b), uint32_t(a >> 32) ^ words.v[3] ^ key1, uint32_t(a)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return words;
}

// Natural logarithm of a normal positive number: mantissa in [sqrt(1/2), sqrt(2)), then the odd series of 2 artanh(s).
DEVICE Exact exact_ln(float x) {
    uint32_t bits = __float_as_uint(x), raised = bits - __float_as_uint(1.41421356237309504880f / 2.0f);
    int32_t exponent = int32_t(raised) >> 23;
    Exact m = __uint_as_float(bits - (uint32_t(exponent) << 23)), one = 1.0f;
    Exact s = (m - one) / (m + one), z = s * s;
    Exact series = one + z * (Exact(1.0f / 3.0f) + z * (Exact(1.0f / 5.0f) + z * (Exact(1.0f / 7.0f) + z * (Exact(1.0f / 9.0f) + z * Exact(1.0f / 11.0f)))));
    return Exact(float(exponent)) * Exact(0.693147180559945309417f) + Exact(2.0f) * s * series;
}

// Sine and cosine of `turns` full turns: the nearest quarter is split off exactly, the rest goes through the Taylor series.
DEVICE void sin_cos_turns(Exact turns, Exact* sine, Exact* cosine) {
    uint32_t quarter = uint32_t((turns * Exact(4.0f) + Exact(0.5f)).v);
    Exact a = (turns - Exact(float(quarter)) * Exact(0.25f)) * Exact(6.28318530717958647692f), z = a * a, one = 1.0f;
    Exact sin = a * (one + z * (Exact(-1.0f / 6.0f) + z * (Exact(1.0f / 120.0f) + z * (Exact(-1.0f / 5040.0f) + z * Exact(1.0f / 362880.0f)))));
    Exact cos = one + z * (Exact(-1.0f / 2.0f) + z * (Exact(1.0f / 24.0f) + z * (Exact(-1.0f / 720.0f) + z * (Exact(1.0f / 40320.0f) - z * Exact(1.0f / 3628800.0f)))));
    bool odd = quarter & 1;
    float first = odd ? cos.v : sin.v, second = odd ? sin.v : cos.v;
    *sine = __uint_as_float(__float_as_uint(first) ^ ((quarter & 2) << 30));
    *cosine = __uint_as_float(__float_as_uint(second) ^ (((quarter + 1) & 2) << 30));
}

// Two normals from two words: `sqrt(-2 ln u) (cos, sin)(2 pi v)`.
DEVICE void box_muller(uint32_t a, uint32_t b, float* first, float* second) {
    Exact u = (Exact(__uint2float_rn(a)) + Exact(0.5f)) * Exact(1.0f / 4294967296.0f), sin = 0.0f, cos = 0.0f;
    Exact radius = root(fmaxf((Exact(-2.0f) * exact_ln(u.v)).v, 0.0f));
    sin_cos_turns(Exact(float(b >> 8)) * Exact(1.0f / 16777216.0f), &sin, &cos);
    *first = (radius * cos).v;
    *second = (radius * sin).v;
}

struct Normals {
    const uint32_t* step;  // one number, read when the kernel runs: a captured graph draws anew each time
    const uint64_t* first; // likewise
    float* out;            // [count] the normals first, first + 1, ..
    size_t count;
    uint32_t key0, key1, stream;
};

// Four normals per thread: a block of the generator, of which the first and the last may be wanted in part.
DEVICE void normals(const Normals& a) {
    uint64_t first = *a.first, block = first / 4 + thread_number();
    if (block * 4 >= first + a.count) return;
    Words words = philox4x32({{uint32_t(block), uint32_t(block >> 32), *a.step, a.stream}}, a.key0, a.key1);
    float four[4];
    box_muller(words.v[0], words.v[1], &four[0], &four[1]);
    box_muller(words.v[2], words.v[3], &four[2], &four[3]);
    for (int i = 0; i < 4; i++)
        if (block * 4 + i >= first && block * 4 + i < first + a.count) a.out[block * 4 + i - first] = four[i];
}
