// Softmax attention of one head of one sample per block: `O = softmax(Q K^T / sqrt(W)) V`. `kernels/src/attention.rs` on a GPU.
//
// The whole head lies in shared memory. A warp works on strips of 16 rows whose scores never leave its registers: the accumulators of one
// product are the left side of the next. The way back makes the probabilities again from each row's maximum and reciprocal sum, once by
// rows (dQ) and once by columns (dK, dV), so that nothing is added up between warps and the bits are the same every time.
#pragma once
#include "gelu.cuh"
#include "tensor.cuh"

constexpr int ATTENTION_THREADS = 128;
constexpr int ATTENTION_WARPS = ATTENTION_THREADS / WARP;

template <class T> struct Attention {
    const T* qkv;     // [B, tokens, 3 D]
    T* out;           // [B, tokens, D]
    float2* softmax;  // [B, H, tokens] maximum (of exponents of 2) and reciprocal sum of each row
    const T* d_out;   // [B, tokens, D]; unused on the way there
    T* d_qkv;         // [B, tokens, 3 D]; unused on the way there
    int tokens, heads;
};

// Places of one head: the grid's x is the head, its y the sample.
template <class T, int W> struct Head {
    const T *q, *k, *v, *out, *d_out;
    T *d_q, *d_k, *d_v, *into;
    float2* softmax;
    size_t three, one; // from token to token
    int tokens;

    DEVICE explicit Head(const Attention<T>& a) : three(size_t(3) * a.heads * W), one(size_t(a.heads) * W), tokens(a.tokens) {
        size_t sample = blockIdx.y, head = blockIdx.x, wide = sample * a.tokens * three + head * W, narrow = sample * a.tokens * one + head * W;
        q = a.qkv + wide, k = q + one, v = k + one;
        d_q = a.d_qkv + wide, d_k = d_q + one, d_v = d_k + one;
        out = a.out + narrow, into = a.out + narrow, d_out = a.d_out + narrow;
        softmax = a.softmax + (sample * a.heads + head) * a.tokens;
    }
};

// `[rows of 16, STRIDE]` of one matrix in shared memory: columns padded with zeros to the tensor cores' 16, then by 8 so that eight rows
// lie in different banks.
template <int W> struct Tile {
    static constexpr int PADDED = (W + 15) / 16 * 16, STEPS = PADDED / 16, STRIDE = PADDED + 8;
};

DEVICE int padded_rows(int tokens) { return (tokens + 15) / 16 * 16; }

// Copies the head's columns of a `[tokens, stride]` matrix to shared memory.
template <int W> DEVICE void fill(bf16* to, const bf16* from, size_t stride, int tokens) {
    constexpr int PACKS = Tile<W>::PADDED / 8;
    for (int i = threadIdx.x; i < padded_rows(tokens) * PACKS; i += ATTENTION_THREADS) {
        int row = i / PACKS, column = i % PACKS * 8;
        Pack<bf16> pack;
        for (int j = 0; j < 8; j++) pack.v[j] = from_float<bf16>(0.0f);
        if (row < tokens && column < W) pack = load(from + row * stride + column);
        store(to + row * Tile<W>::STRIDE + column, pack);
    }
}

// The left sides of 16 rows from `first` on of a `[tokens, stride]` matrix, straight from global memory.
template <int W> DEVICE void left_rows(uint32_t (&a)[Tile<W>::STEPS][4], const bf16* from, size_t stride, int first, int tokens) {
    int row = first + lane() / 4, pairs = lane() % 4 * 2;
#pragma unroll
    for (int step = 0; step < Tile<W>::STEPS; step++) {
#pragma unroll
        for (int part = 0; part < 4; part++) {
            int r = row + part % 2 * 8, column = step * 16 + part / 2 * 8 + pairs;
            a[step][part] = r < tokens && column < W ? *reinterpret_cast<const uint32_t*>(from + r * stride + column) : 0;
        }
    }
}

// `d [16, 16] = a [16, W] rows^T`: two tiles against 16 rows of a matrix in shared memory.
template <int W> DEVICE void times_rows(float (&d)[2][4], const uint32_t (&a)[Tile<W>::STEPS][4], const bf16* rows) {
    const bf16* at = rows + (lane() / 16 * 8 + lane() % 8) * Tile<W>::STRIDE + lane() / 8 % 2 * 8;
    for (auto& tile : d)
        for (float& v : tile) v = 0.0f;
#pragma unroll
    for (int step = 0; step < Tile<W>::STEPS; step++) {
        uint32_t b[4];
        load_matrices(b, at + step * 16);
        mma(d[0], a[step], b);
        mma(d[1], a[step], b + 2);
    }
}

