//! What the gate's kernels are told.

use crate::machine::Address;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateInput {
    pub embedding: Address,
    pub plain: Address,
    pub extended: Address,
    pub rows: i32,
    pub width: i32,
    pub inputs: i32,
}

/// What logits are made of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Scores {
    pub base: Address,
    pub bias: Address,
    pub column: Address,
    pub scale: Address,
    pub draws: Address,
    pub apart: usize,
    pub drawn: usize,
    pub rows: i32,
    pub prompts: i32,
    pub inputs: i32,
    pub first: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateForward {
    pub scores: Scores,
    pub weights: Address,
    pub soft: Address,
    pub blocks: i32,
    pub groups: i32,
    pub kept: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateSums {
    pub weights: Address,
    pub sums: Address,
    pub parts: Address,
    pub blocks: i32,
    pub rows: i32,
    pub prompts: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateBackward {
    pub soft: Address,
    pub d_weights: Address,
    pub sums: Address,
    pub parts: Address,
    pub d_logits: Address,
    pub importance: Address,
    pub coefficient: f64,
    pub blocks: i32,
    pub groups: i32,
    pub rows: i32,
    pub prompts: i32,
    pub all: i32,
    pub together: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateLoad {
    pub scores: Scores,
    pub d_logits: Address,
    pub d_deviation: Address,
    pub load: Address,
    pub slope: f32,
    pub groups: i32,
    pub kept: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateGather {
    pub d_out: Address,
    pub d_base: Address,
    pub d_index: Address,
    pub factor: f32,
    pub groups: i32,
    pub rows: i32,
    pub columns: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateNoise {
    pub d_logits: Address,
    pub d_deviation: Address,
    pub scale: Address,
    pub draws: Address,
    pub d_scale: Address,
    pub drawn: usize,
    pub groups: i32,
    pub rows: i32,
    pub prompts: i32,
    pub first: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateColumns {
    pub d_base: Address,
    pub d_index: Address,
    pub d_bias: Address,
    pub d_column: Address,
    pub rows: i32,
    pub columns: i32,
    pub inputs: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateBlocks {
    pub base: Address,
    pub column: Address,
    pub out: Address,
    pub factor: f32,
    pub blocks: i32,
    pub rows: i32,
    pub columns: i32,
    pub inputs: i32,
}
