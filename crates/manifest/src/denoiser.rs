//! The denoising network that is patched, as it enters a key: a diffusion transformer or a UNet.

use serde::{Deserialize, Serialize};

use crate::dit::DitConfig;
use crate::scale::{Dtype, Engine, Numerics};
use crate::unet::UnetNetwork;

/// A denoising network. In a stage's parameters it stands under its own name, `dit` or `unet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denoiser {
    /// A diffusion transformer.
    Dit(DitConfig),
    /// A UNet.
    Unet(UnetNetwork),
}

impl Denoiser {
    /// Its key in a recipe.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Dit(_) => "dit",
            Self::Unet(_) => "unet",
        }
    }

    /// It, if it is a diffusion transformer.
    pub fn dit(&self) -> Option<&DitConfig> {
        match self {
            Self::Dit(dit) => Some(dit),
            Self::Unet(_) => None,
        }
    }

    /// Side of the square image (or latent).
    pub fn image_size(&self) -> usize {
        match self {
            Self::Dit(dit) => dit.image_size,
            Self::Unet(unet) => unet.shape.image_size,
        }
    }

    /// Channels of the image (or latent).
    pub fn channels(&self) -> usize {
        match self {
            Self::Dit(dit) => dit.channels,
            Self::Unet(unet) => unet.shape.channels,
        }
    }

    /// Numbers of an image (or latent).
    pub fn elements(&self) -> usize {
        self.channels() * self.image_size() * self.image_size()
    }

    /// Whether it predicts the variance too.
    pub fn learn_sigma(&self) -> bool {
        self.dit().is_some_and(|dit| dit.learn_sigma)
    }

    /// Number of its classes, if labels condition it.
    pub fn classes(&self) -> Option<usize> {
        self.dit().and_then(|dit| dit.classes)
    }

    /// Width of the vectors of a caption that condition it, if text does.
    pub fn text_width(&self) -> Option<usize> {
        match self {
            Self::Dit(dit) => dit.text_width,
            Self::Unet(unet) => Some(unet.shape.context),
        }
    }

    /// Whether anything but the timestep conditions it.
    pub fn is_conditional(&self) -> bool {
        self.classes().is_some() || self.text_width().is_some()
    }

    /// Share of labels (or captions) replaced by the null label in training.
    pub fn label_dropout(&self) -> f64 {
        match self {
            Self::Dit(dit) => dit.label_dropout,
            Self::Unet(unet) => unet.shape.label_dropout,
        }
    }

    /// Blocks that may have prompts.
    pub fn blocks(&self) -> usize {
        match self {
            Self::Dit(dit) => dit.depth,
            Self::Unet(unet) => unet.shape.blocks(),
        }
    }

    /// Image tokens; of a UNet the places of its largest map.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Dit(dit) => dit.tokens(),
            Self::Unet(unet) => unet.shape.image_size.pow(2),
        }
    }

    /// What its stages run with where a scale says `numerics`: the fast engine knows no UNet, so the reference engine runs
    /// it in 32 bits, and its records say so.
    pub fn numerics(&self, numerics: &Numerics) -> Numerics {
        match self {
            Self::Dit(_) => numerics.clone(),
            Self::Unet(_) => Numerics { engine: Engine::Reference, device: numerics.device, dtype: Dtype::F32 },
        }
    }
}
