//! Attention gating to the letter.

use candle_core::{Result, Tensor};
use models::Condition;
use models::weights::Tensors;

use super::{Eye, Gate, Gated, Size};
use crate::mixture::Contribution;
use crate::trainable::{Initial, Trainable};

/// Attention with the prompts as queries and the embedding as the one key and value. The softmax over one key is 1
/// whatever query and key are, so neither is kept: every prompt's output is `W_o W_v [t; block index]`, and the prompts
/// get no gradient. `W_o` starts at zero.
#[derive(Debug)]
pub(crate) struct AttentionLiteral {
    pub(crate) eye: Eye,
    pub(crate) size: Size,
    pub(crate) learning_rate_factor: f64,
}

impl Gate for AttentionLiteral {
    fn trainable(&self) -> Vec<Trainable> {
        let d = self.size.width;
        vec![
            Trainable::new("gate.v.weight", &[d, self.eye.inputs()], Initial::XavierUniform, self.learning_rate_factor),
            Trainable::new("gate.o.weight", &[d, d], Initial::Zero, self.learning_rate_factor),
        ]
    }

    fn gate(&self, tensors: &Tensors, condition: &Condition, _: Option<&Tensor>) -> Result<Gated> {
        let v = self.eye.project(&self.eye.embedding(condition)?, &tensors["gate.v.weight"])?;
        let (rows, b, d) = v.dims3()?;
        let vectors = v.reshape((rows * b, d))?.matmul(&tensors["gate.o.weight"].t()?)?.reshape((rows, b, d))?;
        let vectors = vectors.broadcast_as((self.size.blocks, b, d))?;
        Ok(Gated { contribution: Contribution::Vectors { vectors, prompts: self.size.prompts }, smooth_load: None })
    }
}
