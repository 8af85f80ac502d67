//! Noise on the gate's logits while training (Shazeer et al., "Outrageously large neural networks", 2017).

use candle_core::{Result, Tensor};
use manifest::gate::GateNoise;
use models::weights::Tensors;

use super::Size;

/// Name of the learned scale of the noise, `[D, N]`.
pub const NOISE: &str = "w_noise";

/// Least standard deviation.
const FLOOR: f64 = 1e-2;

/// Learned noise; its standard deviation is the same for all blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LearnedNoise {
    size: Size,
}

pub(crate) fn build(noise: GateNoise, size: Size) -> Option<LearnedNoise> {
    match noise {
        GateNoise::None => None,
        GateNoise::Learned => Some(LearnedNoise { size }),
    }
}

impl LearnedNoise {
    /// Name and shape of its tensor, which starts at zero.
    pub(crate) fn tensor(&self) -> (&'static str, Vec<usize>) {
        (NOISE, vec![self.size.width, self.size.prompts])
    }

    /// `softplus(embedding W_noise) + 0.01`: `[B, D]` to `[B, N]`.
    pub(crate) fn deviation(&self, tensors: &Tensors, embedding: &Tensor) -> Result<Tensor> {
        softplus(&embedding.matmul(&tensors[NOISE])?)? + FLOOR
    }
}

/// `ln(1 + e^x)` as `max(x, 0) + ln(1 + e^-|x|)`, which cannot overflow. At 0, where training starts, candle's
/// one-sided slopes of both parts add up to the right 1/2.
fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}
