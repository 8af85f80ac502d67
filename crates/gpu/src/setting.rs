//! What a training run is of, and where it stands.

use diffusion::TrainingLoss;
use kernels::Shape;

use crate::gate::{Balance, Gating};
use crate::trunk::Added;

/// Prompts before the first blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prompts {
    /// How many blocks have them.
    pub blocks: usize,
    /// How many stand in front of the image's tokens; 0: one is added to each of these.
    pub prepended: usize,
    /// What weights them; without a gate each counts 1.
    pub gate: Option<Gating>,
}

impl Prompts {
    /// Prompts of a block `N`.
    pub fn count(&self, shape: &Shape) -> usize {
        if self.prepended > 0 { self.prepended } else { shape.tokens() }
    }

    /// Whether they enter the trunk; else a gate has vectors in their place.
    pub(crate) fn enter(&self) -> bool {
        self.gate.is_none_or(Gating::weights)
    }

    /// What enters the trunk.
    pub(crate) fn added(&self) -> Added {
        let blocks = self.blocks;
        if self.enter() { Added::Prompts { blocks } } else { Added::Vectors { blocks } }
    }
}

/// What learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// All weights but the positions.
    Everything,
    /// Prompts and their gate, on a frozen trunk.
    Prompts {
        /// The prompts.
        prompts: Prompts,
        /// What keeps the gate balanced; unused without one.
        balance: Balance,
    },
}

/// What steps are of.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The network.
    pub shape: Shape,
    /// What learns.
    pub method: Method,
    /// Samples of a step.
    pub batch: usize,
    /// Samples that are done at once; they divide the batch.
    pub part: usize,
    /// The loss.
    pub loss: &'a TrainingLoss,
    /// Whether a running average of what learns is kept.
    pub average: bool,
    /// Seed of the noise.
    pub seed: u64,
}

/// Where training stands: values, moments and, where one is kept, the average, each flat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// All weights, or the prompts and behind them the gate's values.
    pub values: Vec<f32>,
    /// AdamW's first moment.
    pub first: Vec<f32>,
    /// AdamW's second moment.
    pub second: Vec<f32>,
    /// The running average; empty where none is kept.
    pub average: Vec<f32>,
}
