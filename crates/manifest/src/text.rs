//! What turns captions into vectors: CLIP's text encoder, as written in a recipe (with paths) and as it enters a key (without).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scale::Weights;

/// The encoder of a text-conditional backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TextEncoder {
    /// The text encoder of CLIP ViT-L/14 with a weight file, over its published vocabulary.
    Clip(Clip),
    /// The same structure at any size, over bytes, with weights by formula: no file is read. It tells captions apart and knows nothing of
    /// what they mean.
    ClipFormula(ClipFormula),
}

/// The text encoder of CLIP ViT-L/14.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// Its weights, alone or in a checkpoint of Stable Diffusion 1.
    pub weights: Weights,
    /// Its byte-pair vocabulary, `bpe_simple_vocab_16e6.txt.gz`.
    pub vocabulary: Weights,
}

/// A text encoder with weights by formula.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClipFormula {
    /// Width `W` of a token, and of an embedding.
    #[schemars(range(min = 1, max = 16384))]
    pub width: usize,
    /// Number of layers.
    #[schemars(range(min = 1, max = 1024))]
    pub depth: usize,
    /// Attention heads; they divide the width.
    #[schemars(range(min = 1, max = 16384))]
    pub heads: usize,
}

/// An encoder as it enters a key: its files are inputs by content hash (`encoder`, `vocabulary`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TextNetwork {
    /// Inputs `encoder` and `vocabulary`.
    Clip,
    /// No input.
    ClipFormula(ClipFormula),
}

/// Which of an encoder's vectors condition a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextVectors {
    /// One for a caption, that of its end token: a diffusion transformer's.
    #[default]
    Pooled,
    /// One for each of its tokens, padding among them: what a UNet attends to.
    Tokens,
}

impl TextVectors {
    /// For `skip_serializing_if`: keys from before there were others stand.
    pub(crate) fn is_pooled(&self) -> bool {
        *self == Self::Pooled
    }
}

/// Width of CLIP ViT-L/14's text embeddings.
const VIT_L_14: usize = 768;

impl TextEncoder {
    /// Width of its vectors.
    pub fn width(&self) -> usize {
        match self {
            Self::Clip(_) => VIT_L_14,
            Self::ClipFormula(formula) => formula.width,
        }
    }

    /// What enters a key, and the files to be looked up: name of the input, key in the recipe, file.
    pub(crate) fn network(&self) -> (TextNetwork, Vec<(&'static str, &'static str, &Weights)>) {
        match self {
            Self::Clip(Clip { weights, vocabulary }) => {
                (TextNetwork::Clip, vec![("encoder", "weights", weights), ("vocabulary", "vocabulary", vocabulary)])
            }
            Self::ClipFormula(formula) => (TextNetwork::ClipFormula(formula.clone()), vec![]),
        }
    }
}
