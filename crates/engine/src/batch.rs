//! What one iteration trains on: noised images, labels after dropout, and the draws of the gate's noise.

use anyhow::Result;
use candle_core::{Device, Tensor};
use data::{Batch, Batches, Examples};
use diffusion::Process;
use manifest::dit::DitConfig;
use patches::Patch;
use random::{Draws, Stream};
use rayon::prelude::*;

/// A batch with its noised images.
pub struct TrainingBatch {
    /// Images or latents, labels (after dropout), timesteps and noise.
    pub clean: Batch,
    /// Noised images `[B, C, H, W]`.
    pub x_t: Vec<f32>,
    /// Standard normal draws for the gate `[L', B, N]`; empty where there is no patch.
    pub gate_noise: Vec<f32>,
}

impl TrainingBatch {
    /// The gate's draws as a tensor `[L', B, N]`; `None` where there are none.
    ///
    /// # Errors
    /// Those of candle.
    pub fn gate_noise(&self, patch: &Patch, device: &Device) -> Result<Option<Tensor>> {
        if self.gate_noise.is_empty() {
            return Ok(None);
        }
        let shape = (patch.blocks(), self.clean.t.len(), patch.prompts());
        Ok(Some(Tensor::from_slice(&self.gate_noise, shape, device)?))
    }
}

/// Fills batches; each is a pure function of (seed, iteration).
pub struct Batcher<'a> {
    batches: Batches<'a>,
    process: Process,
    seed: u64,
    conditional: bool,
    /// The null label and the share of labels that become it.
    dropout: Option<(u32, f64)>,
}

/// What labels a network sees.
#[derive(Clone, Copy, Debug)]
pub struct Labels {
    /// Their number, which is the null label too; `None` for an unconditional network.
    pub classes: Option<usize>,
    /// Share of labels replaced by the null label.
    pub dropout: f64,
}

impl From<&DitConfig> for Labels {
    fn from(dit: &DitConfig) -> Self {
        Self { classes: dit.classes, dropout: dit.label_dropout }
    }
}

impl<'a> Batcher<'a> {
    /// Batches of `examples` under `seed`.
    pub fn new(examples: &'a dyn Examples, process: Process, labels: Labels, flips: bool, seed: u64) -> Self {
        let batches = Batches::new(examples, seed, flips, process.len() as u32);
        let Labels { classes, dropout } = labels;
        let conditional = classes.is_some();
        let dropout = classes.filter(|_| dropout > 0.0).map(|null| (null as u32, dropout));
        Self { batches, process, seed, conditional, dropout }
    }

    /// A batch of zeros: `size` images of `elements` numbers, `gate_draws` numbers of gate noise.
    pub fn empty(size: usize, elements: usize, gate_draws: usize) -> TrainingBatch {
        let clean = Batch::new(size, elements);
        TrainingBatch { clean, x_t: vec![0.0; size * elements], gate_noise: vec![0.0; gate_draws] }
    }

    /// Fills `batch` with what `iteration` trains on. Unconditional models see label 0.
    pub fn fill(&mut self, iteration: usize, batch: &mut TrainingBatch) {
        let step = iteration as u64;
        self.batches.fill(step, &mut batch.clean);
        self.condition(step, &mut batch.clean.labels);
        let Batch { x0, noise, t, .. } = &batch.clean;
        let elements = x0.len() / t.len();
        let samples = batch.x_t.par_chunks_mut(elements).zip(x0.par_chunks(elements)).zip(noise.par_chunks(elements));
        samples.zip(t).for_each(|(((x_t, x0), noise), &t)| self.process.q_sample(t, x0, noise, x_t));
        Draws::new(self.seed, Stream::GateNoise, step).fill_normal(0, &mut batch.gate_noise);
    }

    /// The part of it that is no image and no noise: which examples, which of them mirrored, their labels and timesteps.
    pub fn choose(&mut self, iteration: usize, batch: &mut Batch) {
        self.batches.choose(iteration as u64, batch);
        self.condition(iteration as u64, &mut batch.labels);
    }

    /// Labels as the network sees them: 0 where it has no classes, some dropped.
    fn condition(&self, step: u64, labels: &mut [u32]) {
        if !self.conditional {
            labels.fill(0);
        }
        if let Some((null, share)) = self.dropout {
            let draws = Draws::new(self.seed, Stream::LabelDropout, step);
            for (place, label) in labels.iter_mut().enumerate() {
                if f64::from(draws.uniform(place as u64)) < share {
                    *label = null;
                }
            }
        }
    }
}
