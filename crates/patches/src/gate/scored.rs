//! The usual gate: scores, noise on them in training, and a selection.

use candle_core::{Result, Tensor};
use models::Condition;
use models::weights::Tensors;

use super::architecture::Scores;
use super::noise::LearnedNoise;
use super::selection::Select;
use super::{Eye, Gate, Gated, Size};
use crate::PROMPTS;
use crate::balance::probability_of_being_kept;
use crate::mixture::Contribution;
use crate::trainable::{Initial, Trainable};

/// `selection(scores(embedding) + noise)`.
#[derive(Debug)]
pub(crate) struct Scored {
    pub(crate) scores: Box<dyn Scores>,
    pub(crate) noise: Option<LearnedNoise>,
    pub(crate) selection: Box<dyn Select>,
    pub(crate) eye: Eye,
    pub(crate) size: Size,
    pub(crate) learning_rate_factor: f64,
}

impl Gate for Scored {
    fn trainable(&self) -> Vec<Trainable> {
        let scores = self.scores.tensors().into_iter();
        let noise = self.noise.iter().map(LearnedNoise::tensor).map(|(name, shape)| (name, shape, Initial::Zero));
        let all = scores.chain(noise);
        all.map(|(name, shape, initial)| Trainable::new(name, &shape, initial, self.learning_rate_factor)).collect()
    }

    fn gate(&self, tensors: &Tensors, condition: &Condition, noise: Option<&Tensor>) -> Result<Gated> {
        let embedding = self.eye.embedding(condition)?;
        let clean = self.scores.logits(tensors, &embedding)?; // [L or 1, B, N]
        let (weights, load) = match (&self.noise, noise) {
            (Some(learned), Some(draws)) => {
                let deviation = learned.deviation(tensors, &embedding)?;
                // A gate that does not tell blocks apart is evaluated once: it takes the first block's draws.
                let draws = draws.narrow(0, 0, self.eye.rows)?;
                let noisy = clean.broadcast_add(&draws.broadcast_mul(&deviation)?)?;
                let load = |k| probability_of_being_kept(&clean, &noisy, &deviation, k)?.sum(1);
                (self.selection.weights(&noisy)?, self.selection.kept().map(load).transpose()?)
            }
            _ => (self.selection.weights(&clean)?, None),
        };
        let Size { blocks, prompts: n, .. } = self.size;
        let weights = weights.broadcast_as((blocks, weights.dim(1)?, n))?;
        let smooth_load = load.map(|load| load.broadcast_as((blocks, n))).transpose()?;
        Ok(Gated { contribution: Contribution::Prompts { weights, prompts: tensors[PROMPTS].clone() }, smooth_load })
    }
}