// `d [16, W] += a [16, 16] rows`: all columns of 16 rows of a matrix in shared memory.
template <int W> DEVICE void times_columns(float (&d)[2 * Tile<W>::STEPS][4], const uint32_t (&a)[4], const bf16* rows) {
    const bf16* at = rows + lane() % 16 * Tile<W>::STRIDE + lane() / 16 * 8;
#pragma unroll
    for (int step = 0; step < Tile<W>::STEPS; step++) {
        uint32_t b[4];
        load_matrices_transposed(b, at + step * 16);
        mma(d[2 * step], a, b);
        mma(d[2 * step + 1], a, b + 2);
    }
}

// Writes 16 rows of accumulators, row `g` times `low` and row `g + 8` times `high`.
template <int W> DEVICE void write_rows(bf16* to, size_t stride, const float (&d)[2 * Tile<W>::STEPS][4], int first, int tokens, float low, float high) {
    int row = first + lane() / 4, pairs = lane() % 4 * 2;
#pragma unroll
    for (int tile = 0; tile < 2 * Tile<W>::STEPS; tile++) {
        int column = tile * 8 + pairs;
        if (column >= W) continue;
        if (row < tokens) *reinterpret_cast<uint32_t*>(to + row * stride + column) = pair(d[tile][0] * low, d[tile][1] * low);
        if (row + 8 < tokens) *reinterpret_cast<uint32_t*>(to + (row + 8) * stride + column) = pair(d[tile][2] * high, d[tile][3] * high);
    }
}

// The value that the four lanes of a row agree on.
DEVICE float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

template <int W> DEVICE void attention_forward(const Attention<bf16>& a) {
    // keys between two corrections of the running maximum
    constexpr int GROUPS = 4, KEYS = 16 * GROUPS;
    Head<bf16, W> h(a);
    int padded = padded_rows(h.tokens);
    bf16* keys = reinterpret_cast<bf16*>(shared_memory());
    bf16* values = keys + padded * Tile<W>::STRIDE;
    fill<W>(keys, h.k, h.three, h.tokens);
    fill<W>(values, h.v, h.three, h.tokens);
    __syncthreads();

    const float scale = LOG2_E / sqrtf(float(W));
    for (int first = warp() * 16; first < h.tokens; first += ATTENTION_WARPS * 16) {
        uint32_t q[Tile<W>::STEPS][4];
        left_rows<W>(q, h.q, h.three, first, h.tokens);
        float o[2 * Tile<W>::STEPS][4] = {}, maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {};
        for (int start = 0; start < padded; start += KEYS) {
            float s[2 * GROUPS][4], highest[2] = {maximum[0], maximum[1]};
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                int key = start + group * 16;
                float two[2][4];
                if (key < padded) times_rows<W>(two, q, keys + key * Tile<W>::STRIDE);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    int column = key + i / 4 * 8 + lane() % 4 * 2 + i % 2;
                    float score = column < h.tokens ? two[i / 4][i % 4] * scale : -INFINITY;
                    s[2 * group + i / 4][i % 4] = score;
                    highest[i % 4 / 2] = fmaxf(highest[i % 4 / 2], score);
                }
            }
            // every chunk has a key, so that a maximum is finite
            float correction[2];
#pragma unroll
            for (int row = 0; row < 2; row++) {
                highest[row] = row_max(highest[row]);
                correction[row] = exp2f(maximum[row] - highest[row]);
                maximum[row] = highest[row];
                sum[row] *= correction[row];
            }
#pragma unroll
            for (auto& tile : o)
#pragma unroll
                for (int i = 0; i < 4; i++) tile[i] *= correction[i / 2];
#pragma unroll
            for (auto& tile : s)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    tile[i] = exp2f(tile[i] - maximum[i / 2]);
                    sum[i / 2] += tile[i];
                }
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                int key = start + group * 16;
                uint32_t p[4];
                as_left(p, s[2 * group], s[2 * group + 1]);
                if (key < padded) times_columns<W>(o, p, values + key * Tile<W>::STRIDE);
            }
        }
        float low = 1.0f / row_sum(sum[0]), high = 1.0f / row_sum(sum[1]);
        write_rows<W>(h.into, h.one, o, first, h.tokens, low, high);
        int row = first + lane() / 4;
        if (lane() % 4 == 0 && row < h.tokens) h.softmax[row] = make_float2(maximum[0], low);
        if (lane() % 4 == 0 && row + 8 < h.tokens) h.softmax[row + 8] = make_float2(maximum[1], high);
    }
}

// What the way back needs of each row: maximum, reciprocal sum, and `dO . O`.
struct Rows {
    float *maximum, *inverse, *mean;
};

