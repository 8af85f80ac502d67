//! The half of a job's autoencoder that makes images of latents: by candle, or by the fast engine on a GPU.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use data::Images;
use manifest::autoencoder::{LatentSpace, VaeConfig};
use manifest::scale::{Engine, Numerics};
use models::vae::Vae;
use rayon::prelude::*;

use crate::autoencoder;
use crate::job::{self, EngineError, Job};
use crate::on_gpu::{self, DECODED, Gpu, MachineDecoder};

/// A decoder with its weights, for the latents of a space.
pub(crate) struct Decoder {
    shape: VaeConfig,
    /// Side of a latent.
    side: usize,
    /// What latents are multiplied with before they are decoded.
    factor: f64,
    by: By,
}

/// What decodes.
enum By {
    /// Candle: one image at a time, so that no result depends on which others are beside it; several threads, an image each.
    Candle(Box<Vae>, Device),
    /// A GPU, in batches.
    Machine(Box<MachineDecoder<Gpu>>),
}

impl Decoder {
    /// Reads the weights of the autoencoder of `space`, for latents of `side`.
    ///
    /// # Errors
    /// The input is missing, damaged, or another network's; there is no such GPU, or the fast engine does not do it there.
    pub(crate) fn open(job: &Job, space: &LatentSpace, side: usize, numerics: &Numerics) -> Result<Self, EngineError> {
        let (network, factor) = (&space.autoencoder, 1.0 / space.scale_factor);
        let shape = network.shape.clone();
        let by = match (numerics.engine, job.device) {
            (Engine::Fast, job::Device::Cuda(number)) => {
                let vae = autoencoder::read(job, network, &Device::Cpu)?;
                let decoder = MachineDecoder::new(on_gpu::open(number)?, &vae, &shape, side, numerics.dtype)?;
                By::Machine(Box::new(decoder))
            }
            _ => {
                let device = job.tensor_device()?;
                By::Candle(Box::new(autoencoder::read(job, network, &device)?), device)
            }
        };
        Ok(Self { shape, side, factor, by })
    }

    /// How many latents are best decoded at once.
    pub(crate) fn at_once(&self) -> usize {
        match self.by {
            By::Candle(..) => rayon::current_num_threads(),
            By::Machine(_) => DECODED,
        }
    }

    /// Channels and side of an image.
    pub(crate) fn image(&self) -> (usize, usize) {
        (self.shape.image_channels, self.side * self.shape.downsampling())
    }

    /// The images of latents `[n, C, side, side]`.
    ///
    /// # Errors
    /// Those of candle, or of the machine.
    pub(crate) fn decode(&mut self, latents: &[f32]) -> Result<Images> {
        let ((channels, image_side), latent_channels, side) = (self.image(), self.shape.latent_channels, self.side);
        let factor = self.factor;
        let pixels = match &mut self.by {
            By::Candle(vae, device) => {
                let decode = |latent: &[f32]| -> Result<Vec<u8>> {
                    let latent = Tensor::from_slice(latent, (1, latent_channels, side, side), device)?;
                    let image: Vec<f32> = vae.decode(&latent.affine(factor, 0.0)?)?.flatten_all()?.to_vec1()?;
                    Ok(Images::from_normalised(channels, image_side, &image).pixels)
                };
                let parts = latents.par_chunks_exact(latent_channels * side * side).map(decode);
                parts.collect::<Result<Vec<_>>>().map(|parts| parts.concat())
            }
            By::Machine(decoder) => {
                let latents: Vec<f32> = latents.iter().map(|value| value * factor as f32).collect();
                let images = decoder.decode(&latents);
                images.map(|images| Images::from_normalised(channels, image_side, &images).pixels)
            }
        };
        Ok(Images::new(channels, image_side, pixels.context("cannot decode the samples")?))
    }
}
