//! The text encoder of CLIP (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML
//! 2021) and its tokenizer, under the tensor names of transformers without `text_model.` in front: what Stable Diffusion 1.x
//! and a text-conditional DiT are conditioned on.

mod formula;
#[cfg(test)]
mod goldens;
mod layer;
mod merges;
mod tokenizer;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::builder::{builder, tensors_of};
use crate::layers::LayerNorm;
use crate::weights::Tensors;
use layer::Layer;

pub use formula::formula_weights;
pub use tokenizer::{Tokenizer, VocabularyError};

/// Epsilon of the normalisations.
const EPS: f64 = 1e-5;
/// Tokens of a text for CLIP ViT-L/14, and so for all that it conditions, both ends and padding counted.
pub const TOKENS: usize = 77;

/// Shape of a text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Rows of the token table. The last token ends a text.
    pub vocabulary: usize,
    /// Tokens of a text, both ends and padding counted.
    pub positions: usize,
    /// Width `W` of a token.
    pub width: usize,
    /// Number of layers.
    pub depth: usize,
    /// Attention heads `H`.
    pub heads: usize,
}

impl ClipTextConfig {
    /// The text encoder of CLIP ViT-L/14: 123,060,480 parameters.
    pub fn vit_l_14() -> Self {
        Self { vocabulary: 49_408, positions: TOKENS, width: 768, depth: 12, heads: 12 }
    }
}

/// What the encoder says of a batch of texts.
#[derive(Clone, Debug)]
pub struct TextFeatures {
    /// One vector per token, behind the last normalisation, `[B, positions, W]`: what Stable Diffusion attends to.
    pub tokens: Tensor,
    /// The vector of each text's first end token, `[B, W]`: the text as a whole.
    pub pooled: Tensor,
}

/// The text encoder.
#[derive(Debug)]
pub struct ClipText {
    config: ClipTextConfig,
    tokens: Tensor,
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

impl ClipText {
    /// Builds the network on `tensors`, which it shares.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(config: &ClipTextConfig, tensors: &Tensors) -> Result<Self> {
        Self::read(config, &builder(tensors)?)
    }

    fn read(config: &ClipTextConfig, vb: &VarBuilder) -> Result<Self> {
        let width = config.width;
        let layer = |i: usize| Layer::new(width, config.heads, &vb.pp(format!("encoder.layers.{i}")));
        Ok(Self {
            tokens: vb.get((config.vocabulary, width), "embeddings.token_embedding.weight")?,
            positions: vb.get((config.positions, width), "embeddings.position_embedding.weight")?,
            layers: (0..config.depth).map(layer).collect::<Result<_>>()?,
            norm: LayerNorm::new(width, EPS, &vb.pp("final_layer_norm"))?,
            config: config.clone(),
        })
    }

    /// Its shape.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Encodes texts. A token sees itself and those before it, so that padding behind the end changes nothing else.
    ///
    /// # Shapes
    /// `ids` `[B, tokens]` in `u32`, at most as many tokens as there are positions; every text has an end token.
    ///
    /// # Errors
    /// A token beyond the table, or a text without an end.
    pub fn forward(&self, ids: &Tensor) -> Result<TextFeatures> {
        let (b, length) = ids.dims2()?;
        let x = self.tokens.index_select(&ids.flatten_all()?, 0)?.reshape((b, length, self.config.width))?;
        let mut x = x.broadcast_add(&self.positions.narrow(0, 0, length)?)?;
        let mask = causal_mask(length, &x)?;
        for layer in &self.layers {
            x = layer.forward(&x, &mask)?;
        }
        let tokens = self.norm.forward(&x)?;
        let end = self.config.vocabulary as u32 - 1;
        let pooled = |(i, ids): (usize, &Vec<u32>)| match ids.iter().position(|&id| id == end) {
            Some(place) => tokens.get(i)?.get(place),
            None => candle_core::bail!("text {i} has no end token ({end})"),
        };
        let pooled = ids.to_vec2::<u32>()?.iter().enumerate().map(pooled).collect::<Result<Vec<_>>>()?;
        Ok(TextFeatures { pooled: Tensor::stack(&pooled, 0)?, tokens })
    }
}

/// `[length, length]`: minus infinity where a token would see one behind it.
fn causal_mask(length: usize, like: &Tensor) -> Result<Tensor> {
    let seen = |i: usize| if i % length > i / length { f32::NEG_INFINITY } else { 0.0 };
    let mask = (0..length * length).map(seen).collect::<Vec<_>>();
    Tensor::from_vec(mask, (length, length), like.device())?.to_dtype(like.dtype())
}

/// `x sigmoid(1.702 x)`, the approximation of GELU that CLIP was trained with.
fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    let e = ((x * -1.702)?.exp()? + 1.0)?;
    x / e
}

/// Names and shapes of all tensors.
///
/// # Errors
/// Those of candle.
pub fn named_shapes(config: &ClipTextConfig) -> Result<Vec<(String, Vec<usize>)>> {
    tensors_of(|vb| ClipText::read(config, vb))
}
