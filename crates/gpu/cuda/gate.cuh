// The gate of a mixture of prompts, there and back, in f32 whatever the activations: `patches/src/gate/` and `balance.rs` on a GPU.
//
// A linear layer over the embedding is shared by all blocks; its product is made once (`base`), a block's index times the layer's last
// column is added where blocks are told apart. `L` blocks with prompts, `G` of them with logits of their own (all, or one that stands for
// all), `R` rows of the condition, `N` prompts. Sums have one order each: no atomics, the same bits every time.
#pragma once
#include "condition.cuh"

template <class T> struct GateInput {
    const T* embedding; // [R, D]
    float* plain;       // [R, D]
    float* extended;    // [R, inputs]: a zero behind it where the block's index is one more input
    int rows, width, inputs;
};

template <class T> DEVICE void gate_input(const GateInput<T>& a) {
    size_t at = thread_number();
    if (at >= size_t(a.rows) * a.inputs) return;
    int row = at / a.inputs, column = at % a.inputs;
    float value = column < a.width ? to_float(a.embedding[size_t(row) * a.width + column]) : 0.0f;
    a.extended[at] = value;
    if (column < a.width) a.plain[size_t(row) * a.width + column] = value;
}

DEVICE float deviation(float scale) { return fmaxf(scale, 0.0f) + logf(1.0f + expf(-fabsf(scale))) + 1e-2f; }

// What logits are made of.
struct Scores {
    const float* base;      // [R, N] what the groups share, or [G, R, N]
    const float* bias;      // [N]; null: none
    const float* column;    // the layer's last column, `inputs` apart; null: none
    const float* scale;     // [R, N] of the noise before softplus; null: no noise
    const float* draws;     // [L, all, N]; those of this batch from `first` on
    size_t apart, drawn;    // values of `base` and of `draws` from one group to the next
    int rows, prompts, inputs, first;

    DEVICE float clean(int group, int row, int prompt) const {
        float v = base[group * apart + size_t(row) * prompts + prompt];
        if (bias) v += bias[prompt];
        if (column) v += float(group) * column[size_t(prompt) * inputs];
        return v;
    }

    DEVICE float draw(int group, int row, int prompt) const { return draws[group * drawn + size_t(first + row) * prompts + prompt]; }

    DEVICE float deviates(int row, int prompt) const { return deviation(scale[size_t(row) * prompts + prompt]); }
};

struct GateForward {
    Scores scores;
    float* weights; // [L, R, N]
    float* soft;    // [G, R, N] softmax over all prompts, where a kept prompt counts 1; null: kept prompts count their softmax
    int blocks, groups;
    int kept; // prompts that are used: the highest
};

// Visits the prompts that are this lane's: `visit(k, prompt)`, `k` known when compiled.
constexpr int LANE_PROMPTS = MAX_TOKENS / WARP;
template <class Visit> DEVICE void each_prompt(int prompts, Visit visit) {
#pragma unroll
    for (int k = 0; k < LANE_PROMPTS; k++) {
        int prompt = k * WARP + lane();
        if (prompt < prompts) visit(k, prompt);
    }
}

// How many prompts of the warp's row are before prompt `own` of logit `x`: higher, or as high and of a lower number.
DEVICE int rank(const float (&logit)[LANE_PROMPTS], float x, int own) {
    int before = 0;
#pragma unroll
    for (int k = 0; k < LANE_PROMPTS; k++)
        for (int apart = 0; apart < WARP; apart++) {
            float other = __shfl_xor_sync(~0u, logit[k], apart);
            before += other > x || (other == x && k * WARP + (lane() ^ apart) < own);
        }
    return before;
}

