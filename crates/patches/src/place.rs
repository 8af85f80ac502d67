//! Where the prompts enter a block: added to the image tokens, or in front of them.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use manifest::gate::GateInput;
use manifest::method::Position;

/// Where prompts enter.
pub(crate) trait Place: Debug + Send + Sync {
    /// Whether prompts lengthen the sequence.
    fn in_front(&self) -> bool;

    /// What the released gate reads where prompts enter here.
    fn released_input(&self) -> GateInput;

    /// Puts `contribution`, `[B, N or 1, D]` (one row counts for all `N`), into the input `x` of prompted block `block`.
    fn enter(&self, block: usize, x: &Tensor, contribution: &Tensor, prompts: usize) -> Result<Tensor>;

    /// Takes the prompts out again after the last block of the network.
    fn leave(&self, x: Tensor, prompts: usize) -> Result<Tensor>;
}

pub(crate) fn build(position: &Position) -> Arc<dyn Place> {
    match position {
        Position::Add(_) => Arc::new(Add),
        Position::Prepend(_) => Arc::new(Prepend),
    }
}

/// `x + contribution`: prompt `n` belongs to token `n` (Eq. 3).
#[derive(Debug)]
struct Add;

impl Place for Add {
    fn in_front(&self) -> bool {
        false
    }

    fn released_input(&self) -> GateInput {
        GateInput::TPlusC
    }

    fn enter(&self, _: usize, x: &Tensor, contribution: &Tensor, _: usize) -> Result<Tensor> {
        x.broadcast_add(contribution)
    }

    fn leave(&self, x: Tensor, _: usize) -> Result<Tensor> {
        Ok(x)
    }
}

/// Prompts in front of the image tokens: they come before the first block, are replaced before every further prompted
/// block, carried through the others and dropped at the end.
#[derive(Debug)]
struct Prepend;

impl Place for Prepend {
    fn in_front(&self) -> bool {
        true
    }

    fn released_input(&self) -> GateInput {
        GateInput::T
    }

    fn enter(&self, block: usize, x: &Tensor, contribution: &Tensor, prompts: usize) -> Result<Tensor> {
        let (b, tokens, d) = x.dims3()?;
        let contribution = contribution.broadcast_as((b, prompts, d))?;
        let image = if block == 0 { x.clone() } else { x.narrow(1, prompts, tokens - prompts)? };
        Tensor::cat(&[contribution, image], 1)
    }

    fn leave(&self, x: Tensor, prompts: usize) -> Result<Tensor> {
        let tokens = x.dim(1)? - prompts;
        x.narrow(1, prompts, tokens)
    }
}
