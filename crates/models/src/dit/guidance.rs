//! Classifier-free guidance (Ho & Salimans 2022).

use candle_core::{Result, Tensor};
use manifest::scale::GuidanceChannels;

use super::{Condition, Dit};
use crate::Hooks;

/// How far predictions are pushed away from those without a label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// Scale `s`; 1 is none.
    pub scale: f64,
    /// Which channels of the predicted noise are guided; the others, and the variance, are those with the label.
    pub channels: GuidanceChannels,
}

impl Guidance {
    /// How many of `noise_channels` channels are guided, from the first on.
    pub fn guided(&self, noise_channels: usize) -> usize {
        match self.channels {
            GuidanceChannels::FirstThree => noise_channels.min(3),
            GuidanceChannels::All => noise_channels,
        }
    }

    /// `without + s (with - without)` in the guided channels, `with` in the others.
    ///
    /// # Shapes
    /// `with`, `without` and the result `[B, out channels, side, side]`; `noise_channels` of them predict noise.
    ///
    /// # Errors
    /// Those of candle.
    pub fn combine(&self, with: &Tensor, without: &Tensor, noise_channels: usize) -> Result<Tensor> {
        let guided = self.guided(noise_channels);
        let noise = without.narrow(1, 0, guided)?;
        let noise = (&noise + ((with.narrow(1, 0, guided)? - &noise)? * self.scale)?)?;
        let rest = with.dim(1)? - guided;
        if rest == 0 { Ok(noise) } else { Tensor::cat(&[noise, with.narrow(1, guided, rest)?], 1) }
    }
}

impl Dit {
    /// The guided prediction for `x`. The reference carries a second copy of the samples through the whole chain and
    /// drops it in the end; here it does not exist.
    ///
    /// # Shapes
    /// `x` `[B, C, side, side]`, `condition` (and what `hooks` were made from) `2 B` rows: first with the labels, then
    /// with the null label. The result is `[B, out channels, side, side]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward_with_guidance(
        &self,
        x: &Tensor,
        condition: &Condition,
        hooks: &dyn Hooks,
        guidance: Guidance,
    ) -> Result<Tensor> {
        let both = self.forward(&Tensor::cat(&[x, x], 0)?, condition, hooks)?;
        let b = x.dim(0)?;
        guidance.combine(&both.narrow(0, 0, b)?, &both.narrow(0, b, b)?, self.config().channels)
    }
}