template <class T, int W> DEVICE void fill_rows(const Rows& rows, const Head<T, W>& h) {
    for (int row = warp(); row < h.tokens; row += ATTENTION_WARPS) {
        float sum = 0.0f;
        for (int c = lane(); c < W; c += WARP) sum += to_float(h.out[row * h.one + c]) * to_float(h.d_out[row * h.one + c]);
        sum = warp_sum(sum);
        if (lane() != 0) continue;
        rows.maximum[row] = h.softmax[row].x;
        rows.inverse[row] = h.softmax[row].y;
        rows.mean[row] = sum;
    }
}

template <int W> DEVICE void attention_backward(const Attention<bf16>& a) {
    Head<bf16, W> h(a);
    int padded = padded_rows(h.tokens);
    bf16* left = reinterpret_cast<bf16*>(shared_memory());
    bf16* right = left + padded * Tile<W>::STRIDE;
    float* numbers = reinterpret_cast<float*>(right + padded * Tile<W>::STRIDE);
    Rows rows = {numbers, numbers + padded, numbers + 2 * padded};
    const float scale = 1.0f / sqrtf(float(W)), binary = LOG2_E * scale;
    fill<W>(left, h.k, h.three, h.tokens);
    fill<W>(right, h.v, h.three, h.tokens);
    fill_rows(rows, h);
    __syncthreads();

    // dS = P (dO V^T - dO . O) scale, dQ = dS K
    for (int first = warp() * 16; first < h.tokens; first += ATTENTION_WARPS * 16) {
        uint32_t q[Tile<W>::STEPS][4], d_out[Tile<W>::STEPS][4];
        left_rows<W>(q, h.q, h.three, first, h.tokens);
        left_rows<W>(d_out, h.d_out, h.one, first, h.tokens);
        float d_q[2 * Tile<W>::STEPS][4] = {};
        for (int key = 0; key < padded; key += 16) {
            float s[2][4], ds[2][4];
            times_rows<W>(s, q, left + key * Tile<W>::STRIDE);
            times_rows<W>(ds, d_out, right + key * Tile<W>::STRIDE);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int row = first + lane() / 4 + i % 4 / 2 * 8, column = key + i / 4 * 8 + lane() % 4 * 2 + i % 2;
                float& out = ds[i / 4][i % 4];
                if (row < h.tokens && column < h.tokens)
                    out = exp2f(s[i / 4][i % 4] * binary - rows.maximum[row]) * rows.inverse[row] * (out - rows.mean[row]) * scale;
                else out = 0.0f;
            }
            uint32_t part[4];
            as_left(part, ds[0], ds[1]);
            times_columns<W>(d_q, part, left + key * Tile<W>::STRIDE);
        }
        write_rows<W>(h.d_q, h.three, d_q, first, h.tokens, 1.0f, 1.0f);
    }
    __syncthreads();
    fill<W>(left, h.q, h.three, h.tokens);
    fill<W>(right, h.d_out, h.one, h.tokens);
    __syncthreads();

    // the same transposed: dV = P^T dO, dK = dS^T Q
    for (int first = warp() * 16; first < h.tokens; first += ATTENTION_WARPS * 16) {
        uint32_t k[Tile<W>::STEPS][4], v[Tile<W>::STEPS][4];
        left_rows<W>(k, h.k, h.three, first, h.tokens);
        left_rows<W>(v, h.v, h.three, first, h.tokens);
        float d_k[2 * Tile<W>::STEPS][4] = {}, d_v[2 * Tile<W>::STEPS][4] = {};
        for (int query = 0; query < padded; query += 16) {
            float p[2][4], ds[2][4];
            times_rows<W>(p, k, left + query * Tile<W>::STRIDE);
            times_rows<W>(ds, v, right + query * Tile<W>::STRIDE);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int row = first + lane() / 4 + i % 4 / 2 * 8, column = query + i / 4 * 8 + lane() % 4 * 2 + i % 2;
                float &probability = p[i / 4][i % 4], &out = ds[i / 4][i % 4];
                if (row < h.tokens && column < h.tokens) {
                    probability = exp2f(probability * binary - rows.maximum[column]) * rows.inverse[column];
                    out = probability * (out - rows.mean[column]) * scale;
                } else probability = out = 0.0f;
            }
            uint32_t part[4];
            as_left(part, p[0], p[1]);
            times_columns<W>(d_v, part, right + query * Tile<W>::STRIDE);
            as_left(part, ds[0], ds[1]);
            times_columns<W>(d_k, part, left + query * Tile<W>::STRIDE);
        }
        write_rows<W>(h.d_k, h.three, d_k, first, h.tokens, 1.0f, 1.0f);
        write_rows<W>(h.d_v, h.three, d_v, first, h.tokens, 1.0f, 1.0f);
    }
}
