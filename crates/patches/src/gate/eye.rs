//! What a gate sees: an embedding of the condition, and the index of the block or not.

use candle_core::{Result, Tensor};
use manifest::gate::{BlockAwareness, GateInput};
use models::Condition;

use super::Size;

/// What the gate sees: an embedding, and the block's index or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eye {
    with_label: bool,
    /// Blocks that are told apart: all, or one that stands for all.
    pub(crate) rows: usize,
    /// Whether the raw index of the block is one more input.
    pub(crate) index: bool,
    width: usize,
}

impl Eye {
    pub(crate) fn build(awareness: BlockAwareness, input: GateInput, size: Size) -> Self {
        let (rows, index) = match awareness {
            BlockAwareness::Distinct => (size.blocks, true),
            BlockAwareness::Uniform => (1, false),
        };
        Self { with_label: input == GateInput::TPlusC, rows, index, width: size.width }
    }

    /// Number of inputs of a linear layer behind it: `D`, or `D + 1` with the index.
    pub(crate) fn inputs(&self) -> usize {
        self.width + usize::from(self.index)
    }

    /// The embedding, `[B, D]`.
    pub(crate) fn embedding(&self, condition: &Condition) -> Result<Tensor> {
        if self.with_label { condition.c() } else { Ok(condition.t.clone()) }
    }

    /// `[embedding; block index] W^T` for all rows at once: the product with the embedding is the same for every
    /// block, and the index times the last column is added to it.
    ///
    /// `embedding` `[B, D]`, `weight` `[out, inputs]`, result `[rows, B, out]`.
    pub(crate) fn project(&self, embedding: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let shared = embedding.matmul(&weight.narrow(1, 0, self.width)?.t()?)?.unsqueeze(0)?;
        if !self.index {
            return Ok(shared);
        }
        let index = Tensor::arange(0, self.rows as u32, weight.device())?.to_dtype(weight.dtype())?;
        let column = weight.narrow(1, self.width, 1)?.t()?; // [1, out]
        shared.broadcast_add(&index.unsqueeze(1)?.matmul(&column)?.unsqueeze(1)?)
    }
}
