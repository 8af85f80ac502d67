//! A transformer block with adaLN-Zero conditioning, and the final layer.

use candle_core::{D, Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder, linear};

use super::shapes::MLP_RATIO;
use crate::layers::{attend, gelu, layer_norm, modulate};

/// `x + gate_1 Attention(modulate(LN(x)))`, then `x + gate_2 MLP(modulate(LN(x)))`; shifts, scales and gates come from
/// the condition (Peebles & Xie 2023, Figure 3).
#[derive(Debug)]
pub struct Block {
    attention: Attention,
    mlp: Mlp,
    modulation: Linear,
}

impl Block {
    /// Reads `attn`, `mlp` and `adaLN_modulation.1`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(width: usize, heads: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            attention: Attention::new(width, heads, &vb.pp("attn"))?,
            mlp: Mlp::new(width, &vb.pp("mlp"))?,
            modulation: linear(width, 6 * width, vb.pp("adaLN_modulation.1"))?,
        })
    }

    /// # Shapes
    /// `x` `[B, tokens, D]`, `c` `[B, D]`; the result is like `x`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Result<Tensor> {
        let modulation = self.modulation(c)?;
        let [shift_1, scale_1, gate_1, shift_2, scale_2, gate_2] = &modulation.chunk(6, D::Minus1)?[..] else {
            unreachable!("chunk(6) of 6 D columns")
        };
        let attended = self.attention.forward(&modulate(&layer_norm(x)?, shift_1, scale_1)?)?;
        let x = (x + attended.broadcast_mul(&gate_1.unsqueeze(1)?)?)?;
        let widened = self.mlp.forward(&modulate(&layer_norm(&x)?, shift_2, scale_2)?)?;
        x + widened.broadcast_mul(&gate_2.unsqueeze(1)?)?
    }

    /// Shift, scale and gate of both halves, `[B, 6 D]`.
    pub(crate) fn modulation(&self, c: &Tensor) -> Result<Tensor> {
        self.modulation.forward(&c.silu()?)
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> (&Attention, &Mlp) {
        (&self.attention, &self.mlp)
    }
}

/// Multi-head self-attention.
#[derive(Debug)]
pub(crate) struct Attention {
    qkv: Linear,
    projection: Linear,
    heads: usize,
}

impl Attention {
    fn new(width: usize, heads: usize, vb: &VarBuilder) -> Result<Self> {
        let qkv = linear(width, 3 * width, vb.pp("qkv"))?;
        Ok(Self { qkv, projection: linear(width, width, vb.pp("proj"))?, heads })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, tokens, width) = x.dims3()?;
        let head = width / self.heads;
        let qkv = self.qkv.forward(x)?.reshape((b, tokens, 3, self.heads, head))?;
        let qkv = qkv.permute([2, 0, 3, 1, 4])?.contiguous()?; // [3, B, H, tokens, head]
        let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
        let mixed = attend(&q, &k, &v, None)?.transpose(1, 2)?; // [B, tokens, H, head]
        self.projection.forward(&mixed.reshape((b, tokens, width))?)
    }
}

/// Two linear layers with a GELU between.
#[derive(Debug)]
pub(crate) struct Mlp {
    widen: Linear,
    narrow: Linear,
}

impl Mlp {
    fn new(width: usize, vb: &VarBuilder) -> Result<Self> {
        let widen = linear(width, MLP_RATIO * width, vb.pp("fc1"))?;
        Ok(Self { widen, narrow: linear(MLP_RATIO * width, width, vb.pp("fc2"))? })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.narrow.forward(&gelu(&self.widen.forward(x)?)?)
    }

    #[cfg(test)]
    pub(crate) fn layers(&self) -> (&Linear, &Linear) {
        (&self.widen, &self.narrow)
    }
}

/// `Linear(modulate(LN(x)))`: tokens to patches.
#[derive(Debug)]
pub struct FinalLayer {
    projection: Linear,
    modulation: Linear,
}

impl FinalLayer {
    /// Reads `linear` and `adaLN_modulation.1`; `out` values come out of a token.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(width: usize, out: usize, vb: &VarBuilder) -> Result<Self> {
        let projection = linear(width, out, vb.pp("linear"))?;
        Ok(Self { projection, modulation: linear(width, 2 * width, vb.pp("adaLN_modulation.1"))? })
    }

    /// # Shapes
    /// `x` `[B, T, D]`, `c` `[B, D]` to `[B, T, out]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Result<Tensor> {
        let modulation = self.modulation.forward(&c.silu()?)?.chunk(2, D::Minus1)?;
        self.projection.forward(&modulate(&layer_norm(x)?, &modulation[0], &modulation[1])?)
    }
}
