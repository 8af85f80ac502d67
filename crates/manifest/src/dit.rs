//! The shape of a diffusion transformer (DiT, Peebles & Xie 2023).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A DiT's shape. MLPs are 4 times as wide as the trunk; timestep features have 256 channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Side of the square image (or latent), in pixels.
    #[schemars(range(min = 1, max = 16384))]
    pub image_size: usize,
    /// Channels of the image (or latent).
    #[schemars(range(min = 1, max = 16384))]
    pub channels: usize,
    /// Side of a patch, in pixels.
    #[schemars(range(min = 1, max = 16384))]
    pub patch: usize,
    /// Width `D` of a token.
    #[schemars(range(min = 1, max = 16384))]
    pub hidden: usize,
    /// Number of blocks `L`.
    #[schemars(range(min = 1, max = 16384))]
    pub depth: usize,
    /// Attention heads; they divide the width.
    #[schemars(range(min = 1, max = 16384))]
    pub heads: usize,
    /// Number of classes; `None` without `text_width` is an unconditional model (one learned label, no null label).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub classes: Option<usize>,
    /// Width of the pooled text embeddings that condition it, through a linear layer in the place of the classes' table;
    /// that of the recipe's `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16384))]
    pub text_width: Option<usize>,
    /// Share of labels (or captions) replaced by the null label in training; conditional models only.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub label_dropout: f64,
    /// Whether the network predicts the variance too: twice the output channels.
    pub learn_sigma: bool,
}

/// Names, widths, depths and heads of the published sizes.
const SIZES: [(&str, usize, usize, usize); 4] =
    [("DiT-S", 384, 12, 6), ("DiT-B", 768, 12, 12), ("DiT-L", 1024, 24, 16), ("DiT-XL", 1152, 28, 16)];

impl DitConfig {
    /// The published network of a name such as `DiT-XL/2` (Peebles & Xie 2023, Table 1) on the latents of 256x256 pixels;
    /// `None` if there is none of that name.
    pub fn published(name: &str, classes: Option<usize>) -> Option<Self> {
        let (size, patch) = name.split_once('/')?;
        let &(_, hidden, depth, heads) = SIZES.iter().find(|(known, ..)| *known == size)?;
        let patch = [2, 4, 8].into_iter().find(|known| known.to_string() == patch)?;
        let label_dropout = if classes.is_some() { 0.1 } else { 0.0 };
        Some(Self {
            image_size: 32,
            channels: 4,
            patch,
            hidden,
            depth,
            heads,
            classes,
            text_width: None,
            label_dropout,
            learn_sigma: true,
        })
    }

    /// Image tokens `T = (image_size / patch)^2`.
    pub fn tokens(&self) -> usize {
        (self.image_size / self.patch).pow(2)
    }

    /// Numbers of an image (or latent).
    pub fn elements(&self) -> usize {
        self.channels * self.image_size * self.image_size
    }

    /// Channels of the output.
    pub fn out_channels(&self) -> usize {
        self.channels * if self.learn_sigma { 2 } else { 1 }
    }

    /// Whether anything but the timestep conditions it.
    pub fn is_conditional(&self) -> bool {
        self.classes.is_some() || self.text_width.is_some()
    }

    /// The class-conditional network that a text-conditional one is over so many captions: each is a class, the null
    /// caption the null label.
    pub fn over_captions(&self, captions: usize) -> Self {
        Self { classes: Some(captions), text_width: None, ..self.clone() }
    }

    /// Rows of the label embedding table: the classes and a null label, or the one label of an unconditional model.
    pub fn label_rows(&self) -> usize {
        self.classes.map_or(1, |n| n + usize::from(self.label_dropout > 0.0))
    }
}
