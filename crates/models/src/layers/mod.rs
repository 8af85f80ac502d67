//! Layers in a form whose gradients candle computes exactly.
//!
//! candle-nn's fused softmax and LayerNorm drop the gradient without a word, and the backward pass of candle's own
//! GELU rounds its constants to six digits; these are built from primitive operations instead.

mod attention;
mod convolution;
mod evaluator;
mod linear;
mod map;
mod norm;
mod pooling;
mod residual;
mod window;

pub use attention::{Attention, AttentionShape, attend};
pub use convolution::Convolution;
pub use evaluator::{Directly, Evaluator};
pub use linear::Linear;
pub use map::FeatureMap;
pub use norm::{GroupNorm, LayerNorm, normalise};
pub use pooling::{Pooling, PoolingKind};
pub use residual::{Residual, ResidualShape};
pub use window::{Gather, Window};

use candle_core::{D, Result, Tensor};

/// Softmax over the last axis.
///
/// # Errors
/// Those of candle.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    // The shift cancels, so no gradient needs to pass through it.
    let shift = x.max_keepdim(D::Minus1)?.detach();
    let e = x.broadcast_sub(&shift)?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

/// LayerNorm over the last axis without weight and bias: `(x - mean) / sqrt(var + 1e-6)`, population variance.
///
/// # Errors
/// Those of candle.
pub fn layer_norm(x: &Tensor) -> Result<Tensor> {
    normalise(x, 1e-6)
}

/// GELU in its tanh approximation: `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
///
/// # Errors
/// Those of candle.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let cube = (x.sqr()? * x)?;
    let inner = ((x + (cube * 0.044_715)?)? * std::f64::consts::FRAC_2_PI.sqrt())?;
    (x * 0.5)? * (inner.tanh()? + 1.0)?
}

/// GELU: `x/2 (1 + erf(x / sqrt(2)))`.
///
/// # Errors
/// Those of candle.
pub fn gelu_exact(x: &Tensor) -> Result<Tensor> {
    let erf = (x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?;
    (x * 0.5)? * (erf + 1.0)?
}

/// `x (1 + scale) + shift`, one `scale` and one `shift` per sample.
///
/// # Shapes
/// `x` `[B, T, D]`, `shift` and `scale` `[B, D]`.
///
/// # Errors
/// Those of candle.
pub fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale.unsqueeze(1)? + 1.0)?)?.broadcast_add(&shift.unsqueeze(1)?)
}
