//! What the kernels are told: the structures of `cuda/*.cuh`, field by field; the emulator refuses other sizes.

use crate::machine::Address;

/// What a patch adds to the tokens before a block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    pub weights: Address,
    pub values: Address,
    pub per_row: i32,
    pub per_token: i32,
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

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Normals {
    pub step: Address,
    pub first: Address,
    pub out: Address,
    pub count: usize,
    pub key: [u32; 2],
    pub stream: u32,
}

/// What the loss needs of a timestep.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Timestep {
    pub mse_weight: f64,
    pub recip: f64,
    pub recipm1: f64,
    pub mean_x0: f64,
    pub mean_xt: f64,
    pub log_variance: f64,
    pub range: f64,
    pub precision: f64,
    pub signal: f32,
    pub spread: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct QSample {
    pub x0: Address,
    pub noise: Address,
    pub timesteps: Address,
    pub table: Address,
    pub x_t: Address,
    pub batch: i32,
    pub n: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    pub x0: Address,
    pub x_t: Address,
    pub noise: Address,
    pub output: Address,
    pub timesteps: Address,
    pub table: Address,
    pub d_output: Address,
    pub terms: Address,
    pub batch: i32,
    pub n: i32,
    pub learned: i32,
    pub all: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct AdamW {
    pub p: Address,
    pub m: Address,
    pub v: Address,
    pub g: Address,
    pub copy: Address,
    pub factors: Address,
    pub count: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Average {
    pub average: Address,
    pub values: Address,
    pub decay: Address,
    pub count: usize,
}

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

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GateForward {
    pub base: Address,
    pub bias: Address,
    pub column: Address,
    pub scale: Address,
    pub draws: Address,
    pub weights: Address,
    pub soft: Address,
    pub blocks: i32,
    pub groups: i32,
    pub rows: i32,
    pub prompts: i32,
    pub inputs: i32,
    pub all: i32,
    pub first: i32,
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
pub struct GateGather {
    pub d_logits: Address,
    pub scale: Address,
    pub draws: Address,
    pub d_base: Address,
    pub d_index: Address,
    pub d_scale: Address,
    pub groups: i32,
    pub rows: i32,
    pub prompts: i32,
    pub all: i32,
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
    pub prompts: i32,
    pub inputs: i32,
}

/// One place of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Its number in the pool.
    pub example: u32,
    /// Its row of the label table.
    pub label: u32,
    /// Its timestep.
    pub timestep: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin {
    pub number: Address,
    pub places: Address,
    pub rates: Address,
    pub examples: Address,
    pub labels: Address,
    pub timesteps: Address,
    pub current: Address,
    pub slots: i32,
    pub batch: i32,
    pub first: i32,
    pub rows: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Examples {
    pub mean: Address,
    pub deviation: Address,
    pub noise: Address,
    pub examples: Address,
    pub x0: Address,
    pub scale: f32,
    pub rows: i32,
    pub n: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Accumulate {
    pub sum: Address,
    pub values: Address,
    pub count: usize,
    pub fresh: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Note {
    pub number: Address,
    pub terms: Address,
    pub importance: Address,
    pub losses: Address,
    pub slots: i32,
    pub batch: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Advance {
    pub number: Address,
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
