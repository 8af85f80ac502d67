//! Stages: idempotent steps with typed parameters. A stage's key is the hash of its parameters and its inputs' keys.

use serde::{Deserialize, Serialize};

use crate::dataset::Source;
use crate::dit::DitConfig;
use crate::extractor::ExtractorConfig;
use crate::method::Method;
use crate::scale::{Diffusion, Numerics, Optimisation, Sampler};

/// One idempotent step: what it does, with every default explicit. Paths, threads and devices' numbers are not in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// Trains a backbone from scratch. Artifact: `weights.safetensors`.
    Pretrain(Pretrain),
    /// Trains a feature extractor. Artifact: `weights.safetensors`.
    TrainExtractor(TrainExtractor),
    /// Trains a method on top of a backbone. Inputs: `backbone`, unless it starts from scratch. Artifact:
    /// `weights.safetensors` (trained tensors only: backbone and patch where both learn).
    Train(Train),
    /// Draws samples. Inputs: `backbone`, unless the method starts from scratch, and `trained` unless it trains nothing.
    /// Artifact: `samples.safetensors`.
    Sample(Sample),
    /// Features of samples (input `samples`) or of a dataset. Inputs: `extractor`. Artifact: `features.safetensors`.
    Features(Features),
    /// Mean, covariance and its square root. Inputs: `features`. Artifact: `statistics.safetensors`.
    Statistics(Statistics),
    /// The distance between `features` and `reference` (statistics). Its numbers are in the record's metrics.
    Metrics(Metrics),
    /// The gate's weight of every prompt in every block over the timesteps. Inputs: `backbone`, `trained`. Artifact: `activation.safetensors`.
    Activation(Activation),
}

impl Stage {
    /// Its kind, the version of its arithmetic (raised when its code changes its results), and its numerics.
    fn identity(&self) -> (&'static str, u32, Option<&Numerics>) {
        match self {
            Self::Pretrain(stage) => ("pretrain", 1, Some(&stage.numerics)),
            Self::TrainExtractor(stage) => ("train_extractor", 1, Some(&stage.numerics)),
            Self::Train(stage) => ("train", 1, Some(&stage.numerics)),
            Self::Sample(stage) => ("sample", 1, Some(&stage.numerics)),
            Self::Features(stage) => ("features", 1, Some(&stage.numerics)),
            Self::Statistics(_) => ("statistics", 2, None),
            Self::Metrics(_) => ("metrics", 1, None),
            Self::Activation(stage) => ("activation", 1, Some(&stage.numerics)),
        }
    }

    /// Its kind in snake case: the folder of its results.
    pub fn kind(&self) -> &'static str {
        self.identity().0
    }

    /// What is hashed before its parameters: `train/v1 reference/v1`, the stage's and the engine's version.
    pub fn version(&self) -> String {
        let (kind, version, numerics) = self.identity();
        let engine = numerics.map_or(String::new(), |numerics| format!(" {}", numerics.engine.version()));
        format!("{kind}/v{version}{engine}")
    }
}

/// Trains a backbone from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pretrain {
    /// The network.
    pub dit: DitConfig,
    /// Training images. File inputs: those of the source.
    pub data: Source,
    /// The diffusion process.
    pub diffusion: Diffusion,
    /// Iterations, batch, learning rate.
    pub optimisation: Optimisation,
    /// Half-life, in iterations, of the exponential moving average that is kept as the result; 0 keeps the last weights.
    pub ema_halflife_iterations: f64,
    /// Seed of weights, order, timesteps and noise.
    pub seed: u64,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Trains a feature extractor on known factors (procedural data) or labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainExtractor {
    /// The network.
    pub extractor: ExtractorConfig,
    /// Training images.
    pub data: Source,
    /// Images after the training ones on which it is judged.
    pub held_out: usize,
    /// Iterations, batch, learning rate.
    pub optimisation: Optimisation,
    /// Seed of weights and order.
    pub seed: u64,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Trains a method on top of a backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// The backbone's network.
    pub dit: DitConfig,
    /// What is trained.
    pub method: Method,
    /// Training images.
    pub data: Source,
    /// The diffusion process.
    pub diffusion: Diffusion,
    /// Iterations, batch, learning rate.
    pub optimisation: Optimisation,
    /// Seed of initial values, order, timesteps and noise.
    pub seed: u64,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Draws samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The backbone's network.
    pub dit: DitConfig,
    /// What was trained on top of it.
    pub method: Method,
    /// The diffusion process.
    pub diffusion: Diffusion,
    /// How it is run backwards.
    pub sampler: Sampler,
    /// Number of samples.
    pub count: usize,
    /// Seed of the initial noise and of the steps' noise: sample `i` is the same for every cell's method input.
    pub seed: u64,
    /// Standard deviation of noise put on the prompts, relative to their own root mean square; 0 for none (the positive control has more).
    pub prompt_noise: f64,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Features of samples or of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// The network.
    pub extractor: ExtractorConfig,
    /// Real images; `None` where the input `samples` is read.
    pub data: Option<Source>,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Mean, covariance and its square root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {}

/// The distance between features and reference statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Name of the metric's column: `fd_<extractor>`.
    pub name: String,
    /// Number of half-size subsets, drawn without replacement, on which the distance is computed again.
    pub subsets: usize,
    /// Seed of the subsets, common to all cells.
    pub seed: u64,
}

/// The gate's weights over the timesteps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activation {
    /// The backbone's network.
    pub dit: DitConfig,
    /// What was trained on top of it.
    pub method: Method,
    /// Number of timesteps, evenly spaced over the process, ends included.
    pub timesteps: usize,
    /// Length of the process.
    pub diffusion: Diffusion,
    /// Engine, precision and device.
    pub numerics: Numerics,
}
