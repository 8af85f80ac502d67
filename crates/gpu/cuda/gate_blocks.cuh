// What a gate of attention tells its blocks: `patches/src/gate/eye.rs` on a GPU, where the index of a block is not added to logits.
#pragma once
#include "device.cuh"

struct GateBlocks {
    const float* base;   // [R, C] a layer over the embedding, without the index's column
    const float* column; // that column, `inputs` apart; null: blocks are not told apart
    float* out;          // [L, R, C]
    float factor;
    int blocks, rows, columns, inputs;
};

// `out[l, r] = factor (base[r] + l column)`, one value per thread.
DEVICE void gate_blocks(const GateBlocks& a) {
    size_t at = thread_number(), each = size_t(a.rows) * a.columns;
    if (at >= a.blocks * each) return;
    float v = a.base[at % each];
    if (a.column) v += float(at / each) * a.column[at % a.columns * a.inputs];
    a.out[at] = v * a.factor;
}
