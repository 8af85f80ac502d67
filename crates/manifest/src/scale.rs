//! A scale: how large an experiment is run. It never changes what a cell means.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::reference::ReferenceFrom;

/// `experiments/scales/*.yaml`, every field explicit; a file may say `extends: <scale>` and give only what differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// What it is for.
    pub title: String,
    /// Images of the further training.
    pub data: Dataset,
    /// What is patched.
    pub backbone: Network,
    /// What turns images into features.
    pub extractor: Extractor,
    /// Further training, common to all methods.
    pub train: Training,
    /// Samples of every cell.
    pub sample: Sampling,
    /// How samples are judged.
    pub evaluation: Evaluation,
    /// Training seeds, unless others are given on the command line.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub seeds: Vec<u64>,
    /// Engine, device and precision of every stage.
    pub numerics: Numerics,
}

/// A trained network: its recipe, and its weights if they are shipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Name of the recipe (`tiny-backbone`, the file's name): it says what network this is and how it was, or will be, trained.
    pub recipe: String,
    /// Weights that are used instead of training the recipe.
    pub weights: Option<Weights>,
}

/// What turns images into features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Extractor {
    /// A small CNN with a recipe; the metric is `fd_<its name>`.
    Cnn(Network),
    /// Inception v3 with a weight file; the metric is `fid` if that is the published one, and its hash is pinned.
    Inception(Inception),
    /// Inception v3 with weights by formula, without a file; the metric is `fd_inception_formula`.
    InceptionFormula(InceptionFormula),
}

/// Inception v3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inception {
    /// The weights. Published: `pt_inception-2015-12-05-6726825d.pth`, which [`PUBLISHED_INCEPTION`] pins.
    pub weights: Weights,
}

/// Inception v3 with weights by formula.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InceptionFormula {}

/// SHA-256 of pytorch-fid's weights, `pt_inception-2015-12-05-6726825d.pth`: only with these a distance is called FID.
pub const PUBLISHED_INCEPTION: &str = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2";

impl Inception {
    /// Whether the published weights are pinned: then nothing else is accepted in the file's place.
    pub fn is_published(&self) -> bool {
        self.weights.sha256.is_some_and(|pinned| pinned.to_string() == PUBLISHED_INCEPTION)
    }
}

/// A weight file. It is looked up like a dataset; its content must be the pinned one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// The file.
    pub file: String,
    /// Its content; `null` where no published file can be pinned: then whatever lies there is used, and its hash is in the keys.
    pub sha256: Option<Digest>,
}

/// Further training, common to all methods: AdamW without weight decay, the learning rate constant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Optimiser steps.
    #[schemars(range(min = 1))]
    pub iterations: usize,
    /// Images a step.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch: usize,
    /// Learning rate of the paper.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// What it is multiplied with for all methods, chosen once on the default cell with seeds that no table uses:
    /// a few hundred steps cannot move a prompt as 30,000 do.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate_multiplier: f64,
    /// Whether half of the images are mirrored.
    pub horizontal_flip: bool,
    /// Images that a GPU's fast engine works on at once, where a step's do not fit its memory: they divide the batch. The
    /// gradients of the parts are summed [default: the batch].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<NonZeroUsize>,
}

/// Samples of every cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// How the process is run backwards.
    pub sampler: Sampler,
    /// Number of samples.
    #[schemars(range(min = 4))]
    pub count: usize,
    /// Seed of the run with training seed 0; the run with training seed `s` has this plus `s`. All cells share it.
    pub seed: u64,
    /// Captions that are shown in the place of a manifest's, where the images here are of other things.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("uniqueItems" = true))]
    pub captions: Vec<String>,
}

/// How samples are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// The real images that samples are compared with, or published statistics of them (`kind: statistics`).
    pub reference: ReferenceFrom,
    /// Real images that precision and recall are taken against; the reference's if absent, and nothing is where that has
    /// none. Those published for ImageNet are against 10,000 images that ADM drew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Dataset>,
    /// Real images that are not in the reference. As many as samples are drawn, from its first on, are judged like
    /// samples: the distance below which no sampler can be expected to come. `null` where there are none.
    pub floor: Option<Dataset>,
    /// Half-size subsets of the samples on which the distance is computed again.
    #[schemars(range(min = 2, max = 10_000))]
    pub subsets: usize,
    /// Seed of the subsets.
    pub subset_seed: u64,
    /// Noise on the prompts of the positive control, relative to their root mean square.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub positive_control_noise: f64,
    /// Timesteps at which the gate's weights are recorded (Figure 5).
    #[schemars(range(min = 2))]
    pub activation_timesteps: usize,
}

/// The diffusion process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diffusion {
    /// Noise schedule.
    pub schedule: Schedule,
    /// Length `T` of the process.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub timesteps: usize,
}

impl Diffusion {
    /// The shortest process of its schedule: in a shorter one the last step's variance would not lie below 1.
    pub fn shortest(&self) -> usize {
        match self.schedule {
            Schedule::Linear => 21,
            Schedule::ScaledLinear => 13,
            Schedule::Cosine => 2,
        }
    }
}

/// Noise schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Linear betas from `0.1 / T` to `20 / T`.
    Linear,
    /// Betas from `0.85 / T` to `12 / T` with roots on a line (Stable Diffusion).
    ScaledLinear,
    /// Squared-cosine alphas (Nichol & Dhariwal 2021), betas at most 0.999.
    Cosine,
}

