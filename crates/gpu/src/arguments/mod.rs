//! What the kernels are told: the structures of `cuda/*.cuh`, field by field; the emulator refuses other sizes.

mod gate;
mod step;

use crate::machine::Address;

pub use gate::{
    GateBackward, GateBlocks, GateColumns, GateForward, GateGather, GateInput, GateLoad, GateNoise, GateSums, Scores,
};
pub use step::{Accumulate, AdamW, Advance, Average, Begin, Examples, Loss, Normals, Note, Place, QSample, Timestep};

/// What a patch gives to the tokens before a block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    pub weights: Address,
    pub values: Address,
    pub per_row: i32,
    pub per_token: i32,
    pub places: i32,
    pub replaces: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ResidualNorm {
    pub base: Address,
    pub branch: Address,
    pub bias: Address,
    pub modulations: Address,
    pub rows: Address,
    pub entry: Entry,
    pub x: Address,
    pub statistics: Address,
    pub normed: Address,
    pub batch: i32,
    pub tokens: i32,
    pub width: i32,
    pub stride: i32,
    pub before: i32,
    pub gate: i32,
    pub shift: i32,
    pub scale: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct NormBackward {
    pub x: Address,
    pub statistics: Address,
    pub dn: Address,
    pub modulations: Address,
    pub rows: Address,
    pub dx: Address,
    pub d_branch: Address,
    pub again: Address,
    pub batch: i32,
    pub tokens: i32,
    pub width: i32,
    pub stride: i32,
    pub before: i32,
    pub replaced: i32,
    pub gate: i32,
    pub shift: i32,
    pub scale: i32,
    pub fresh: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Gelu {
    pub u: Address,
    pub bias: Address,
    pub h: Address,
    pub dh: Address,
    pub count: usize,
    pub width: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attention {
    pub qkv: Address,
    pub out: Address,
    pub softmax: Address,
    pub d_out: Address,
    pub d_qkv: Address,
    pub tokens: i32,
    pub heads: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Patches {
    pub images: Address,
    pub patches: Address,
    pub batch: i32,
    pub channels: i32,
    pub size: i32,
    pub patch: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ColumnSum {
    pub values: Address,
    pub parts: Address,
    pub count: usize,
    pub width: i32,
    pub chunk: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct AddParts {
    pub parts: Address,
    pub sum: Address,
    pub count: i32,
    pub width: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ModulationGradient {
    pub x: Address,
    pub statistics: Address,
    pub dn: Address,
    pub d_modulations: Address,
    pub tokens: i32,
    pub width: i32,
    pub stride: i32,
    pub shift: i32,
    pub scale: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateGradient {
    pub dx: Address,
    pub branch: Address,
    pub bias: Address,
    pub d_modulations: Address,
    pub tokens: i32,
    pub width: i32,
    pub stride: i32,
    pub gate: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryGradient {
    pub dx: Address,
    pub rows: Address,
    pub weights: Address,
    pub prompts: Address,
    pub d_weights: Address,
    pub d_values: Address,
    pub batch: i32,
    pub tokens: i32,
    pub width: i32,
    pub places: i32,
    pub replaces: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    pub table: Address,
    pub timesteps: Address,
    pub features: Address,
    pub rows: i32,
    pub width: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Silu {
    pub x: Address,
    pub out: Address,
    pub count: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Label {
    pub table: Address,
    pub labels: Address,
    pub t_emb: Address,
    pub c: Address,
    pub active: Address,
    pub rows: i32,
    pub width: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelGradient {
    pub d_label: Address,
    pub labels: Address,
    pub d_table: Address,
    pub rows: i32,
    pub width: i32,
}

/// The coefficients of one reverse step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ReverseStep {
    pub recip: f32,
    pub recipm1: f32,
    pub limit: f32,
    pub mean_x0: f32,
    pub mean_xt: f32,
    pub middle: f32,
    pub half_range: f32,
    pub signal: f32,
    pub spread: f32,
    pub sigma: f32,
    pub ddim: u32,
    pub noisy: u32,
    pub weights: [f32; 4],
    pub terms: u32,
    pub restarts: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reverse {
    pub call: Address,
    pub steps: Address,
    pub output: Address,
    pub noise: Address,
    pub x: Address,
    pub history: Address,
    pub batch: i32,
    pub n: i32,
    pub learned: i32,
    pub guided: i32,
    pub scale: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    pub number: Address,
    pub values: Address,
    pub out: Address,
    pub count: i32,
}
