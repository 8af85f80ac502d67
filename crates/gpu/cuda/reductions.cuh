// Sums over tokens or samples, each by one thread in the order of the rows: no atomics, the same bits every time.
#pragma once
#include "device.cuh"

template <class T> DEVICE void add(float* sum, const Pack<T>& pack, float weight = 1.0f) {
    for (int i = 0; i < Pack<T>::N; i++) sum[i] += weight * to_float(pack.v[i]);
}

template <class T> DEVICE void write(float* out, const float* sum) {
    for (int i = 0; i < Pack<T>::N; i++) out[i] = sum[i];
}

// First column of this thread's pack, along the grid's x.
template <class T> DEVICE int pack_column() { return int(thread_number()) * Pack<T>::N; }

template <class T> struct ColumnSum {
    const T* values; // [count, width]
    float* parts;    // [blocks along y, width]
    size_t count;
    int width, chunk; // rows of a part
};

// Sums of each chunk's rows, one column per thread; `add_parts` makes one sum of them.
template <class T> DEVICE void column_sum(const ColumnSum<T>& a) {
    int column = int(thread_number());
    if (column >= a.width) return;
    size_t first = size_t(blockIdx.y) * a.chunk, end = first + a.chunk < a.count ? first + a.chunk : a.count;
    float sum = 0.0f;
    for (size_t row = first; row < end; row++) sum += to_float(a.values[row * a.width + column]);
    a.parts[size_t(blockIdx.y) * a.width + column] = sum;
}

struct AddParts {
    const float* parts; // [count, width]
    float* sum;         // [width]
    int count, width;
};

DEVICE void add_parts(const AddParts& a) {
    int column = int(thread_number());
    if (column >= a.width) return;
    float sum = 0.0f;
    for (int part = 0; part < a.count; part++) sum += a.parts[size_t(part) * a.width + column];
    a.sum[column] = sum;
}

// Gradients of a sample's shift and scale: sums over its tokens of `dn` and `dn x^`. One row of the grid per sample.
template <class T> struct ModulationGradient {
    const T* x;               // [B, tokens, D]
    const float2* statistics; // [B, tokens]
    const T* dn;              // [B, tokens, D]
    T* d_modulations;         // [B, stride]
    int tokens, width, stride, shift, scale;
};

template <class T> DEVICE void modulation_gradient(const ModulationGradient<T>& a) {
    int column = pack_column<T>(), sample = blockIdx.y;
    if (column >= a.width) return;
    float d_shift[Pack<T>::N] = {}, d_scale[Pack<T>::N] = {};
    for (int token = 0; token < a.tokens; token++) {
        size_t row = size_t(sample) * a.tokens + token;
        float2 statistics = a.statistics[row];
        Pack<T> x = load(a.x + row * a.width + column), dn = load(a.dn + row * a.width + column);
        add(d_shift, dn);
        for (int i = 0; i < Pack<T>::N; i++)
            d_scale[i] += to_float(dn.v[i]) * ((to_float(x.v[i]) - statistics.x) * statistics.y);
    }
    Pack<T> shift, scale;
    for (int i = 0; i < Pack<T>::N; i++) {
        shift.v[i] = from_float<T>(d_shift[i]);
        scale.v[i] = from_float<T>(d_scale[i]);
    }
    T* out = a.d_modulations + size_t(sample) * a.stride + column;
    store(out + a.shift, shift);
    store(out + a.scale, scale);
}

// The gradient of a branch's gate: the sum over a sample's tokens of `dx (branch + bias)`. One row of the grid per sample.
template <class T> struct GateGradient {
    const T* dx;      // [B, tokens, D]
    const T* branch;  // [B, tokens, D]
    const T* bias;    // [D]
    T* d_modulations; // [B, stride]
    int tokens, width, stride, gate;
};

