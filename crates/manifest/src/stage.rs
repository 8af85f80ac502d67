//! Stages: idempotent steps with typed parameters. A stage's key is the hash of its parameters and its inputs' keys.

use serde::{Deserialize, Serialize};

use crate::autoencoder::{AutoencoderNetwork, LatentSpace};
use crate::dataset::Source;
use crate::denoiser::Denoiser;
use crate::extractor::{ExtractorConfig, FeatureNetwork};
use crate::method::Method;
use crate::scale::{Diffusion, Numerics, Optimisation, Sampler};
use crate::text::{TextNetwork, TextVectors};

/// One idempotent step: what it does, with every default explicit. Paths, threads and devices' numbers are not in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// Embeds captions. Inputs: those of the data, `encoder` and `vocabulary` unless the weights are a formula. Artifact:
    /// `embeddings.safetensors`, the input `embeddings` of all stages of a backbone that is conditioned on text.
    Embeddings(Embeddings),
    /// Trains a backbone from scratch, a DiT or a UNet. Artifact: `weights.safetensors`, the input `backbone` of others.
    Pretrain(Pretrain),
    /// Trains a feature extractor. Artifact: `weights.safetensors`.
    TrainExtractor(TrainExtractor),
    /// Takes images to the moments of their latents. Inputs: the source's files, and `autoencoder` unless its weights are a
    /// formula. Artifacts: `latents.safetensors`, and the shards that it counts.
    Encode(Encode),
    /// Trains a method on top of a backbone. Inputs: `backbone`, unless it starts from scratch or its weights are a formula.
    /// Artifact: `weights.safetensors` (trained tensors only: backbone and patch where both learn).
    Train(Train),
    /// Takes what a method trains from a file that was made elsewhere. Inputs: `trained`, that file, and `backbone` as in training.
    /// Artifact: `weights.safetensors`, as of a training.
    Import(Import),
    /// Draws samples. Inputs: `backbone` as in training, and `trained` unless the method trains nothing. Artifact:
    /// `samples.safetensors`.
    Sample(Sample),
    /// Decodes the first of some samples in latents, to be looked at. Inputs: `samples`, and `autoencoder` unless its
    /// weights are a formula. Artifact: `samples.safetensors`.
    Decode(Decode),
    /// Features of samples (input `samples`) or of a dataset. Inputs: `extractor`, and `autoencoder` where samples are
    /// latents. Artifact: `features.safetensors`.
    Features(Features),
    /// Mean, covariance and its square root. Input: `features`, or `published`, an .npz. Artifact: `statistics.safetensors`.
    Statistics(Statistics),
    /// The distance between `features` and `reference` (statistics). Its numbers are in the record's metrics.
    Metrics(Metrics),
    /// The distance at infinitely many samples. Inputs: `features`, `reference` (statistics).
    Extrapolation(Extrapolation),
    /// Precision and recall. Inputs: `features`, `reference` (features).
    Coverage(Coverage),
    /// The Inception score. Inputs: `features`, and `extractor` unless its weights are a formula.
    InceptionScore(InceptionScore),
    /// How alike the samples are, pair by pair (Table 5). Input: `samples`.
    Similarity(Similarity),
    /// The gate's weight of every prompt in every block over the timesteps. Inputs: `backbone`, `trained`. Artifact: `activation.safetensors`.
    Activation(Activation),
}

