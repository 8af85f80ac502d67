// Feature maps, the channels last and padded with zeros to a multiple of 8: from and to images, windows before a product and poolings, maps
// beside each other, means, sums, and images of another size.
#pragma once
#include "device.cuh"

template <class T> struct Images {
    float* images; // [B, channels, places]
    T* map;        // [B, places, padded]
    int batch, channels, padded, places;
};

// Images to a map, one of its values per thread.
template <class T> DEVICE void images_to_map(const Images<T>& a) {
    size_t at = thread_number(), each = size_t(a.places) * a.padded;
    if (at >= a.batch * each) return;
    size_t sample = at / each;
    int place = int(at % each / a.padded), channel = int(at % a.padded);
    a.map[at] = from_float<T>(channel < a.channels ? a.images[(sample * a.channels + channel) * a.places + place] : 0.0f);
}

// And back, one value of an image per thread.
template <class T> DEVICE void map_to_images(const Images<T>& a) {
    size_t at = thread_number(), each = size_t(a.places) * a.channels;
    if (at >= a.batch * each) return;
    size_t sample = at / each;
    int channel = int(at % each / a.places), place = int(at % a.places);
    a.images[at] = to_float(a.map[(sample * a.places + place) * a.padded + channel]);
}

template <class T> struct Windows {
    const T* x; // [B, height, width, C]; where the map is doubled, of half the height and width
    T* out;     // gathered: [count, kernel height, kernel width, C]; pooled: [count, C]
    int first, count;               // places of the output, over the batch
    int height, width, channels;    // of the map that the window slides over
    int out_height, out_width;      // of the output
    int kernel_height, kernel_width;
    int stride, above, left;        // rows of zeros above the map, and columns to its left
    int doubled;                    // every place of `x` stands for a square of four
};

// The place of `x` that a window sees as its `cell` at a place of the output; null beyond the edge.
template <class T> DEVICE const T* seen(const Windows<T>& a, int place, int cell) {
    int sample = place / (a.out_height * a.out_width), inside = place % (a.out_height * a.out_width);
    int y = inside / a.out_width * a.stride + cell / a.kernel_width - a.above;
    int x = inside % a.out_width * a.stride + cell % a.kernel_width - a.left;
    if (y < 0 || y >= a.height || x < 0 || x >= a.width) return nullptr;
    int times = a.doubled ? 2 : 1, row = sample * (a.height / times) + y / times;
    return a.x + (size_t(row) * (a.width / times) + x / times) * a.channels;
}

// What a window sees at `count` places of the output, a row each; zeros beyond the edge. 16 bytes per thread.
template <class T> DEVICE void gather_windows(const Windows<T>& a) {
    size_t at = thread_number();
    int packs = a.channels / Pack<T>::N, cells = a.kernel_height * a.kernel_width;
    if (at >= size_t(a.count) * cells * packs) return;
    const T* from = seen(a, a.first + int(at / packs / cells), int(at / packs % cells));
    Pack<T> pack;
    if (from) pack = load(from + at % packs * Pack<T>::N);
    else
        for (int i = 0; i < Pack<T>::N; i++) pack.v[i] = from_float<T>(0.0f);
    store(a.out + at * Pack<T>::N, pack);
}

template <class T> struct Pool {
    Windows<T> windows;
    int mean; // of the places inside the map; else the largest, the border being zeros
};

// What a window sees, as one: 16 bytes per thread.
template <class T> DEVICE void pool_windows(const Pool<T>& a) {
    const Windows<T>& w = a.windows;
    size_t at = thread_number();
    int packs = w.channels / Pack<T>::N, inside = 0;
    if (at >= size_t(w.count) * packs) return;
    float pooled[Pack<T>::N];
    for (int i = 0; i < Pack<T>::N; i++) pooled[i] = a.mean ? 0.0f : -INFINITY;
    for (int cell = 0; cell < w.kernel_height * w.kernel_width; cell++) {
        const T* from = seen(w, w.first + int(at / packs), cell);
        Pack<T> pack;
        if (from) pack = load(from + at % packs * Pack<T>::N), inside++;
        for (int i = 0; i < Pack<T>::N; i++) {
            float value = from ? to_float(pack.v[i]) : 0.0f;
            pooled[i] = a.mean ? pooled[i] + value : fmaxf(pooled[i], value);
        }
    }
    Pack<T> out;
    for (int i = 0; i < Pack<T>::N; i++) out.v[i] = from_float<T>(a.mean ? pooled[i] / inside : pooled[i]);
    store(w.out + at * Pack<T>::N, out);
}

