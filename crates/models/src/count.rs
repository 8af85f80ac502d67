//! Exact numbers of parameters, from the definitions that build the networks: no weight is made.
//!
//! What a patch adds is counted by `patches::count`.

use candle_core::Result;
use manifest::dit::DitConfig;

use crate::clip::ClipTextConfig;
use crate::unet::UnetConfig;
use crate::vae::VaeConfig;
use crate::{clip, dit, inception, unet, vae};

/// Parameters of a diffusion transformer, its fixed position embedding among them.
pub fn of_dit(config: &DitConfig) -> usize {
    dit::elements(&dit::named_shapes(config))
}

/// Parameters of a denoising UNet.
///
/// # Errors
/// The configuration fits no network.
pub fn of_unet(config: &UnetConfig) -> Result<usize> {
    Ok(dit::elements(&unet::named_shapes(config)?))
}

/// Parameters of an autoencoder.
///
/// # Errors
/// The configuration fits no network.
pub fn of_vae(config: &VaeConfig) -> Result<usize> {
    Ok(dit::elements(&vae::named_shapes(config)?))
}

/// Parameters of CLIP's text encoder.
///
/// # Errors
/// The configuration fits no network.
pub fn of_clip_text(config: &ClipTextConfig) -> Result<usize> {
    Ok(dit::elements(&clip::named_shapes(config)?))
}

/// Parameters of Inception v3; the statistics of its normalisations are none.
///
/// # Errors
/// Those of candle.
pub fn of_inception() -> Result<usize> {
    let mut shapes = inception::named_shapes()?;
    shapes.retain(|(name, _)| !name.ends_with(".running_mean") && !name.ends_with(".running_var"));
    Ok(dit::elements(&shapes))
}