/// Iterations, batch, learning rate: AdamW (betas 0.9 and 0.999, eps 1e-8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Optimisation {
    /// Optimiser steps.
    #[schemars(range(min = 1))]
    pub iterations: usize,
    /// Images a step.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Learning rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Learning rate at the last step, reached along a cosine; equal to `learning_rate` for a constant one.
    #[schemars(range(min = 0.0))]
    pub final_learning_rate: f64,
    /// Steps over which the learning rate rises from zero.
    pub warmup_iterations: usize,
    /// Decoupled weight decay.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Whether half of the images are mirrored.
    pub horizontal_flip: bool,
    /// Images that a GPU's fast engine works on at once, where a step's do not fit its memory: they divide the batch. The
    /// gradients of the parts are summed [default: the batch].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<NonZeroUsize>,
}

/// How the process is run backwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sampler {
    /// Which sampler.
    pub kind: SamplerKind,
    /// Steps, of the process's `timesteps`.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Whether the predicted image is clipped to [-1, 1] (pixels: yes; latents: no).
    pub clip_x0: bool,
    /// Scale of classifier-free guidance; 1 is none.
    #[schemars(range(min = 0.0))]
    pub guidance: f64,
    /// Which channels are guided.
    pub guidance_channels: GuidanceChannels,
}

impl Sampler {
    /// Why a process of `timesteps` cannot be run backwards in so many steps; `None` where it can.
    pub fn misfit(&self, timesteps: usize) -> Option<String> {
        let steps = self.steps;
        let (least, most, length) = match self.kind {
            SamplerKind::Ddpm | SamplerKind::Ddim => (2, timesteps, "the process's length"),
            // Its last step ends at timestep 0, where the network is not called.
            SamplerKind::Pndm => (1, timesteps.saturating_sub(1), "one less than the process's length, with PNDM"),
        };
        if steps > most {
            return Some(format!("must be at most {length} ({most}), found `{steps}`"));
        }
        if steps < least {
            return Some(format!("must be at least {least}, found `{steps}`"));
        }
        // DDIM keeps every n-th timestep, for a whole n.
        let kept = |stride: usize| timesteps.div_ceil(stride);
        let stride = timesteps.div_ceil(steps); // the least that keeps no more than the steps
        let uneven = self.kind == SamplerKind::Ddim && kept(stride) != steps;
        uneven.then(|| {
            let (fewer, more) = (kept(stride), kept(stride - 1));
            format!(
                "must be a number of evenly spaced timesteps among {timesteps}, with DDIM, found `{steps}`; {fewer} and \
                 {more} are"
            )
        })
    }

    /// The form in which it is run: without guidance no channel is guided, so which ones says nothing.
    pub fn canonical(&self) -> Self {
        let guided = self.guidance != 1.0;
        Self { guidance_channels: if guided { self.guidance_channels } else { GuidanceChannels::All }, ..self.clone() }
    }
}

/// Which sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Ancestral sampling with the learned variance (respaced).
    Ddpm,
    /// Deterministic DDIM (eta 0).
    Ddim,
    /// PNDM without Runge-Kutta steps, as Stable Diffusion runs it: one call of the network more than steps.
    Pndm,
}

/// Which channels are guided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuidanceChannels {
    /// Released code: the first three.
    FirstThree,
    /// All.
    All,
}

/// What decides an arithmetic result besides the program: part of every key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    /// Which implementation of the trunk.
    pub engine: Engine,
    /// Which kind of device.
    pub device: DeviceKind,
    /// Precision.
    pub dtype: Dtype,
}

impl Numerics {
    /// Name and version of the arithmetic, raised when its code changes results. Device and precision are in the key beside it.
    pub fn version(&self) -> &'static str {
        match (self.engine, self.device) {
            (Engine::Reference, _) => "reference/v1",
            (Engine::Fast, DeviceKind::Cpu) => "fast/v3",
            (Engine::Fast, DeviceKind::Cuda) => "fast-cuda/v1",
        }
    }
}

/// Which implementation of the trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// candle tensors and autograd.
    Reference,
    /// Hand-written forward and backward passes (crate `kernels`; on a GPU, crate `gpu`).
    Fast,
}

/// Which kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Precision of the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// Activations and the weights that products read in bfloat16; sums, gradients of weights, optimiser and gate in 32 bits. The
    /// fast engine on a GPU has it.
    Bf16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_of_long_processes_are_found_at_once() {
        let sampler = |kind, steps| Sampler {
            kind,
            steps,
            clip_x0: false,
            guidance: 1.0,
            guidance_channels: GuidanceChannels::All,
        };
        let misfit = sampler(SamplerKind::Ddim, 60).misfit(1000).unwrap();
        assert!(misfit.ends_with("found `60`; 59 and 63 are"), "{misfit}");
        // It would take years to try them one by one.
        let misfit = sampler(SamplerKind::Ddim, (1 << 33) + 1).misfit(usize::MAX).unwrap();
        assert!(misfit.contains("evenly spaced"), "{misfit}");
        assert_eq!(sampler(SamplerKind::Ddpm, 2).misfit(usize::MAX), None);
        for (timesteps, steps) in [(21_usize, 2_usize), (100, 7), (1000, 250), (1000, 999)] {
            let kept = |stride: usize| timesteps.div_ceil(stride);
            let fits = (1..timesteps).any(|stride| kept(stride) == steps);
            assert_eq!(sampler(SamplerKind::Ddim, steps).misfit(timesteps).is_none(), fits, "{steps} of {timesteps}");
        }
    }
}
