//! Normalisations with learned weight and bias.

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

use super::FeatureMap;

/// `(x - mean) / sqrt(var + eps)` over the last axis, population variance.
///
/// # Errors
/// Those of candle.
pub fn normalise(x: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + eps)?.sqrt()?)
}

/// LayerNorm (Ba et al. 2016): `weight * normalise(x) + bias` over the last axis.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias` `[D]`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(width: usize, eps: f64, vb: &VarBuilder) -> Result<Self> {
        Ok(Self { weight: vb.get(width, "weight")?, bias: vb.get(width, "bias")?, eps })
    }

    /// # Shapes
    /// `[.., D]` to the same.
    ///
    /// # Errors
    /// Those of candle.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        normalise(x, self.eps)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// GroupNorm (Wu & He 2018): as [`LayerNorm`], but normalised over the places and the channels of a group.
#[derive(Debug)]
pub struct GroupNorm {
    affine: LayerNorm,
    groups: usize,
}

impl GroupNorm {
    /// Reads `weight` and `bias` `[C]`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or the channels are no multiple of the groups.
    pub fn new(channels: usize, groups: usize, eps: f64, vb: &VarBuilder) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            candle_core::bail!("{channels} channels cannot be split into {groups} groups");
        }
        Ok(Self { affine: LayerNorm::new(channels, eps, vb)?, groups })
    }

    /// Weight and bias `[C]`.
    pub fn affine(&self) -> [&Tensor; 2] {
        [&self.affine.weight, &self.affine.bias]
    }

    /// How many groups there are, and the epsilon.
    pub fn groups(&self) -> (usize, f64) {
        (self.groups, self.affine.eps)
    }

    /// # Shapes
    /// `[B, places, C]` to the same.
    ///
    /// # Errors
    /// Those of candle.
    pub fn forward(&self, x: &FeatureMap) -> Result<FeatureMap> {
        let (b, places, c) = x.values.dims3()?;
        let (groups, inside) = (self.groups, c / self.groups);
        let split = x.values.reshape((b, places, groups, inside))?.transpose(1, 2)?.reshape((b, groups, ()))?;
        let normal = normalise(&split, self.affine.eps)?.reshape((b, groups, places, inside))?;
        let normal = normal.transpose(1, 2)?.reshape((b, places, c))?;
        Ok(x.with(normal.broadcast_mul(&self.affine.weight)?.broadcast_add(&self.affine.bias)?))
    }
}
