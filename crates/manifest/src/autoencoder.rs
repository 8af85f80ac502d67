//! The autoencoder between images and the latents that a network sees: its shape, as written and as it enters a key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::extractor::WeightsFrom;
use crate::scale::Weights;

/// Shape of an autoencoder (Rombach et al. 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// Channels of an image.
    #[schemars(range(min = 1, max = 16384))]
    pub image_channels: usize,
    /// Channels of a latent.
    #[schemars(range(min = 1, max = 16384))]
    pub latent_channels: usize,
    /// Channels at each resolution, from the image's downwards; each step halves the side.
    #[schemars(length(min = 1), inner(range(min = 1, max = 16384)))]
    pub widths: Vec<usize>,
    /// Residual blocks per resolution of the encoder; the decoder has one more.
    #[schemars(range(min = 1, max = 64))]
    pub depth: usize,
    /// Groups of the normalisations; they divide the widths.
    #[schemars(range(min = 1, max = 16384))]
    pub groups: usize,
}

impl VaeConfig {
    /// The autoencoder of Stable Diffusion 1.x (`sd-vae-ft-ema` and `-mse`).
    pub fn stable_diffusion() -> Self {
        Self { image_channels: 3, latent_channels: 4, widths: vec![128, 256, 512, 512], depth: 2, groups: 32 }
    }

    /// Side of an image over that of its latent.
    pub fn downsampling(&self) -> usize {
        1_usize.checked_shl(self.widths.len() as u32 - 1).unwrap_or(usize::MAX)
    }
}

/// An autoencoder as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Autoencoder {
    /// Weights of a file.
    File(AutoencoderFile),
    /// Weights by formula, without a file: shows that everything runs; what it decodes are no photographs.
    Formula(AutoencoderFormula),
}

/// An autoencoder with a weight file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderFile {
    /// Its shape.
    pub shape: VaeConfig,
    /// Its weights, under the names of diffusers or of the original checkpoints.
    pub weights: Weights,
}

/// An autoencoder with weights by formula.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderFormula {
    /// Its shape.
    pub shape: VaeConfig,
}

impl Autoencoder {
    /// Its shape.
    pub fn shape(&self) -> &VaeConfig {
        match self {
            Self::File(file) => &file.shape,
            Self::Formula(formula) => &formula.shape,
        }
    }

    /// Its weight file, if it has one.
    pub fn weights(&self) -> Option<&Weights> {
        match self {
            Self::File(file) => Some(&file.weights),
            Self::Formula(_) => None,
        }
    }

    /// What enters a key; the file is an input.
    pub fn network(&self) -> AutoencoderNetwork {
        let weights = if self.weights().is_some() { WeightsFrom::File } else { WeightsFrom::Formula };
        AutoencoderNetwork { shape: self.shape().clone(), weights }
    }
}

/// An autoencoder as it enters a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderNetwork {
    /// Its shape.
    pub shape: VaeConfig,
    /// Where its weights come from: a file is the stage's input `autoencoder`.
    pub weights: WeightsFrom,
}

/// The latents that a network works on, as they enter a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentSpace {
    /// The autoencoder between images and them.
    pub autoencoder: AutoencoderNetwork,
    /// What they are multiplied with before the network sees them.
    pub scale_factor: f64,
}
