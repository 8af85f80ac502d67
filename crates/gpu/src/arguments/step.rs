//! What the kernels around the trunk are told: batches, noise, the loss, AdamW.

use crate::machine::Address;

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
    pub load: Address,
    pub losses: Address,
    pub slots: i32,
    pub batch: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Advance {
    pub number: Address,
}
