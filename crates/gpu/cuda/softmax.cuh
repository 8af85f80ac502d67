// Softmax of rows that are too long for a head in shared memory: the autoencoder's attention over all places of a map.
#pragma once
#include "device.cuh"

template <class T> struct Softmax {
    const float* scores; // [rows, width]
    T* probabilities;    // [rows, width]
    int rows, width;
    float scale; // of the scores
};

// `softmax(scale scores)`, one warp per row.
template <class T> DEVICE void softmax_rows(const Softmax<T>& a) {
    int row = blockIdx.x * WARPS + warp();
    if (row >= a.rows) return;
    const float* scores = a.scores + size_t(row) * a.width;
    T* out = a.probabilities + size_t(row) * a.width;
    float most = -INFINITY, sum = 0.0f;
    for (int i = lane(); i < a.width; i += WARP) most = fmaxf(most, scores[i]);
    most = warp_max(most);
    for (int i = lane(); i < a.width; i += WARP) sum += expf(a.scale * (scores[i] - most));
    float inverse = 1.0f / warp_sum(sum);
    for (int i = lane(); i < a.width; i += WARP) out[i] = from_float<T>(expf(a.scale * (scores[i] - most)) * inverse);
}
