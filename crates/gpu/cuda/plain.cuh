// Attention in f32, for checking: the head in shared memory, one warp per row, no tensor cores.
#pragma once
#include "attention.cuh"

// Rows of shared memory a number apart that is odd: lanes on different rows meet no bank twice.
template <int W> constexpr int PLAIN_STRIDE = W + 1;
// Numbers of a row that a lane holds.
constexpr int OWN = MAX_TOKENS / WARP;

template <int W> DEVICE void fill_plain(float* to, const float* from, size_t stride, int tokens) {
    for (int i = threadIdx.x; i < tokens * W; i += ATTENTION_THREADS) to[i / W * PLAIN_STRIDE<W> + i % W] = from[i / W * stride + i % W];
}

// `x[i] = row . rows[lane + 32 i]`.
template <int W> DEVICE void dots(float (&x)[OWN], const float* row, const float* rows, int tokens) {
    for (float& v : x) v = 0.0f;
    for (int c = 0; c < W; c++)
        for (int i = 0; i < OWN; i++)
            if (lane() + i * WARP < tokens) x[i] += row[c] * rows[(lane() + i * WARP) * PLAIN_STRIDE<W> + c];
}

// `to[c] = factor sum over j of weights[j] rows[j, c]`.
template <int W> DEVICE void mix(float* to, const float* weights, const float* rows, int tokens, float factor) {
    for (int c = lane(); c < W; c += WARP) {
        float sum = 0.0f;
        for (int j = 0; j < tokens; j++) sum += weights[j] * rows[j * PLAIN_STRIDE<W> + c];
        to[c] = sum * factor;
    }
}

template <int W> DEVICE void plain_forward(const Attention<float>& a) {
    Head<float, W> h(a);
    int tokens = h.tokens;
    float* keys = reinterpret_cast<float*>(shared_memory());
    float *values = keys + tokens * PLAIN_STRIDE<W>, *own = values + tokens * PLAIN_STRIDE<W> + warp() * tokens;
    fill_plain<W>(keys, h.k, h.three, tokens);
    fill_plain<W>(values, h.v, h.three, tokens);
    __syncthreads();
    const float scale = LOG2_E / sqrtf(float(W));
    for (int row = warp(); row < tokens; row += ATTENTION_WARPS) {
        float s[OWN], maximum = -INFINITY, sum = 0.0f;
        dots<W>(s, h.q + row * h.three, keys, tokens);
        for (int i = 0; i < OWN; i++)
            if (lane() + i * WARP < tokens) maximum = fmaxf(maximum, s[i] * scale);
        maximum = warp_max(maximum);
        for (int i = 0; i < OWN; i++)
            if (lane() + i * WARP < tokens) {
                float p = exp2f(s[i] * scale - maximum);
                own[lane() + i * WARP] = p;
                sum += p;
            }
        float inverse = 1.0f / warp_sum(sum);
        __syncwarp();
        mix<W>(h.into + row * h.one, own, values, tokens, inverse);
        if (lane() == 0) h.softmax[row] = make_float2(maximum, inverse);
        __syncwarp();
    }
}

template <int W> DEVICE void plain_backward(const Attention<float>& a) {
    Head<float, W> h(a);
    int tokens = h.tokens;
    float* left = reinterpret_cast<float*>(shared_memory());
    float *right = left + tokens * PLAIN_STRIDE<W>, *numbers = right + tokens * PLAIN_STRIDE<W>;
    Rows rows = {numbers, numbers + tokens, numbers + 2 * tokens};
    float *own = numbers + (3 + 2 * warp()) * tokens, *own_p = own + tokens;
    const float scale = 1.0f / sqrtf(float(W)), binary = LOG2_E * scale;
    fill_plain<W>(left, h.k, h.three, tokens);
    fill_plain<W>(right, h.v, h.three, tokens);
    fill_rows(rows, h);
    __syncthreads();
    for (int row = warp(); row < tokens; row += ATTENTION_WARPS) {
        float s[OWN], dp[OWN];
        dots<W>(s, h.q + row * h.three, left, tokens);
        dots<W>(dp, h.d_out + row * h.one, right, tokens);
        for (int i = 0; i < OWN; i++)
            if (lane() + i * WARP < tokens)
                own[lane() + i * WARP] = exp2f(s[i] * binary - rows.maximum[row]) * rows.inverse[row] * (dp[i] - rows.mean[row]) * scale;
        __syncwarp();
        mix<W>(h.d_q + row * h.three, own, left, tokens, 1.0f);
        __syncwarp();
    }
    __syncthreads();
    fill_plain<W>(left, h.q, h.three, tokens);
    fill_plain<W>(right, h.d_out, h.one, tokens);
    __syncthreads();
    for (int row = warp(); row < tokens; row += ATTENTION_WARPS) {
        float s[OWN], dp[OWN];
        dots<W>(s, h.k + row * h.three, left, tokens);
        dots<W>(dp, h.v + row * h.three, right, tokens);
        for (int i = 0; i < OWN; i++) {
            int query = lane() + i * WARP;
            if (query >= tokens) continue;
            float p = exp2f(s[i] * binary - rows.maximum[query]) * rows.inverse[query];
            own_p[query] = p;
            own[query] = p * (dp[i] - rows.mean[query]) * scale;
        }
        __syncwarp();
        mix<W>(h.d_v + row * h.three, own_p, right, tokens, 1.0f);
        mix<W>(h.d_k + row * h.three, own, left, tokens, 1.0f);
        __syncwarp();
    }
}
