//! Prompt tuning: no gate.

use candle_core::{Result, Tensor};
use models::Condition;
use models::weights::Tensors;

use super::{Gate, Gated};
use crate::PROMPTS;
use crate::mixture::Contribution;
use crate::trainable::Trainable;

/// Every prompt is used with weight 1.
#[derive(Debug)]
pub(crate) struct Ungated;

impl Gate for Ungated {
    fn trainable(&self) -> Vec<Trainable> {
        Vec::new()
    }

    fn gate(&self, tensors: &Tensors, condition: &Condition, _: Option<&Tensor>) -> Result<Gated> {
        let prompts = tensors[PROMPTS].clone();
        let (blocks, n, _) = prompts.dims3()?;
        let weights = Tensor::ones((blocks, condition.t.dim(0)?, n), prompts.dtype(), prompts.device())?;
        Ok(Gated { contribution: Contribution::Prompts { weights, prompts }, smooth_load: None })
    }
}
