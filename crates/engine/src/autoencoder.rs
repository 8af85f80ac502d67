//! The autoencoder of a job: images to moments, latents to images. One image at a time, so that no result depends on which
//! others are beside it, and the widest layers of few are in memory; several threads, an image each.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use data::Images;
use manifest::autoencoder::{AutoencoderNetwork, LatentSpace, VaeConfig};
use manifest::extractor::WeightsFrom;
use models::formula::FORMULA_SEED;
use models::vae::{self, Vae};
use models::weights::{self, WeightFile};
use rayon::prelude::*;

use crate::job::{EngineError, Job};

/// An autoencoder with its weights.
pub(crate) struct Autoencoder {
    vae: Vae,
    shape: VaeConfig,
    device: Device,
}

impl Autoencoder {
    /// Reads the weights of `network`, the job's input `autoencoder`, unless they are a formula.
    ///
    /// # Errors
    /// The input is missing, damaged, or another network's.
    pub(crate) fn open(job: &Job, network: &AutoencoderNetwork) -> Result<Self, EngineError> {
        let (shape, device) = (network.shape.clone(), job.tensor_device()?);
        let weights = match network.weights {
            WeightsFrom::File => open_file(job.input("autoencoder")?, &shape)?.read().map_err(anyhow::Error::from)?,
            WeightsFrom::Formula => vae::formula_weights(&shape, FORMULA_SEED).map_err(anyhow::Error::from)?,
        };
        let vae = weights::constants(&weights, DType::F32, &device).and_then(|tensors| Vae::new(&shape, &tensors));
        Ok(Self { vae: vae.map_err(anyhow::Error::from)?, shape, device })
    }

    /// Its shape.
    pub(crate) fn shape(&self) -> &VaeConfig {
        &self.shape
    }

    /// Means and logarithms of variances of `images`, `[n, orientations, C, side, side]` each: as they are, and mirrored if
    /// `flips`.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn encode(&self, images: &Images, flips: bool) -> Result<[Vec<f32>; 2]> {
        let orientations = if flips { &[false, true][..] } else { &[false] };
        let all: Vec<(usize, bool)> =
            (0..images.len()).flat_map(|i| orientations.iter().map(move |&f| (i, f))).collect();
        let encode = |&(i, flip): &(usize, bool)| -> Result<[Vec<f32>; 2]> {
            let mut x = vec![0.0; images.elements()];
            images.normalised(i, flip, &mut x);
            let shape = (1, images.channels, images.side, images.side);
            let moments = self.vae.encode(&Tensor::from_vec(x, shape, &self.device)?)?;
            let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1();
            Ok([values(&moments.mean)?, values(&moments.log_variance)?])
        };
        let parts = all.par_iter().map(encode).collect::<Result<Vec<_>>>().context("cannot encode the images")?;
        let mut moments = [Vec::new(), Vec::new()];
        for part in parts {
            moments.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
        }
        Ok(moments)
    }

    /// The images of latents of `space`, `[n, C, side, side]`.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn decode(&self, latents: &[f32], side: usize, space: &LatentSpace) -> Result<Images> {
        let (channels, factor) = (self.shape.latent_channels, 1.0 / space.scale_factor);
        let decode = |latent: &[f32]| -> Result<Vec<u8>> {
            let latent = Tensor::from_slice(latent, (1, channels, side, side), &self.device)?.affine(factor, 0.0)?;
            let image: Vec<f32> = self.vae.decode(&latent)?.flatten_all()?.to_vec1()?;
            Ok(Images::from_normalised(self.shape.image_channels, side * self.shape.downsampling(), &image).pixels)
        };
        let parts = latents.par_chunks_exact(channels * side * side).map(decode).collect::<Result<Vec<_>>>();
        let pixels = parts.context("cannot decode the samples")?.concat();
        Ok(Images::new(self.shape.image_channels, side * self.shape.downsampling(), pixels))
    }
}

/// A file that holds an autoencoder's weights under any of their published names, alone or among other networks. No number
/// is read.
///
/// # Errors
/// Names the file, and every tensor that it lacks or has in another shape.
pub(crate) fn open_file(path: &Path, shape: &VaeConfig) -> Result<WeightFile> {
    let mut file = WeightFile::open(path, None)?;
    file.translate(weights::names::Family::Vae);
    file.keep(&vae::named_shapes(shape)?)?;
    Ok(file)
}
