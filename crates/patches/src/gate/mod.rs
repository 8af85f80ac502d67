//! Gates: the timestep embedding (and the block's index) in, one weight per prompt out. Twin of `manifest/gate.rs`.

mod architecture;
mod eye;
mod literal;
mod noise;
mod scored;
mod selection;
mod ungated;

use std::fmt::Debug;

use candle_core::{Result, Tensor};
use manifest::gate::{Architecture, Gate as GateConfig, GateInput};
use models::Condition;
use models::weights::Tensors;

use crate::mixture::Contribution;
use crate::place::Place;
use crate::trainable::Trainable;

pub(crate) use eye::Eye;
pub use noise::NOISE;
pub(crate) use noise::{LearnedNoise, build as noise};
pub(crate) use selection::Ranking;
pub(crate) use ungated::Ungated;

/// Number of prompted blocks, prompts per block, and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) blocks: usize,
    pub(crate) prompts: usize,
    pub(crate) width: usize,
}

/// What decides how much of which prompt is used. It knows its tensors by name only.
pub(crate) trait Gate: Debug + Send + Sync {
    /// The gate's own tensors; the prompts are not among them.
    fn trainable(&self) -> Vec<Trainable>;

    /// Gates `tensors[PROMPTS]`. `noise`, `[L, B, N]` standard normals, is given in training only.
    fn gate(&self, tensors: &Tensors, condition: &Condition, noise: Option<&Tensor>) -> Result<Gated>;
}

/// What comes out of a gate.
#[derive(Clone, Debug)]
pub(crate) struct Gated {
    /// What is put before the blocks.
    pub(crate) contribution: Contribution,
    /// Smooth probability of being kept, summed over the batch, `[L, N]`; `None` where the gate keeps all prompts or
    /// has no noise.
    pub(crate) smooth_load: Option<Tensor>,
}

/// Builds the gate that `config` describes, for prompts that enter at `place`.
pub(crate) fn build(config: &GateConfig, place: &dyn Place, size: Size) -> Box<dyn Gate> {
    let input = match config.input {
        GateInput::AsReleased => place.released_input(),
        stated => stated,
    };
    let eye = Eye::build(config.prompts_per_block, input, size);
    let scores: Box<dyn architecture::Scores> = match config.architecture {
        Architecture::Linear => Box::new(architecture::Linear { eye, size }),
        Architecture::AttentionOverPrompts => Box::new(architecture::AttentionOverPrompts { eye, size }),
        Architecture::AttentionLiteral => {
            return Box::new(literal::AttentionLiteral {
                eye,
                size,
                learning_rate_factor: config.learning_rate_factor,
            });
        }
    };
    Box::new(scored::Scored {
        scores,
        noise: noise::build(config.noise, size),
        selection: selection::build(&config.selection, size.prompts),
        eye,
        size,
        learning_rate_factor: config.learning_rate_factor,
    })
}
