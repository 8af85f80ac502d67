// GELU in its tanh form with the bias of the layer before it: `gelu(u) = u s`, `s = sigmoid(2 z)`,
// `z = sqrt(2/pi) (u + 0.044715 u^3)`. `kernels/src/gelu.rs` on a GPU, 16 bytes per thread.
#pragma once
#include "device.cuh"

constexpr float GELU_CUBIC = 0.044715f;
constexpr float GELU_TWICE_ROOT = 1.595769f; // 2 sqrt(2/pi)
constexpr float LOG2_E = 1.4426950408889634f;

// `e = exp(-2 z)`: then `s = 1 / (1 + e)` and `1 - s = e s`. Held where its square is finite; `s` is 0 far before that.
DEVICE float gelu_opposite(float u) {
    constexpr float LINEAR = -GELU_TWICE_ROOT * LOG2_E;
    return exp2f(fminf(u * (LINEAR * GELU_CUBIC * u * u + LINEAR), 126.0f));
}

template <class T> struct Gelu {
    const T* u;    // [count, width] without the bias
    const T* bias; // [width]
    T* h;          // [count, width]; null on the way back: not wanted
    T* dh;         // [count, width] the gradient of h, which becomes that of u; unused on the way there
    size_t count;
    int width;
};

template <class T> DEVICE void gelu_forward(const Gelu<T>& a) {
    size_t at = thread_number() * Pack<T>::N;
    if (at >= a.count * a.width) return;
    Pack<T> u = load(a.u + at), bias = load(a.bias + at % a.width);
    for (int i = 0; i < Pack<T>::N; i++) {
        float v = to_float(u.v[i]) + to_float(bias.v[i]);
        u.v[i] = from_float<T>(v / (1.0f + gelu_opposite(v)));
    }
    store(a.h + at, u);
}

template <class T> DEVICE void gelu_backward(const Gelu<T>& a) {
    size_t at = thread_number() * Pack<T>::N;
    if (at >= a.count * a.width) return;
    Pack<T> u = load(a.u + at), bias = load(a.bias + at % a.width), dh = load(a.dh + at);
    for (int i = 0; i < Pack<T>::N; i++) {
        float v = to_float(u.v[i]) + to_float(bias.v[i]);
        float e = gelu_opposite(v), s = 1.0f / (1.0f + e), value = v * s;
        float slope = GELU_TWICE_ROOT + 3.0f * GELU_CUBIC * GELU_TWICE_ROOT * v * v;
        dh.v[i] = from_float<T>(to_float(dh.v[i]) * (s + value * (e * s) * slope));
        u.v[i] = from_float<T>(value);
    }
    store(a.dh + at, dh);
    if (a.h) store(a.h + at, u);
}
