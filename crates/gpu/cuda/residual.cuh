// Along the residual stream: everything between two matrix products outside the branches, one warp per token.
// `kernels/src/residual.rs` and `layernorm.rs` on a GPU.
#pragma once
#include "device.cuh"

// Visits the packs of a row that are this lane's: `visit(k, column)`, `k` known when compiled.
template <class T, class Visit> DEVICE void each_pack(int width, Visit visit) {
    constexpr int STRIDE = WARP * Pack<T>::N, PACKS = (MAX_WIDTH + STRIDE - 1) / STRIDE;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        int column = k * STRIDE + lane() * Pack<T>::N;
        if (column < width) visit(k, column);
    }
}

// The part of a row that a lane keeps in registers.
template <class T> struct Row {
    static constexpr int STRIDE = WARP * Pack<T>::N, PACKS = (MAX_WIDTH + STRIDE - 1) / STRIDE;
    float v[PACKS][Pack<T>::N];
};

// What a patch gives to the first `places` tokens of a sample of row `r`: `w[r, t] * values[r * per_row + t * per_token]` to token `t`, `w` 1
// where there are no weights. It is added to the token, or, in front of the image's tokens, it replaces what stood there.
struct Entry {
    const float* weights; // [R, places]
    const float* values;  // prompts [places, D] or vectors [R, D]; null: nothing
    int per_row, per_token, places, replaces;
};

template <class T> struct ResidualNorm {
    const T* base;        // [B, before, D] the stream; without a gate, the positions [before, D]
    const T* branch;      // [B, before, D] a branch's output before its bias
    const T* bias;        // [D]
    const T* modulations; // [R, stride]
    const unsigned* rows; // [B] each sample's row of the modulations
    Entry entry;
    T* x;               // [B, tokens, D]
    float2* statistics; // [B, tokens] mean and reciprocal deviation
    T* normed;          // [B, tokens, D]
    int batch, tokens, width, stride;
    int before;             // tokens that came; prompts in front make them more, or are dropped from them
    int gate, shift, scale; // columns of the modulations; gate < 0: none
};

// `x = base + gate (branch + bias) + entry`, `normed = LayerNorm(x) (1 + scale) + shift`.
template <class T> DEVICE void residual_norm(const ResidualNorm<T>& a) {
    int number = blockIdx.x * WARPS + warp();
    if (number >= a.batch * a.tokens) return;
    int sample = number / a.tokens, token = number % a.tokens, d = a.width;
    unsigned row = a.rows[sample];
    const T* modulation = a.modulations + size_t(row) * a.stride;
    const Entry& entry = a.entry;
    bool entered = entry.values && token < entry.places, came = !(entered && entry.replaces);
    int place = came ? token + a.before - a.tokens : 0;
    size_t at = size_t(number) * d, from = (size_t(sample) * a.before + place) * d;
    const T *base = a.base + (a.gate < 0 ? size_t(place) * d : from), *branches = a.branch + from;
    float weight = entered && entry.weights ? entry.weights[size_t(row) * entry.places + token] : 1.0f;
    const float* values = entered ? entry.values + (size_t(row) * entry.per_row + size_t(token) * entry.per_token) * d : nullptr;

    Row<T> x;
    float sum = 0.0f;
    each_pack<T>(d, [&](int k, int column) {
        float (&v)[Pack<T>::N] = x.v[k];
        for (float& value : v) value = 0.0f;
        if (came) {
            Pack<T> stream = load(base + column), branch = load(branches + column), bias = load(a.bias + column);
            Pack<T> gate = a.gate < 0 ? bias : load(modulation + a.gate + column);
            for (int i = 0; i < Pack<T>::N; i++) {
                float g = a.gate < 0 ? 1.0f : to_float(gate.v[i]);
                v[i] = to_float(stream.v[i]) + g * (to_float(branch.v[i]) + to_float(bias.v[i]));
            }
        }
        Pack<T> out;
        for (int i = 0; i < Pack<T>::N; i++) {
            if (values) v[i] += weight * values[column + i];
            out.v[i] = from_float<T>(v[i]);
            v[i] = to_float(out.v[i]); // the way back sees the rounded value
            sum += v[i];
        }
        store(a.x + at + column, out);
    });
    float mean = warp_sum(sum) / d, squares = 0.0f;
    each_pack<T>(d, [&](int k, int) {
        for (int i = 0; i < Pack<T>::N; i++) squares += (x.v[k][i] - mean) * (x.v[k][i] - mean);
    });
    float inverse = 1.0f / sqrtf(warp_sum(squares) / d + EPSILON);
    if (lane() == 0) a.statistics[number] = make_float2(mean, inverse);
    each_pack<T>(d, [&](int k, int column) {
        Pack<T> shift = load(modulation + a.shift + column), scale = load(modulation + a.scale + column), out;
        for (int i = 0; i < Pack<T>::N; i++) {
            float normal = (x.v[k][i] - mean) * inverse;
            out.v[i] = from_float<T>(normal * (1.0f + to_float(scale.v[i])) + to_float(shift.v[i]));
        }
        store(a.normed + at + column, out);
    });
}

