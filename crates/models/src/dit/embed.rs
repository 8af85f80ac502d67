//! The three embeddings of a DiT: patches with their positions, timesteps, labels.

use candle_core::{DType, Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder, linear};
use kernels::timestep_frequencies;

use super::shapes::TIMESTEP_FEATURES;

/// Longest period of the sinusoidal features.
const MAX_PERIOD: f64 = 10_000.0;

/// Image to tokens: a convolution whose kernel and stride are the patch, written as a product.
#[derive(Debug)]
pub struct PatchEmbedder {
    projection: Linear,
    patch: usize,
}

impl PatchEmbedder {
    /// Reads `proj.weight` `[D, C, patch, patch]` and `proj.bias` `[D]`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(width: usize, channels: usize, patch: usize, vb: &VarBuilder) -> Result<Self> {
        let kernel = vb.get((width, channels, patch, patch), "proj.weight")?;
        let kernel = kernel.reshape((width, channels * patch * patch))?;
        Ok(Self { projection: Linear::new(kernel, Some(vb.get(width, "proj.bias")?)), patch })
    }

    /// # Shapes
    /// `x` `[B, C, side, side]` to `[B, T, D]`, tokens row by row.
    ///
    /// # Errors
    /// The side is no multiple of the patch.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, height, width) = x.dims4()?;
        let p = self.patch;
        let (rows, columns) = (height / p, width / p);
        let patches = x.reshape((b, c, rows, p, columns, p))?.permute([0, 2, 4, 1, 3, 5])?;
        self.projection.forward(&patches.reshape((b, rows * columns, c * p * p))?)
    }
}

/// Timesteps to vectors: sinusoidal features through a two-layer MLP with SiLU.
#[derive(Debug)]
pub struct TimestepEmbedder {
    first: Linear,
    second: Linear,
}

impl TimestepEmbedder {
    /// Reads `mlp.0` and `mlp.2`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(width: usize, vb: &VarBuilder) -> Result<Self> {
        let first = linear(TIMESTEP_FEATURES, width, vb.pp("mlp.0"))?;
        Ok(Self { first, second: linear(width, width, vb.pp("mlp.2"))? })
    }

    /// # Shapes
    /// `t` `[B]` to `[B, D]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn forward(&self, t: &Tensor) -> Result<Tensor> {
        let features = timestep_features(t, TIMESTEP_FEATURES)?.to_dtype(self.first.weight().dtype())?;
        self.second.forward(&self.first.forward(&features)?.silu()?)
    }
}

/// `[cos(t f_0), .., sin(t f_0), ..]` with the [`timestep_frequencies`] of `channels / 2`; an odd last channel is zero.
/// Computed in `f32` whatever the type of the model, as the reference does.
///
/// # Shapes
/// `t` `[B]` (any float) to `[B, channels]` in `f32`.
///
/// # Errors
/// Those of candle.
pub fn timestep_features(t: &Tensor, channels: usize) -> Result<Tensor> {
    let frequencies = timestep_frequencies(channels / 2);
    let frequencies = Tensor::from_slice(&frequencies, (1, frequencies.len()), t.device())?;
    let angles = t.to_dtype(DType::F32)?.unsqueeze(1)?.broadcast_mul(&frequencies)?;
    let features = Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?;
    if channels.is_multiple_of(2) { Ok(features) } else { features.pad_with_zeros(1, 0, 1) }
}

/// Fixed two-dimensional sine-cosine embedding of a `side` x `side` grid of tokens, `[side^2, width]` row-major:
/// the first half of the channels codes the column, the second the row, each as `[sin(p f_i), .., cos(p f_i), ..]`
/// with `f_i = 10000^(-4 i / width)`.
///
/// # Panics
/// `width` is no multiple of 4.
pub fn position_embedding(width: usize, side: usize) -> Vec<f32> {
    assert!(width.is_multiple_of(4), "a width of {width} is no multiple of 4");
    let quarter = width / 4;
    let mut table = Vec::with_capacity(side * side * width);
    for token in 0..side * side {
        for place in [token % side, token / side] {
            let angle = |i: usize| place as f64 * MAX_PERIOD.powf(-(i as f64) / quarter as f64);
            table.extend((0..quarter).map(|i| angle(i).sin() as f32));
            table.extend((0..quarter).map(|i| angle(i).cos() as f32));
        }
    }
    table
}
