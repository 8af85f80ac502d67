//! The shape of a denoising UNet with cross-attention (Rombach et al. 2022), as written and as it enters a key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::extractor::WeightsFrom;

/// Shape of a UNet that is conditioned on captions: its image attends to their tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnetConfig {
    /// Side of the square image (or latent), in pixels; each resolution below the first halves it.
    #[schemars(range(min = 1, max = 16384))]
    pub image_size: usize,
    /// Channels that go in and come out.
    #[schemars(range(min = 1, max = 16384))]
    pub channels: usize,
    /// Channels at each resolution, from the latent's downwards; each step halves the side.
    #[schemars(length(min = 1), inner(range(min = 1, max = 16384)))]
    pub widths: Vec<usize>,
    /// Which of these resolutions attend to the context, on both sides; the middle always does.
    #[schemars(length(min = 1))]
    pub attending: Vec<bool>,
    /// Residual blocks per resolution on the way down; on the way up there is one more.
    #[schemars(range(min = 1, max = 64))]
    pub depth: usize,
    /// Width of the context: of a caption's token, as the recipe's `text` has it.
    #[schemars(range(min = 1, max = 16384))]
    pub context: usize,
    /// Attention heads `H` (diffusers calls this `attention_head_dim`, for historical reasons).
    #[schemars(range(min = 1, max = 16384))]
    pub heads: usize,
    /// Groups of the normalisations.
    #[schemars(range(min = 1, max = 16384))]
    pub groups: usize,
    /// Share of captions replaced by the empty text in training.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub label_dropout: f64,
}

impl UnetConfig {
    /// The UNet of Stable Diffusion 1.5 on the latents of 512x512 pixels: 859,520,964 parameters.
    pub fn stable_diffusion() -> Self {
        Self {
            image_size: 64,
            channels: 4,
            widths: vec![320, 640, 1280, 1280],
            attending: vec![true, true, true, false],
            depth: 2,
            context: 768,
            heads: 8,
            groups: 32,
            label_dropout: 0.1,
        }
    }

    /// Width of the timestep's embedding: four times the first width (1280 for Stable Diffusion).
    pub fn time_width(&self) -> usize {
        4 * self.widths.first().copied().unwrap_or(0)
    }

    /// Number of blocks that hooks see: down, one in the middle, up.
    pub fn blocks(&self) -> usize {
        2 * self.widths.len() + 1
    }

    /// What goes into each block, in the order in which they run, for a latent of `height` x `width`. A block on the way
    /// up is seen before the features of the way down are put beside its input.
    pub fn block_inputs(&self, height: usize, width: usize) -> Vec<BlockInput> {
        let last = self.widths.len().saturating_sub(1);
        let before = |level: usize| self.widths[level.saturating_sub(1)];
        let after = |level: usize| self.widths[(level + 1).min(last)];
        let at = |level: usize, channels: usize| {
            // Each convolution that halves rounds up.
            let side = |side: usize| side.div_ceil(1 << level);
            BlockInput { channels, height: side(height), width: side(width) }
        };
        let down = (0..=last).map(|level| at(level, before(level)));
        let middle = std::iter::once(at(last, self.widths[last]));
        let up = (0..=last).rev().map(|level| at(level, after(level)));
        down.chain(middle).chain(up).collect()
    }
}

/// The feature map that goes into a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockInput {
    /// Channels, the width `D` of its tokens.
    pub channels: usize,
    /// Rows of places.
    pub height: usize,
    /// Places in a row.
    pub width: usize,
}

impl BlockInput {
    /// Places `T`.
    pub fn tokens(self) -> usize {
        self.height * self.width
    }
}

/// A UNet as it enters a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetNetwork {
    /// Its shape.
    pub shape: UnetConfig,
    /// Where its weights come from: a file is the stage's input `backbone`, and the artifact of the stage that trains it.
    pub weights: WeightsFrom,
}
