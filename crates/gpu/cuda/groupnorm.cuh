// GroupNorm (Wu & He 2018) and SiLU behind it: `silu((x - mean) / sqrt(var + eps) w + b)`, mean and variance of the places and channels of
// a group. Moments of every channel over some places, then those of the groups, then what is made of them; the same bits every time.
#pragma once
#include "condition.cuh"

// Places whose moments one thread takes.
constexpr int MOMENT_PLACES = 64;

template <class T> struct GroupNorm {
    const T* x;           // [B, places, C]
    float2* moments;      // [B, parts, C] of each channel over MOMENT_PLACES places: the mean, and the sum of squares about it
    float2* statistics;   // [B, groups] mean and reciprocal deviation
    const float* weight;  // [C]
    const float* bias;    // [C]
    T* out;               // [B, places, C]
    int batch, places, channels, groups;
    float epsilon;
    int silu; // whether silu follows
};

template <class T> DEVICE int moment_parts(const GroupNorm<T>& a) { return (a.places + MOMENT_PLACES - 1) / MOMENT_PLACES; }

// Moments about the first place's value, so that a large mean costs no digits. A pack of channels per thread.
template <class T> DEVICE void channel_moments(const GroupNorm<T>& a) {
    size_t at = thread_number();
    int packs = a.channels / Pack<T>::N, parts = moment_parts(a);
    if (at >= size_t(a.batch) * parts * packs) return;
    int channel = int(at % packs) * Pack<T>::N, part = int(at / packs % parts);
    size_t sample = at / packs / parts;
    int first = part * MOMENT_PLACES, count = a.places - first < MOMENT_PLACES ? a.places - first : MOMENT_PLACES;
    const T* x = a.x + (sample * a.places + first) * a.channels + channel;
    Pack<T> begin = load(x);
    float sums[Pack<T>::N] = {}, squares[Pack<T>::N] = {};
    for (int place = 1; place < count; place++) {
        Pack<T> pack = load(x + size_t(place) * a.channels);
        for (int i = 0; i < Pack<T>::N; i++) {
            float from_first = to_float(pack.v[i]) - to_float(begin.v[i]);
            sums[i] += from_first;
            squares[i] += from_first * from_first;
        }
    }
    float2* moments = a.moments + (sample * parts + part) * a.channels + channel;
    for (int i = 0; i < Pack<T>::N; i++) {
        float mean = sums[i] / count;
        moments[i] = make_float2(to_float(begin.v[i]) + mean, fmaxf(squares[i] - sums[i] * mean, 0.0f));
    }
}

// The group's mean and variance from its channels' moments. One warp per group of a sample.
template <class T> DEVICE void group_statistics(const GroupNorm<T>& a) {
    int number = blockIdx.x * WARPS + warp();
    if (number >= a.batch * a.groups) return;
    int parts = moment_parts(a), inside = a.channels / a.groups, all = parts * inside;
    const float2* moments = a.moments + size_t(number / a.groups) * parts * a.channels + number % a.groups * inside;
    auto counted = [&](int part) { return double(part == parts - 1 ? a.places - part * MOMENT_PLACES : MOMENT_PLACES); };
    auto moment = [&](int i) { return moments[size_t(i / inside) * a.channels + i % inside]; };
    double total = double(a.places) * inside, sum = 0.0, squares = 0.0;
    for (int i = lane(); i < all; i += WARP) sum += counted(i / inside) * double(moment(i).x);
    double mean = warp_sum(sum) / total;
    for (int i = lane(); i < all; i += WARP) {
        double apart = double(moment(i).x) - mean;
        squares += double(moment(i).y) + counted(i / inside) * apart * apart;
    }
    double variance = warp_sum(squares) / total;
    if (lane() == 0) a.statistics[number] = make_float2(float(mean), float(1.0 / sqrt(variance + double(a.epsilon))));
}

// 16 bytes per thread.
template <class T> DEVICE void group_normalise(const GroupNorm<T>& a) {
    size_t at = thread_number() * Pack<T>::N, each = size_t(a.places) * a.channels;
    if (at >= a.batch * each) return;
    int channel = int(at % a.channels), inside = a.channels / a.groups;
    const float2* statistics = a.statistics + at / each * a.groups;
    Pack<T> pack = load(a.x + at);
    for (int i = 0; i < Pack<T>::N; i++) {
        float2 of_group = statistics[(channel + i) / inside];
        float y = (to_float(pack.v[i]) - of_group.x) * of_group.y * a.weight[channel + i] + a.bias[channel + i];
        pack.v[i] = from_float<T>(a.silu ? y * sigmoid(y) : y);
    }
    store(a.out + at, pack);
}
