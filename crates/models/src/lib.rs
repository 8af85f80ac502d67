//! Denoisers and feature extractors in candle, and the weight files they are read from.
//!
//! A patch changes a denoiser through [`Hooks`] only: there is one model, whatever is patched into it.
//! Everything works in `f32` and `f64` and on any device, and everything is differentiable.
//!
//! Letters of all shapes: `B` batch, `T` image tokens, `N` prompts, `D` width, `H` heads, `L` blocks, `C` channels.

pub mod architecture;
pub mod builder;
pub mod clip;
pub mod count;
pub mod dit;
pub mod extractor;
mod formula;
pub mod inception;
pub mod layers;
pub mod unet;
pub mod vae;
pub mod weights;

pub use dit::{Condition, Dit};

use candle_core::{Result, Tensor};

/// What a patch may do to a denoiser made of blocks. Both functions keep the batch and the width.
pub trait Hooks {
    /// Sees and may replace the input of block `block`, `[B, tokens, D]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor>;

    /// Sees and may replace the output of the last block; `T` tokens must come out.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn after_blocks(&self, x: Tensor) -> Result<Tensor>;
}

/// No patch.
#[derive(Clone, Copy, Debug)]
pub struct Unpatched;

impl Hooks for Unpatched {
    fn before_block(&self, _: usize, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}
