// Images to patches and back: the rearrangements around the first and the last linear layer, one value per thread.
#pragma once
#include "device.cuh"

template <class T> struct Patches {
    float* images; // [B, channels, size, size]
    T* patches;    // [B, tokens, values of a patch]
    int batch, channels, size, patch;
};

// Where a value of `images` lies in `patches`: channel, row, column of the patch embedding's weights, or, `last`, row, column, channel
// of the final layer's.
template <class T> DEVICE size_t patch_place(const Patches<T>& a, size_t number, bool last) {
    int x = number % a.size, y = number / a.size % a.size, channel = number / (size_t(a.size) * a.size) % a.channels;
    size_t sample = number / (size_t(a.size) * a.size * a.channels);
    int grid = a.size / a.patch, token = y / a.patch * grid + x / a.patch, row = y % a.patch, column = x % a.patch;
    int inside = last ? (row * a.patch + column) * a.channels + channel : (channel * a.patch + row) * a.patch + column;
    return (sample * grid * grid + token) * (a.channels * a.patch * a.patch) + inside;
}

template <class T> DEVICE size_t image_values(const Patches<T>& a) { return size_t(a.batch) * a.channels * a.size * a.size; }

// Input images to the patch embedding's rows.
template <class T> DEVICE void gather(const Patches<T>& a) {
    size_t number = thread_number();
    if (number < image_values(a)) a.patches[patch_place(a, number, false)] = from_float<T>(a.images[number]);
}

// The final layer's rows to output images.
template <class T> DEVICE void unpatchify(const Patches<T>& a) {
    size_t number = thread_number();
    if (number < image_values(a)) a.images[number] = to_float(a.patches[patch_place(a, number, true)]);
}

// The reverse of `unpatchify`.
template <class T> DEVICE void patchify(const Patches<T>& a) {
    size_t number = thread_number();
    if (number < image_values(a)) a.patches[patch_place(a, number, true)] = from_float<T>(a.images[number]);
}
