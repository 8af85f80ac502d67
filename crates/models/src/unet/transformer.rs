//! Where the image attends to itself and to the context.

use candle_core::{D, Module, Result, Tensor};
use candle_nn::VarBuilder;

use super::UnetConfig;
use crate::layers::{
    Attention, AttentionShape, Convolution, FeatureMap, GroupNorm, LayerNorm, Linear, Window, gelu_exact,
};

/// Width of the feed-forward layer over that of the tokens.
const FEED_FORWARD_RATIO: usize = 4;

/// `x + project_out(block(project_in(norm(x))))`, the places as tokens; the block is self-attention, cross-attention and a
/// gated feed-forward layer, each behind a LayerNorm and added to its input (Rombach et al. 2022, appendix E.2.1).
#[derive(Debug)]
pub(super) struct Transformer {
    norm: GroupNorm,
    project_in: Convolution,
    norms: [LayerNorm; 3],
    to_self: Attention,
    to_context: Attention,
    feed_forward: FeedForward,
    project_out: Convolution,
}

impl Transformer {
    pub(super) fn new(config: &UnetConfig, width: usize, vb: &VarBuilder) -> Result<Self> {
        let point = |name: &str| Convolution::new(width, width, Window::same(1, 1), &vb.pp(name));
        let block = vb.pp("transformer_blocks.0");
        let norm = |name: &str| LayerNorm::new(width, 1e-5, &block.pp(name));
        let attention = |name: &str, context: usize| {
            let names = ["to_q", "to_k", "to_v", "to_out.0"];
            let shape = AttentionShape { width, context, heads: config.heads, names, biased: false };
            Attention::new(shape, &block.pp(name))
        };
        Ok(Self {
            norm: GroupNorm::new(width, config.groups, 1e-6, &vb.pp("norm"))?,
            project_in: point("proj_in")?,
            norms: [norm("norm1")?, norm("norm2")?, norm("norm3")?],
            to_self: attention("attn1", width)?,
            to_context: attention("attn2", config.context)?,
            feed_forward: FeedForward::new(width, &block.pp("ff.net"))?,
            project_out: point("proj_out")?,
        })
    }

    /// `x` `[B, places, D]`, `context` `[B, keys, its width]`; the result is like `x`.
    pub(super) fn forward(&self, x: &FeatureMap, context: &Tensor) -> Result<FeatureMap> {
        let map = self.project_in.forward(&self.norm.forward(x)?)?;
        let normal = self.norms[0].forward(&map.values)?;
        let tokens = (&map.values + self.to_self.forward(&normal, &normal, None)?)?;
        let normal = self.norms[1].forward(&tokens)?;
        let tokens = (&tokens + self.to_context.forward(&normal, context, None)?)?;
        let tokens = (&tokens + self.feed_forward.forward(&self.norms[2].forward(&tokens)?)?)?;
        let out = self.project_out.forward(&map.with(tokens))?;
        Ok(x.with((&x.values + out.values)?))
    }
}

/// `narrow(a * GELU(b))` with `(a, b) = widen(x)` (GEGLU; Shazeer 2020), the GELU exact.
#[derive(Debug)]
struct FeedForward {
    widen: Linear,
    narrow: Linear,
}

impl FeedForward {
    fn new(width: usize, vb: &VarBuilder) -> Result<Self> {
        let inner = FEED_FORWARD_RATIO * width;
        Ok(Self {
            widen: Linear::read(width, 2 * inner, true, &vb.pp("0.proj"))?,
            narrow: Linear::read(inner, width, true, &vb.pp("2"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let widened = self.widen.forward(x)?.chunk(2, D::Minus1)?;
        self.narrow.forward(&(&widened[0] * gelu_exact(&widened[1])?)?)
    }
}