template <class T> struct NormBackward {
    const T* x;               // [B, tokens, D]
    const float2* statistics; // [B, tokens]
    const T* dn;              // [B, tokens, D] gradient of the normalised rows
    const T* modulations;     // [R, stride]
    const unsigned* rows;     // [B]
    T* dx;                    // [B, before, D] gradient of the stream, added to (or, if `fresh`, written)
    T* d_branch;              // [B, before, D] gradient of the branch before: `dx gate`; null: there is none
    T* again;                 // [B, tokens, D] the normalised rows once more; null: not wanted
    int batch, tokens, width, stride;
    int before;             // tokens of the stream: where there are more, the first were dropped, and nothing comes back to them
    int replaced;           // first tokens of the stream that are a patch's: nothing goes back from them to the branch
    int gate, shift, scale; // columns of the modulations
    int fresh;
};

// With `g = dn (1 + scale)`: `dx += (g - mean(g) - x^ mean(g x^)) / deviation`.
template <class T> DEVICE void norm_backward(const NormBackward<T>& a) {
    int number = blockIdx.x * WARPS + warp();
    if (number >= a.batch * a.before) return;
    int sample = number / a.before, token = number % a.before, place = token + a.tokens - a.before, d = a.width;
    size_t at = size_t(number) * d;
    if (place < 0) {
        each_pack<T>(d, [&](int, int column) {
            Pack<T> zeros;
            for (T& zero : zeros.v) zero = from_float<T>(0.0f);
            store(a.dx + at + column, zeros);
            if (a.d_branch) store(a.d_branch + at + column, zeros);
        });
        return;
    }
    const T* modulation = a.modulations + size_t(a.rows[sample]) * a.stride;
    size_t normed = size_t(sample) * a.tokens + place, from = normed * d;
    float mean = a.statistics[normed].x, inverse = a.statistics[normed].y;

    Row<T> g, normal;
    float sum_g = 0.0f, sum_gx = 0.0f;
    each_pack<T>(d, [&](int k, int column) {
        Pack<T> x = load(a.x + from + column), dn = load(a.dn + from + column), scale = load(modulation + a.scale + column);
        for (int i = 0; i < Pack<T>::N; i++) {
            normal.v[k][i] = (to_float(x.v[i]) - mean) * inverse;
            g.v[k][i] = to_float(dn.v[i]) * (1.0f + to_float(scale.v[i]));
            sum_g += g.v[k][i];
            sum_gx += g.v[k][i] * normal.v[k][i];
        }
        if (a.again) {
            Pack<T> shift = load(modulation + a.shift + column), out;
            for (int i = 0; i < Pack<T>::N; i++)
                out.v[i] = from_float<T>(normal.v[k][i] * (1.0f + to_float(scale.v[i])) + to_float(shift.v[i]));
            store(a.again + from + column, out);
        }
    });
    float mean_g = warp_sum(sum_g) / d, mean_gx = warp_sum(sum_gx) / d;
    each_pack<T>(d, [&](int k, int column) {
        Pack<T> dx, d_branch;
        if (!a.fresh) dx = load(a.dx + at + column);
        Pack<T> gate;
        if (a.d_branch) gate = load(modulation + a.gate + column);
        for (int i = 0; i < Pack<T>::N; i++) {
            float v = inverse * (g.v[k][i] - mean_g - normal.v[k][i] * mean_gx);
            if (!a.fresh) v += to_float(dx.v[i]);
            dx.v[i] = from_float<T>(v);
            if (a.d_branch) d_branch.v[i] = from_float<T>(token < a.replaced ? 0.0f : v * to_float(gate.v[i]));
        }
        store(a.dx + at + column, dx);
        if (a.d_branch) store(a.d_branch + at + column, d_branch);
    });
}