impl Stage {
    /// Its kind, the version of its arithmetic (raised when its code changes its results), and its numerics.
    fn identity(&self) -> (&'static str, u32, Option<&Numerics>) {
        match self {
            Self::Embeddings(stage) => ("embeddings", 1, Some(&stage.numerics)),
            Self::Pretrain(stage) => ("pretrain", 1, Some(&stage.numerics)),
            Self::TrainExtractor(stage) => ("train_extractor", 1, Some(&stage.numerics)),
            Self::Encode(stage) => ("encode", 1, Some(&stage.numerics)),
            Self::Train(stage) => ("train", 1, Some(&stage.numerics)),
            Self::Import(_) => ("import", 1, None),
            Self::Sample(stage) => ("sample", 1, Some(&stage.numerics)),
            Self::Decode(stage) => ("decode", 1, Some(&stage.numerics)),
            Self::Features(stage) => ("features", 1, Some(&stage.numerics)),
            Self::Statistics(_) => ("statistics", 2, None),
            Self::Metrics(_) => ("metrics", 1, None),
            Self::Extrapolation(_) => ("extrapolation", 1, None),
            Self::Coverage(_) => ("coverage", 1, None),
            Self::InceptionScore(_) => ("inception_score", 1, None),
            Self::Similarity(_) => ("similarity", 1, None),
            Self::Activation(stage) => ("activation", 1, Some(&stage.numerics)),
        }
    }

    /// Its kind in snake case: the folder of its results.
    pub fn kind(&self) -> &'static str {
        self.identity().0
    }

    /// What is hashed before its parameters: `train/v1 reference/v1`, the stage's and the engine's version; where it looks at
    /// photographs, that of their decoding too.
    pub fn version(&self) -> String {
        let (kind, version, numerics) = self.identity();
        let engine = numerics.map_or(String::new(), |numerics| format!(" {}", numerics.version()));
        let decoding = if self.images().is_some_and(Source::is_photographs) { " photographs/v2" } else { "" };
        format!("{kind}/v{version}{engine}{decoding}")
    }

    /// The images that it looks at.
    fn images(&self) -> Option<&Source> {
        match self {
            Self::Pretrain(stage) => Some(&stage.data),
            Self::TrainExtractor(stage) => Some(&stage.data),
            Self::Encode(stage) => Some(&stage.data),
            Self::Train(stage) => Some(&stage.data),
            Self::Features(stage) => stage.data.as_ref(),
            _ => None,
        }
    }
}

/// Embeds captions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// The encoder.
    pub encoder: TextNetwork,
    /// Which captions.
    pub captions: Captions,
    /// Which of the encoder's vectors.
    #[serde(default, skip_serializing_if = "TextVectors::is_pooled")]
    pub of: TextVectors,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Captions that are embedded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Captions {
    /// Those of a dataset, each once, in the order of their bytes. File inputs: those of the source.
    Of(Source),
    /// These, in this order.
    Listed(Vec<String>),
}

/// Trains a backbone from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pretrain {
    /// The network, as the stages have it that read the artifact.
    #[serde(flatten)]
    pub denoiser: Denoiser,
    /// Training images. File inputs: those of the source.
    pub data: Source,
    /// The latents that the network sees, which come from the input `latents` instead of images; `None` for pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents: Option<LatentSpace>,
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

