// Around the products of the embedders: `kernels/src/condition.rs` on a GPU, one value per thread.
#pragma once
#include "device.cuh"

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T> struct Features {
    const float* table;        // [timesteps, width], made on the CPU: its bits
    const unsigned* timesteps; // [R]
    T* features;               // [R, width]
    int rows, width;
};

template <class T> DEVICE void timestep_features(const Features<T>& a) {
    size_t at = thread_number();
    if (at >= size_t(a.rows) * a.width) return;
    a.features[at] = from_float<T>(a.table[size_t(a.timesteps[at / a.width]) * a.width + at % a.width]);
}

template <class T> struct Silu {
    const T* x;
    T* out; // forward: silu(x); backward: the gradient of silu(x), which becomes that of x
    size_t count;
};

template <class T> DEVICE void silu_forward(const Silu<T>& a) {
    size_t at = thread_number();
    if (at >= a.count) return;
    float x = to_float(a.x[at]);
    a.out[at] = from_float<T>(x * sigmoid(x));
}

template <class T> DEVICE void silu_backward(const Silu<T>& a) {
    size_t at = thread_number();
    if (at >= a.count) return;
    float x = to_float(a.x[at]), s = sigmoid(x);
    a.out[at] = from_float<T>(to_float(a.out[at]) * (s * (1.0f + x * (1.0f - s))));
}

template <class T> struct Label {
    T* table;               // [label rows, D]
    const unsigned* labels; // [R]
    const T* t_emb;         // [R, D]
    T* c;                   // [R, D] `t_emb + table[label]`
    T* active;              // [R, D] `silu(c)`
    int rows, width;
};

template <class T> DEVICE void label_sum(const Label<T>& a) {
    size_t at = thread_number();
    if (at >= size_t(a.rows) * a.width) return;
    T label = a.table[size_t(a.labels[at / a.width]) * a.width + at % a.width];
    T c = from_float<T>(to_float(a.t_emb[at]) + to_float(label));
    a.c[at] = c;
    a.active[at] = from_float<T>(to_float(c) * sigmoid(to_float(c)));
}

template <class T> struct LabelGradient {
    const T* d_label;       // [R, D]
    const unsigned* labels; // [R]
    float* d_table;         // [label rows, D]
    int rows, width;
};

// The sum over the rows of each label, in their order. One row of the grid per label.
template <class T> DEVICE void label_gradient(const LabelGradient<T>& a) {
    int column = int(thread_number());
    if (column >= a.width) return;
    float sum = 0.0f;
    for (int row = 0; row < a.rows; row++)
        if (a.labels[row] == blockIdx.y) sum += to_float(a.d_label[size_t(row) * a.width + column]);
    a.d_table[size_t(blockIdx.y) * a.width + column] = sum;
}
