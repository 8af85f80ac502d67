//! The denoising UNet of Stable Diffusion 1.x (Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion
//! Models", CVPR 2022), under the tensor names of diffusers.
//!
//! [`Hooks`] see the input of each block as tokens: the blocks on the way down, the one in the middle, those on the way
//! up.

mod cost;
mod formula;
#[cfg(test)]
mod goldens;
mod init;
mod patch;
mod stage;
mod transformer;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;

use crate::Hooks;
use crate::builder::{builder, tensors_of};
use crate::dit::embed::timestep_features;
use crate::layers::{Convolution, FeatureMap, GroupNorm, Linear, Window};
use crate::weights::Tensors;
use stage::{Down, EPS, Middle, Surroundings, Up};

pub use cost::{Cost, cost};
pub use formula::formula_weights;
pub use init::{initial_weights, kaiming_uniform};
pub use manifest::unet::{BlockInput, UnetConfig};
pub use patch::PatchShape;

/// What a prediction is conditioned on.
#[derive(Clone, Debug)]
pub struct UnetCondition {
    /// Embedding of the timestep, `[B, its width]`.
    pub t: Tensor,
    /// What the image attends to, `[B, keys, its width]`: the tokens of a caption.
    pub context: Tensor,
}

/// The network.
#[derive(Debug)]
pub struct Unet {
    config: UnetConfig,
    time: [Linear; 2],
    first: Convolution,
    down: Vec<Down>,
    middle: Middle,
    up: Vec<Up>,
    norm: GroupNorm,
    last: Convolution,
}

impl Unet {
    /// Builds the network on `tensors`, which it shares: where they are variables, gradients reach them.
    ///
    /// # Errors
    /// A tensor is missing or has another shape, or the configuration fits no network.
    pub fn new(config: &UnetConfig, tensors: &Tensors) -> Result<Self> {
        Self::read(config, &builder(tensors)?)
    }

    fn read(config: &UnetConfig, vb: &VarBuilder) -> Result<Self> {
        let levels = config.widths.len();
        if levels == 0 || config.attending.len() != levels {
            candle_core::bail!("{levels} widths and {} switches for attention", config.attending.len());
        }
        let (top, bottom, three) = (config.widths[0], config.widths[levels - 1], Window::same(3, 3));
        let time = config.time_width();
        let up = |i: usize| Up::new(config, levels - 1 - i, &vb.pp(format!("up_blocks.{i}")));
        Ok(Self {
            first: Convolution::new(config.channels, top, three, &vb.pp("conv_in"))?,
            time: [
                Linear::read(top, time, true, &vb.pp("time_embedding.linear_1"))?,
                Linear::read(time, time, true, &vb.pp("time_embedding.linear_2"))?,
            ],
            down: (0..levels)
                .map(|level| Down::new(config, level, &vb.pp(format!("down_blocks.{level}"))))
                .collect::<Result<_>>()?,
            middle: Middle::new(config, bottom, &vb.pp("mid_block"))?,
            up: (0..levels).map(up).collect::<Result<_>>()?,
            norm: GroupNorm::new(top, config.groups, EPS, &vb.pp("conv_norm_out"))?,
            last: Convolution::new(top, config.channels, three, &vb.pp("conv_out"))?,
            config: config.clone(),
        })
    }

    /// Its shape.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// Embeds timesteps: `linear_2(silu(linear_1(features)))` with the sinusoidal features of the DiT.
    ///
    /// # Shapes
    /// `t` `[B]` (any float) to `[B, time width]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn embed(&self, t: &Tensor) -> Result<Tensor> {
        let features = timestep_features(t, self.config.widths[0])?.to_dtype(self.time[0].weight().dtype())?;
        self.time[1].forward(&self.time[0].forward(&features)?.silu()?)
    }

    /// What a prediction at timesteps `t` under `context` is conditioned on.
    ///
    /// # Shapes
    /// `t` `[B]` (any float), `context` `[B, keys, its width]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn condition(&self, t: &Tensor, context: &Tensor) -> Result<UnetCondition> {
        Ok(UnetCondition { t: self.embed(t)?, context: context.clone() })
    }

    /// Predicts the noise in `x`.
    ///
    /// # Shapes
    /// `x` and the result `[B, C, height, width]`; both sides must be multiples of `2^(resolutions - 1)`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, condition: &UnetCondition, hooks: &dyn Hooks) -> Result<Tensor> {
        let around = Surroundings { t: &condition.t, context: &condition.context };
        let hook = |block: usize, x: FeatureMap| {
            Ok::<_, candle_core::Error>(x.with(hooks.before_block(block, x.values.clone())?))
        };
        let mut x = self.first.forward(&FeatureMap::from_image(x)?)?;
        let mut skips = vec![x.clone()];
        for (i, down) in self.down.iter().enumerate() {
            x = down.forward(hook(i, x)?, around, &mut skips)?;
        }
        x = self.middle.forward(&hook(self.down.len(), x)?, around)?;
        for (i, up) in self.up.iter().enumerate() {
            x = up.forward(hook(self.down.len() + 1 + i, x)?, around, &mut skips)?;
        }
        x.values = hooks.after_blocks(x.values)?;
        x = self.norm.forward(&x)?;
        x.values = x.values.silu()?;
        self.last.forward(&x)?.to_image()
    }
}

/// Names and shapes of all tensors.
///
/// # Errors
/// The configuration fits no network.
pub fn named_shapes(config: &UnetConfig) -> Result<Vec<(String, Vec<usize>)>> {
    tensors_of(|vb| Unet::read(config, vb))
}
