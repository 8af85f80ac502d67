//! The autoencoder of Stable Diffusion (Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models",
//! CVPR 2022): images to latents of an eighth of their side and back, under the tensor names of diffusers.

mod coder;
mod formula;
#[cfg(test)]
mod goldens;
mod moments;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::builder::{builder, tensors_of};
use crate::layers::{Convolution, Directly, Evaluator, FeatureMap, Window};
use crate::weights::Tensors;
use coder::{Decoder, Encoder};

pub use formula::formula_weights;
pub use manifest::autoencoder::VaeConfig;
pub use moments::Moments;

/// The factor that gives the latents of Stable Diffusion's autoencoder a variance of about one.
pub const LATENT_SCALE: f64 = 0.18215;

/// The autoencoder.
#[derive(Debug)]
pub struct Vae {
    encoder: Encoder,
    decoder: Decoder,
    /// Around the latent, 1x1.
    quant: Convolution,
    post_quant: Convolution,
}

impl Vae {
    /// Builds the network on `tensors`, which it shares.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(config: &VaeConfig, tensors: &Tensors) -> Result<Self> {
        Self::read(config, &builder(tensors)?)
    }

    fn read(config: &VaeConfig, vb: &VarBuilder) -> Result<Self> {
        let latent = config.latent_channels;
        let point = |channels, name: &str| Convolution::new(channels, channels, Window::same(1, 1), &vb.pp(name));
        Ok(Self {
            encoder: Encoder::new(config, &vb.pp("encoder"))?,
            decoder: Decoder::new(config, &vb.pp("decoder"))?,
            quant: point(2 * latent, "quant_conv")?,
            post_quant: point(latent, "post_quant_conv")?,
        })
    }

    /// The distribution of an image's latent (not scaled by [`LATENT_SCALE`]).
    ///
    /// # Shapes
    /// `x` `[B, image channels, height, width]` in [-1, 1] to moments of `[B, latent channels, ..]`, each side halved
    /// (rounding down) once per resolution but the last.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn encode(&self, x: &Tensor) -> Result<Moments> {
        let coded = self.encoder.forward(&mut Directly, &FeatureMap::from_image(x)?)?;
        Moments::new(&self.quant.forward(&coded)?.to_image()?)
    }

    /// The image of a latent (divided by [`LATENT_SCALE`]); values may leave [-1, 1].
    ///
    /// # Shapes
    /// `[B, latent channels, height, width]` to `[B, image channels, ..]`, each side doubled once per resolution but the
    /// last.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn decode(&self, latent: &Tensor) -> Result<Tensor> {
        self.decoded(&mut Directly, &FeatureMap::from_image(latent)?)?.to_image()
    }

    /// [`Self::decode`] by an evaluator.
    ///
    /// # Errors
    /// Those of the evaluator.
    pub fn decoded<E: Evaluator>(&self, evaluator: &mut E, latent: &E::Map) -> Result<E::Map> {
        let latent = evaluator.convolve(&self.post_quant, latent)?;
        self.decoder.forward(evaluator, &latent)
    }
}

/// Names and shapes of all tensors.
///
/// # Errors
/// The configuration fits no network.
pub fn named_shapes(config: &VaeConfig) -> Result<Vec<(String, Vec<usize>)>> {
    tensors_of(|vb| Vae::read(config, vb))
}