// `weights = softmax(base + bias + index column + deviation draws)` over the prompts, or over the highest, one warp per group and row.
DEVICE void gate_forward(const GateForward& a) {
    const Scores& s = a.scores;
    int number = blockIdx.x * WARPS + warp();
    if (number >= a.groups * s.rows) return;
    int group = number / s.rows, row = number % s.rows, n = s.prompts;
    float logit[LANE_PROMPTS], highest = -INFINITY, sum = 0.0f, whole = 0.0f;
    for (float& v : logit) v = -INFINITY;
    each_prompt(n, [&](int k, int prompt) {
        float v = s.clean(group, row, prompt);
        if (s.scale) v += s.draw(group, row, prompt) * s.deviates(row, prompt);
        logit[k] = v;
        highest = fmaxf(highest, v);
    });
    highest = warp_max(highest);
    uint32_t kept = 0; // a bit for each of the lane's
    // outside of `each_prompt`: all lanes shuffle
#pragma unroll
    for (int k = 0; k < LANE_PROMPTS; k++)
        if (a.kept >= n || rank(logit, logit[k], k * WARP + lane()) < a.kept) kept |= 1u << k;
    each_prompt(n, [&](int k, int) {
        logit[k] = expf(logit[k] - highest);
        whole += logit[k];
        if (kept >> k & 1) sum += logit[k];
    });
    sum = warp_sum(sum), whole = warp_sum(whole);
    int last = a.groups == 1 ? a.blocks : group + 1;
    each_prompt(n, [&](int k, int prompt) {
        if (a.soft) a.soft[size_t(number) * n + prompt] = logit[k] / whole;
        float weight = !(kept >> k & 1) ? 0.0f : a.soft ? 1.0f : logit[k] / sum;
        for (int block = group; block < last; block++) a.weights[(size_t(block) * s.rows + row) * n + prompt] = weight;
    });
}

struct GateSums {
    const float* weights; // [L, R, N]
    float* sums;          // [R, N] over the blocks
    double* parts;        // [R, 2] the sum of a row's sums, and of their squares
    int blocks, rows, prompts;
};

// What the importance loss is made of: one block of threads per row.
DEVICE void gate_sums(const GateSums& a) {
    int row = blockIdx.x;
    double first = 0.0, second = 0.0;
    for (int prompt = threadIdx.x; prompt < a.prompts; prompt += THREADS) {
        float sum = 0.0f;
        for (int block = 0; block < a.blocks; block++) sum += a.weights[(size_t(block) * a.rows + row) * a.prompts + prompt];
        a.sums[size_t(row) * a.prompts + prompt] = sum;
        first += sum;
        second += double(sum) * sum;
    }
    double* shared = reinterpret_cast<double*>(shared_memory());
    first = block_sum(first, shared);
    second = block_sum(second, shared);
    if (threadIdx.x == 0) a.parts[2 * row] = first, a.parts[2 * row + 1] = second;
}

struct GateBackward {
    const float* soft;      // [G, R, N] what the logits' gradient goes through: the weights, or the softmax over all prompts
    const float* d_weights; // [L, R, N] from the trunk
    const float* sums;      // [R, N]
    const double* parts;    // [R, 2]
    float* d_logits;        // [G, R, N]
    double* importance;     // [R] each sample's loss, or, where the batch has one, that
    double coefficient;
    int blocks, groups, rows, prompts, all;
    int together; // whether mean and variance are those of the whole batch
};

// The squared coefficient of variation of `count` sums: `variance / (mean^2 + epsilon)`, and what its derivative by a sum `S` is made of:
// `slope (S - mean) + offset`.
struct Variation {
    double mean, value, slope, offset;
    DEVICE Variation(double first, double second, double count, double variances, double epsilon) : mean(first / count) {
        double variance = fmax(second - first * mean, 0.0) / variances, divisor = mean * mean + epsilon;
        value = variance / divisor;
        slope = 2.0 / (variances * divisor);
        offset = -2.0 * variance * mean / (count * divisor * divisor);
    }
};

