// Feature maps, the channels last and padded with zeros to a multiple of 8: from and to images, windows before a product, sums.
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
    T* rows;    // [count, kernel height, kernel width, C]
    int first, count;               // places of the output, over the batch
    int height, width, channels;    // of the map that the window slides over
    int out_height, out_width;      // of the output
    int kernel_height, kernel_width;
    int stride, above, left;        // rows of zeros above the map, and columns to its left
    int doubled;                    // every place of `x` stands for a square of four
};

// What a window sees at `count` places of the output, a row each; zeros beyond the edge. 16 bytes per thread.
template <class T> DEVICE void gather_windows(const Windows<T>& a) {
    size_t at = thread_number();
    int packs = a.channels / Pack<T>::N, cells = a.kernel_height * a.kernel_width;
    if (at >= size_t(a.count) * cells * packs) return;
    int channel = int(at % packs) * Pack<T>::N, cell = int(at / packs % cells), place = a.first + int(at / packs / cells);
    int sample = place / (a.out_height * a.out_width), inside = place % (a.out_height * a.out_width);
    int y = inside / a.out_width * a.stride + cell / a.kernel_width - a.above;
    int x = inside % a.out_width * a.stride + cell % a.kernel_width - a.left;
    Pack<T> pack;
    if (y >= 0 && y < a.height && x >= 0 && x < a.width) {
        int halved = a.doubled ? 2 : 1, row = sample * (a.height / halved) + y / halved;
        pack = load(a.x + (size_t(row) * (a.width / halved) + x / halved) * a.channels + channel);
    } else {
        for (int i = 0; i < Pack<T>::N; i++) pack.v[i] = from_float<T>(0.0f);
    }
    store(a.rows + at * Pack<T>::N, pack);
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