/// Takes images to the moments of their latents: mean and logarithm of the variance of every element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Encode {
    /// The autoencoder.
    pub autoencoder: AutoencoderNetwork,
    /// The images. File inputs: those of the source.
    pub data: Source,
    /// Whether mirrored images are encoded, too.
    pub horizontal_flip: bool,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Decodes the first of some samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decode {
    /// The latents that they are.
    pub latents: LatentSpace,
    /// Number of samples, the first ones.
    pub count: usize,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Trains a method on top of a backbone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// The backbone's network.
    #[serde(flatten)]
    pub denoiser: Denoiser,
    /// What is trained.
    pub method: Method,
    /// Training images.
    pub data: Source,
    /// The latents that the network sees, which come from the input `latents` instead of images; `None` for pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents: Option<LatentSpace>,
    /// The diffusion process.
    pub diffusion: Diffusion,
    /// Iterations, batch, learning rate.
    pub optimisation: Optimisation,
    /// Seed of initial values, order, timesteps and noise.
    pub seed: u64,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Takes what a method trains from a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Import {
    /// The backbone's network.
    #[serde(flatten)]
    pub denoiser: Denoiser,
    /// What was trained on top of it.
    pub method: Method,
}

/// Draws samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The backbone's network.
    #[serde(flatten)]
    pub denoiser: Denoiser,
    /// What was trained on top of it.
    pub method: Method,
    /// The diffusion process.
    pub diffusion: Diffusion,
    /// The latents that samples are; `None` for pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents: Option<LatentSpace>,
    /// How it is run backwards.
    pub sampler: Sampler,
    /// Number of samples.
    pub count: usize,
    /// Seed of the initial noise and of the steps' noise: sample `i` is the same for every cell's method input.
    pub seed: u64,
    /// Standard deviation of noise put on the prompts, relative to their own root mean square; 0 for none (the positive control has more).
    pub prompt_noise: f64,
    /// The class of all samples, or the caption among the input `embeddings`; without it classes are drawn uniformly, and
    /// captions as often as the dataset has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Features of samples or of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// The network.
    pub extractor: FeatureNetwork,
    /// Real images; `None` where the input `samples` is read.
    pub data: Option<Source>,
    /// The latents that the samples are, which are decoded; `None` for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents: Option<LatentSpace>,
    /// Engine, precision and device.
    pub numerics: Numerics,
}

/// Which of an extractor's features are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// Pooled over the image: the Frechet distance's.
    #[default]
    Pooled,
    /// Inception's at every place of a middle layer: the sFID's.
    Spatial,
}

impl FeatureKind {
    /// For `skip_serializing_if`: keys from before there were others stand.
    fn is_pooled(&self) -> bool {
        *self == Self::Pooled
    }
}

/// Mean, covariance and its square root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Of which features.
    #[serde(default, skip_serializing_if = "FeatureKind::is_pooled")]
    pub of: FeatureKind,
    /// The network whose features others have summarised; `None` where it is done here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<FeatureNetwork>,
}

/// The distance between features and reference statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Name of the metric's column: `fd_<extractor>`.
    pub name: String,
    /// Number of half-size subsets, drawn without replacement, on which the distance is computed again.
    pub subsets: usize,
    /// Seed of the subsets, common to all cells.
    pub seed: u64,
    /// Of which features.
    #[serde(default, skip_serializing_if = "FeatureKind::is_pooled")]
    pub of: FeatureKind,
}

/// The distance at infinitely many samples (Chong & Forsyth 2020): a line over `1 / samples` through distances of parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extrapolation {
    /// Name of the number: that of the distance and `_infinity`.
    pub name: String,
    /// Samples of the smallest part.
    pub smallest: usize,
    /// Number of parts, their sizes evenly spaced up to all samples.
    pub points: usize,
    /// Seed of the parts, common to all cells.
    pub seed: u64,
}

/// Precision and recall of the samples' manifold (Kynkaanniemi et al. 2019): the numbers `precision` and `recall`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The neighbour that a ball reaches to.
    pub neighbours: usize,
}

/// The Inception score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InceptionScore {
    /// Name of the number: `inception_score` for Inception's published weights, else `is_<extractor>`.
    pub name: String,
    /// The network that made the features.
    pub extractor: FeatureNetwork,
    /// Samples of a split.
    pub split: usize,
}

/// Statistics of Pearson's correlation and of the cosine of all pairs of different samples: `correlation_max`,
/// `similarity_std` and so on, over values in [-1, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// Number of samples, the first ones.
    pub count: usize,
}

/// The gate's weights over the timesteps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activation {
    /// The backbone's network.
    #[serde(flatten)]
    pub denoiser: Denoiser,
    /// What was trained on top of it.
    pub method: Method,
    /// Number of timesteps, evenly spaced over the process, ends included.
    pub timesteps: usize,
    /// Length of the process.
    pub diffusion: Diffusion,
    /// Engine, precision and device.
    pub numerics: Numerics,
}