template <class T> DEVICE void gate_gradient(const GateGradient<T>& a) {
    int column = pack_column<T>(), sample = blockIdx.y;
    if (column >= a.width) return;
    Pack<T> bias = load(a.bias + column), out;
    float sum[Pack<T>::N] = {};
    for (int token = 0; token < a.tokens; token++) {
        size_t at = (size_t(sample) * a.tokens + token) * a.width + column;
        Pack<T> dx = load(a.dx + at), branch = load(a.branch + at);
        for (int i = 0; i < Pack<T>::N; i++) sum[i] += to_float(dx.v[i]) * (to_float(branch.v[i]) + to_float(bias.v[i]));
    }
    for (int i = 0; i < Pack<T>::N; i++) out.v[i] = from_float<T>(sum[i]);
    store(a.d_modulations + size_t(sample) * a.stride + a.gate + column, out);
}

// Gradients of what a patch gives to the first `places` tokens before a block: `kernels`' `Weighted`, `Broadcast`, `Prepend` and
// `PrependBroadcast`.
template <class T> struct EntryGradient {
    T* dx;                // [B, tokens, D]; zeros afterwards where the patch replaced a token, as nothing goes further back from there
    const unsigned* rows; // [B]
    const float* weights; // [R, places]
    const float* prompts; // [places, D]
    float* d_weights;     // [B, places]
    float* d_values;      // prompts [places, D], or vectors [B, D]
    int batch, tokens, width, places, replaces;
};

// The gradient of a pack of the stream, which ends here where the patch replaced it.
template <class T> DEVICE Pack<T> take(const EntryGradient<T>& a, int sample, int token, int column) {
    T* dx = a.dx + (size_t(sample) * a.tokens + token) * a.width + column;
    Pack<T> pack = load(dx), zeros;
    if (!a.replaces) return pack;
    for (T& zero : zeros.v) zero = from_float<T>(0.0f);
    store(dx, zeros);
    return pack;
}

// `d_weights[b, t] = dx[b, t] . prompts[t]`, one warp per token. Before `prompt_gradient`, which takes `dx`.
template <class T> DEVICE void entry_weight_gradient(const EntryGradient<T>& a) {
    int number = blockIdx.x * WARPS + warp();
    if (number >= a.batch * a.places) return;
    const T* dx = a.dx + (size_t(number / a.places) * a.tokens + number % a.places) * a.width;
    const float* prompt = a.prompts + size_t(number % a.places) * a.width;
    float sum = 0.0f;
    for (int column = lane() * Pack<T>::N; column < a.width; column += WARP * Pack<T>::N) {
        Pack<T> pack = load(dx + column);
        for (int i = 0; i < Pack<T>::N; i++) sum += to_float(pack.v[i]) * prompt[column + i];
    }
    sum = warp_sum(sum);
    if (lane() == 0) a.d_weights[number] = sum;
}

// `d_prompts[t] = sum over b of weights[row b, t] dx[b, t]`. One row of the grid per token.
template <class T> DEVICE void prompt_gradient(const EntryGradient<T>& a) {
    int column = pack_column<T>(), token = blockIdx.y;
    if (column >= a.width) return;
    float sum[Pack<T>::N] = {};
    for (int sample = 0; sample < a.batch; sample++) {
        float weight = a.weights[size_t(a.rows[sample]) * a.places + token];
        add(sum, take(a, sample, token, column), weight);
    }
    write<T>(a.d_values + size_t(token) * a.width + column, sum);
}

// `d_vectors[b] = sum over t of dx[b, t]`. One row of the grid per sample.
template <class T> DEVICE void vector_gradient(const EntryGradient<T>& a) {
    int column = pack_column<T>(), sample = blockIdx.y;
    if (column >= a.width) return;
    float sum[Pack<T>::N] = {};
    for (int token = 0; token < a.places; token++) add(sum, take(a, sample, token, column));
    write<T>(a.d_values + size_t(sample) * a.width + column, sum);
}
