//! How weights are trained: the recipe of a backbone or of a feature extractor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::autoencoder::{Autoencoder, LatentSpace};
use crate::dataset::Dataset;
use crate::denoiser::Denoiser;
use crate::dit::DitConfig;
use crate::extractor::{ExtractorConfig, WeightsFrom};
use crate::scale::{Diffusion, Numerics, Optimisation};
use crate::text::TextEncoder;
use crate::unet::{UnetConfig, UnetNetwork};

/// `experiments/*-backbone.yaml` and `experiments/*-extractor.yaml`; its name is that of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "recipe", rename_all = "snake_case", deny_unknown_fields)]
pub enum Recipe {
    /// A diffusion transformer from scratch.
    Backbone(BackboneRecipe),
    /// A UNet: trained from scratch, or a scale names its weights, or they are a formula.
    Unet(UnetRecipe),
    /// A feature extractor from scratch.
    Extractor(ExtractorRecipe),
}

impl Recipe {
    /// How the backbone that it describes is trained; `None` of one that is not, and of an extractor.
    pub(crate) fn pretraining(&self) -> Option<Pretraining> {
        match self {
            Self::Backbone(recipe) => Some(recipe.training()),
            Self::Unet(recipe) => recipe.training.clone(),
            Self::Extractor(_) => None,
        }
    }
}

/// A diffusion transformer from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackboneRecipe {
    /// What it is.
    pub title: String,
    /// What the network sees.
    pub space: Space,
    /// The network.
    pub dit: DitConfig,
    /// What turns captions into the vectors that condition the network (`dit.text_width`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Box<TextEncoder>>,
    /// Training images.
    pub data: Dataset,
    /// The diffusion process; further training and sampling use the same.
    pub diffusion: Diffusion,
    /// Iterations, batch, learning rate.
    pub optimisation: Optimisation,
    /// Half-life of the average of the weights that is kept, in iterations; 0 keeps the last weights.
    #[schemars(range(min = 0.0))]
    pub ema_halflife_iterations: f64,
    /// Seed of weights, order, timesteps and noise.
    pub seed: u64,
    /// Engine, device, precision.
    pub numerics: Numerics,
}

/// A UNet: trained from scratch, or a scale names its weights, or they are a formula.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnetRecipe {
    /// What it is.
    pub title: String,
    /// What the network sees.
    pub space: Space,
    /// The network.
    pub unet: UnetConfig,
    /// What turns captions into the sequences of vectors that the network attends to (`unet.context`).
    pub text: Box<TextEncoder>,
    /// The diffusion process of its training; further training and sampling use the same.
    pub diffusion: Diffusion,
    /// How it is trained where a scale names no weights; without it they are a formula.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Pretraining>,
}

/// How a denoising network is trained from scratch. The recipe of a diffusion transformer says it among its other keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pretraining {
    /// Training images.
    pub data: Dataset,
    /// Iterations, batch, learning rate.
    pub optimisation: Optimisation,
    /// Half-life of the average of the weights that is kept, in iterations; 0 keeps the last weights.
    #[schemars(range(min = 0.0))]
    pub ema_halflife_iterations: f64,
    /// Seed of weights, order, timesteps and noise.
    pub seed: u64,
    /// Engine, device, precision; a UNet is run by the reference engine in 32 bits, whatever stands here.
    pub numerics: Numerics,
}

/// What is patched, whoever trained it.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// The network.
    pub denoiser: Denoiser,
    /// What it sees.
    pub space: Space,
    /// What turns captions into what conditions it.
    pub text: Option<Box<TextEncoder>>,
    /// The diffusion process.
    pub diffusion: Diffusion,
}

impl BackboneRecipe {
    /// The backbone that it describes.
    pub fn base(&self) -> Base {
        Base {
            denoiser: Denoiser::Dit(self.dit.clone()),
            space: self.space.clone(),
            text: self.text.clone(),
            diffusion: self.diffusion.clone(),
        }
    }

    /// How it is trained.
    pub fn training(&self) -> Pretraining {
        Pretraining {
            data: self.data.clone(),
            optimisation: self.optimisation.clone(),
            ema_halflife_iterations: self.ema_halflife_iterations,
            seed: self.seed,
            numerics: self.numerics.clone(),
        }
    }
}

impl UnetRecipe {
    /// The backbone that it describes; its weights are a file where a scale names one (`shipped`), or the artifact of its training.
    pub fn base(&self, shipped: bool) -> Base {
        let weights = if shipped || self.training.is_some() { WeightsFrom::File } else { WeightsFrom::Formula };
        Base {
            denoiser: Denoiser::Unet(UnetNetwork { shape: self.unet.clone(), weights }),
            space: self.space.clone(),
            text: Some(self.text.clone()),
            diffusion: self.diffusion.clone(),
        }
    }
}

/// What a denoising network sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Space {
    /// Pixels in [-1, 1].
    Pixels(Pixels),
    /// Latents of an autoencoder.
    Latents(Latents),
}

/// Pixels in [-1, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pixels {}

/// Latents of an autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latents {
    /// The autoencoder.
    pub autoencoder: Autoencoder,
    /// What latents are multiplied with before the network sees them, so that their variance is about one (Stable
    /// Diffusion: 0.18215).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub scale_factor: f64,
}

impl Space {
    /// The latents as they enter a key; `None` for pixels.
    pub fn latents(&self) -> Option<LatentSpace> {
        match self {
            Self::Pixels(_) => None,
            Self::Latents(Latents { autoencoder, scale_factor }) => {
                Some(LatentSpace { autoencoder: autoencoder.network(), scale_factor: *scale_factor })
            }
        }
    }
}

/// A feature extractor from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtractorRecipe {
    /// What it is.
    pub title: String,
    /// The network.
    pub extractor: ExtractorConfig,
    /// Training images.
    pub data: Dataset,
    /// Images after the training ones on which it is judged.
    #[schemars(range(min = 1))]
    pub held_out: usize,
    /// Iterations, batch, learning rate.
    pub optimisation: Optimisation,
    /// Seed of weights and order.
    pub seed: u64,
    /// Engine, device, precision.
    pub numerics: Numerics,
}
