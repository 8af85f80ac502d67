//! One layer of the text encoder.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder, linear};

use super::{EPS, quick_gelu};
use crate::layers::{Attention, AttentionShape, LayerNorm};

/// Width of an MLP over that of a token.
const MLP_RATIO: usize = 4;

/// `x + Attention(LN1(x))`, then `x + fc2(quick_gelu(fc1(LN2(x))))`.
#[derive(Debug)]
pub(super) struct Layer {
    norms: [LayerNorm; 2],
    attention: Attention,
    widen: Linear,
    narrow: Linear,
}

impl Layer {
    pub(super) fn new(width: usize, heads: usize, vb: &VarBuilder) -> Result<Self> {
        let norm = |name: &str| LayerNorm::new(width, EPS, &vb.pp(name));
        let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
        let shape = AttentionShape { width, context: width, heads, names, biased: true };
        Ok(Self {
            norms: [norm("layer_norm1")?, norm("layer_norm2")?],
            attention: Attention::new(shape, &vb.pp("self_attn"))?,
            widen: linear(width, MLP_RATIO * width, vb.pp("mlp.fc1"))?,
            narrow: linear(MLP_RATIO * width, width, vb.pp("mlp.fc2"))?,
        })
    }

    /// `x` `[B, tokens, W]`, `mask` `[tokens, tokens]`; the result is like `x`.
    pub(super) fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let normal = self.norms[0].forward(x)?;
        let x = (x + self.attention.forward(&normal, &normal, Some(mask))?)?;
        let widened = quick_gelu(&self.widen.forward(&self.norms[1].forward(&x)?)?)?;
        x + self.narrow.forward(&widened)?
    }
}
