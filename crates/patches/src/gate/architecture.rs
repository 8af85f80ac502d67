//! How a gate scores prompts: logits from an embedding.

use std::fmt::Debug;

use candle_core::{Result, Tensor};
use models::weights::Tensors;

use super::{Eye, Size};
use crate::PROMPTS;
use crate::trainable::Initial;

/// Something that gives every prompt a logit.
pub(crate) trait Scores: Debug + Send + Sync {
    /// Name, shape and initial value of its tensors.
    fn tensors(&self) -> Vec<(&'static str, Vec<usize>, Initial)>;

    /// `embedding` `[B, D]` to logits `[L or 1, B, N]`.
    fn logits(&self, tensors: &Tensors, embedding: &Tensor) -> Result<Tensor>;
}

/// One linear layer, `[t; block index] -> N`, shared by all blocks. It starts at zero: equal weights for all prompts.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) eye: Eye,
    pub(crate) size: Size,
}

impl Scores for Linear {
    fn tensors(&self) -> Vec<(&'static str, Vec<usize>, Initial)> {
        let n = self.size.prompts;
        vec![("gate.weight", vec![n, self.eye.inputs()], Initial::Zero), ("gate.bias", vec![n], Initial::Zero)]
    }

    fn logits(&self, tensors: &Tensors, embedding: &Tensor) -> Result<Tensor> {
        self.eye.project(embedding, &tensors["gate.weight"])?.broadcast_add(&tensors["gate.bias"])
    }
}

/// `q(prompt) . k([t; block index]) / sqrt(D)`: attention of one head whose scores are read as the prompts' logits.
#[derive(Debug)]
pub(crate) struct AttentionOverPrompts {
    pub(crate) eye: Eye,
    pub(crate) size: Size,
}

impl Scores for AttentionOverPrompts {
    fn tensors(&self) -> Vec<(&'static str, Vec<usize>, Initial)> {
        let d = self.size.width;
        vec![
            ("gate.q.weight", vec![d, d], Initial::XavierUniform),
            ("gate.k.weight", vec![d, self.eye.inputs()], Initial::XavierUniform),
        ]
    }

    fn logits(&self, tensors: &Tensors, embedding: &Tensor) -> Result<Tensor> {
        let Size { blocks, prompts, width } = self.size;
        let q = tensors[PROMPTS].reshape((blocks * prompts, width))?.matmul(&tensors["gate.q.weight"].t()?)?;
        let q = q.reshape((blocks, prompts, width))?;
        let k = self.eye.project(embedding, &tensors["gate.k.weight"])?; // [L or 1, B, D]
        // Prompts differ from block to block, and so do their scores even where the key does not.
        let k = k.broadcast_as((blocks, k.dim(1)?, width))?.contiguous()?;
        k.matmul(&q.t()?)? / (width as f64).sqrt()
    }
}