template <class T> struct Columns {
    const T* from; // [rows, width]
    T* to;         // [rows, all], of which columns `first`.. are written
    size_t rows;
    int width, all, first;
};

// Channels of a map among those of a wider one, 16 bytes per thread.
template <class T> DEVICE void copy_columns(const Columns<T>& a) {
    size_t at = thread_number();
    int packs = a.width / Pack<T>::N;
    if (at >= a.rows * packs) return;
    size_t row = at / packs, column = at % packs * Pack<T>::N;
    store(a.to + row * a.all + a.first + column, load(a.from + row * a.width + column));
}

template <class T> struct Means {
    const T* map; // [B, places, padded]
    float* means; // [B, channels]
    int batch, channels, padded, places;
};

// Means over the places, one channel per thread.
template <class T> DEVICE void mean_places(const Means<T>& a) {
    size_t at = thread_number();
    if (at >= size_t(a.batch) * a.channels) return;
    const T* from = a.map + at / a.channels * a.places * a.padded + at % a.channels;
    float sum = 0.0f;
    for (int place = 0; place < a.places; place++) sum += to_float(from[size_t(place) * a.padded]);
    a.means[at] = sum / a.places;
}

template <class T> struct Resize {
    const T* x; // [B, height, width, C]
    T* out;     // [B, out height, out width, C]
    int batch, height, width, out_height, out_width, channels;
};

// Where an output place lies between two input places of a line, and how near the second.
DEVICE float between(int i, int from, int to, int* first, int* second) {
    float place = fmaxf(float(from) / float(to) * (float(i) + 0.5f) - 0.5f, 0.0f);
    *first = int(place), *second = *first + 1 < from ? *first + 1 : from - 1;
    return place - float(*first);
}

// Bilinear, corners not aligned, no filter against aliasing. 16 bytes per thread.
template <class T> DEVICE void resize_map(const Resize<T>& a) {
    size_t at = thread_number();
    int packs = a.channels / Pack<T>::N;
    if (at >= size_t(a.batch) * a.out_height * a.out_width * packs) return;
    size_t place = at / packs, sample = place / (a.out_height * a.out_width);
    int top, bottom, left, right;
    float down = between(int(place / a.out_width % a.out_height), a.height, a.out_height, &top, &bottom);
    float across = between(int(place % a.out_width), a.width, a.out_width, &left, &right);
    auto from = [&](int y, int x) {
        return load(a.x + ((sample * a.height + y) * a.width + x) * a.channels + at % packs * Pack<T>::N);
    };
    Pack<T> corners[4] = {from(top, left), from(top, right), from(bottom, left), from(bottom, right)}, out;
    for (int i = 0; i < Pack<T>::N; i++) {
        float above = to_float(corners[0].v[i]) * (1.0f - across) + to_float(corners[1].v[i]) * across;
        float below = to_float(corners[2].v[i]) * (1.0f - across) + to_float(corners[3].v[i]) * across;
        out.v[i] = from_float<T>(above * (1.0f - down) + below * down);
    }
    store(a.out + at * Pack<T>::N, out);
}

template <class T> struct AddMaps {
    const T* a; // [count]
    const T* b; // [count]
    T* sum;     // [count]
    size_t count;
};

// `sum = a + b`, 16 bytes per thread.
template <class T> DEVICE void add_maps(const AddMaps<T>& a) {
    size_t at = thread_number() * Pack<T>::N;
    if (at >= a.count) return;
    Pack<T> one = load(a.a + at), other = load(a.b + at);
    for (int i = 0; i < Pack<T>::N; i++) one.v[i] = from_float<T>(to_float(one.v[i]) + to_float(other.v[i]));
    store(a.sum + at, one);
}