// Back through the softmax, with the importance loss added: `d_logits = w (d - sum(w d))`, `w` the softmax, one warp per group and row.
DEVICE void gate_backward(const GateBackward& a) {
    int number = blockIdx.x * WARPS + warp();
    if (number >= a.groups * a.rows) return;
    int group = number / a.rows, row = number % a.rows, n = a.prompts;
    double first = a.parts[2 * row], second = a.parts[2 * row + 1], count = n, share = 1.0 / a.all, epsilon = 1e-5, variances = n;
    if (a.together) {
        first = second = 0.0;
        for (int r = lane(); r < a.rows; r += WARP) first += a.parts[2 * r], second += a.parts[2 * r + 1];
        first = warp_sum(first), second = warp_sum(second);
        count = double(n) * a.rows, share = 1.0, epsilon = 1e-10, variances = count - 1.0;
    }
    // The released code takes a batch of one for a single expert.
    bool alone = a.together && a.rows == 1;
    Variation variation(first, second, count, variances, epsilon);
    if (group == 0 && lane() == 0) a.importance[row] = alone ? 0.0 : variation.value;
    double scale = alone ? 0.0 : a.coefficient * share;

    float d[LANE_PROMPTS], w[LANE_PROMPTS], sum = 0.0f;
    int last = a.groups == 1 ? a.blocks : group + 1;
    each_prompt(n, [&](int k, int prompt) {
        double apart = double(a.sums[size_t(row) * n + prompt]) - variation.mean;
        float balance = float(scale * (variation.slope * apart + variation.offset));
        d[k] = 0.0f;
        for (int block = group; block < last; block++) d[k] += a.d_weights[(size_t(block) * a.rows + row) * n + prompt] + balance;
        w[k] = a.soft[size_t(number) * n + prompt];
        sum += w[k] * d[k];
    });
    sum = warp_sum(sum);
    each_prompt(n, [&](int k, int prompt) { a.d_logits[size_t(number) * n + prompt] = w[k] * (d[k] - sum); });
}

struct GateGather {
    const float* d_out; // [G, R, C] of what a layer over the embedding gave each group
    float* d_base;      // [R, C]
    float* d_index;     // [R, C] of the index's column, row by row
    float factor;       // of the layer in what it gave
    int groups, rows, columns;
};

// Sums over the blocks, one value per thread.
DEVICE void gate_gather(const GateGather& a) {
    size_t at = thread_number(), each = size_t(a.rows) * a.columns;
    if (at >= each) return;
    float base = 0.0f, index = 0.0f;
    for (int group = 0; group < a.groups; group++) {
        float d = a.d_out[group * each + at];
        base += d;
        index += float(group) * d;
    }
    a.d_base[at] = base * a.factor;
    a.d_index[at] = index * a.factor;
}

struct GateNoise {
    const float* d_logits;    // [G, R, N]
    const float* d_deviation; // [G, R, N] of the noise's deviation; null: `d_logits draws`
    const float* scale;       // [R, N]
    const float* draws;       // [L, all, N]
    float* d_scale;           // [R, N]
    size_t drawn;             // values of `draws` from one group to the next
    int groups, rows, prompts, first;
};

// The gradient of the noise's scale before softplus, one value per thread.
DEVICE void gate_noise(const GateNoise& a) {
    size_t at = thread_number(), each = size_t(a.rows) * a.prompts, first = size_t(a.first) * a.prompts;
    if (at >= each) return;
    float noise = 0.0f;
    for (int group = 0; group < a.groups; group++) {
        size_t place = group * each + at;
        noise += a.d_deviation ? a.d_deviation[place] : a.d_logits[place] * a.draws[group * a.drawn + first + at];
    }
    a.d_scale[at] = noise * sigmoid(a.scale[at]);
}

struct GateColumns {
    const float* d_base;  // [R, C]
    const float* d_index; // [R, C]
    float* d_bias;        // [C]; null: there is none
    float* d_column;      // like the layer's last column; null: there is none
    int rows, columns, inputs;
};

// Sums over the batch, one column per thread.
DEVICE void gate_columns(const GateColumns& a) {
    int own = int(thread_number());
    if (own >= a.columns) return;
    float bias = 0.0f, column = 0.0f;
    for (int row = 0; row < a.rows; row++) {
        bias += a.d_base[size_t(row) * a.columns + own];
        column += a.d_index[size_t(row) * a.columns + own];
    }
    if (a.d_bias) a.d_bias[own] = bias;
    if (a.d_column) a.d_column[size_t(own) * a.inputs] = column;
}
