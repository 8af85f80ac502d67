//! Multi-head attention (Vaswani et al. 2017).

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;

use super::{Linear, softmax};

/// `softmax(Q K^T / sqrt(head) + mask) V`.
///
/// # Shapes
/// `q` `[B, H, tokens, head]`, `k` and `v` `[B, H, keys, head]`, `mask` `[tokens, keys]`, contiguous; the result is
/// like `q`.
///
/// # Errors
/// Those of candle.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let head = q.dim(3)?;
    let mut scores = (q.matmul(&k.t()?)? / (head as f64).sqrt())?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    softmax(&scores)?.matmul(v)
}

/// Attention with separate projections. Queries come from the tokens, keys and values from a context, which may be the
/// tokens themselves.
#[derive(Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}

/// What an attention layer looks like in a file.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Width of the tokens.
    pub width: usize,
    /// Width of the context.
    pub context: usize,
    /// Heads `H`; they share the width.
    pub heads: usize,
    /// Names of the projections: query, key, value, out.
    pub names: [&'static str; 4],
    /// Whether the first three have a bias.
    pub biased: bool,
}

impl Attention {
    /// Reads the four projections.
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or the width is no multiple of the heads.
    pub fn new(shape: AttentionShape, vb: &VarBuilder) -> Result<Self> {
        let AttentionShape { width, context, heads, names: [query, key, value, out], biased } = shape;
        if heads == 0 || !width.is_multiple_of(heads) {
            candle_core::bail!("a width of {width} cannot be split into {heads} heads");
        }
        Ok(Self {
            query: Linear::read(width, width, biased, &vb.pp(query))?,
            key: Linear::read(context, width, biased, &vb.pp(key))?,
            value: Linear::read(context, width, biased, &vb.pp(value))?,
            out: Linear::read(width, width, true, &vb.pp(out))?,
            heads,
        })
    }

    /// Its projections: query, key, value, out.
    pub fn projections(&self) -> [&Linear; 4] {
        [&self.query, &self.key, &self.value, &self.out]
    }

    /// Its heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// # Shapes
    /// `x` `[B, tokens, D]`, `context` `[B, keys, its width]`, `mask` `[tokens, keys]`; the result is like `x`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, context: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (b, tokens, width) = x.dims3()?;
        let split = |x: Tensor| {
            let heads = (b, x.dim(1)?, self.heads, width / self.heads);
            x.reshape(heads)?.transpose(1, 2)?.contiguous() // [B, H, tokens, head]
        };
        let q = split(self.query.forward(x)?)?;
        let k = split(self.key.forward(context)?)?;
        let v = split(self.value.forward(context)?)?;
        let mixed = attend(&q, &k, &v, mask)?.transpose(1, 2)?; // [B, tokens, H, head]
        self.out.forward(&mixed.reshape((b, tokens, width))?)
    }
}
