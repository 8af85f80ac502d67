//! The autoencoder of a job: images to moments (the way back: `decoder.rs`). One image at a time, so that no result depends on which
//! others are beside it, and the widest layers of few are in memory; several threads, an image each.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use data::Images;
use manifest::autoencoder::{AutoencoderNetwork, VaeConfig};
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
        Ok(Self { vae: read(job, network, &device)?, shape, device })
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
}

/// The network with its weights: the job's input `autoencoder`, unless they are a formula.
///
/// # Errors
/// The input is missing, damaged, or another network's.
pub(crate) fn read(job: &Job, network: &AutoencoderNetwork, device: &Device) -> Result<Vae, EngineError> {
    let shape = &network.shape;
    let weights = match network.weights {
        WeightsFrom::File => open_file(job.input("autoencoder")?, shape)?.read().map_err(anyhow::Error::from)?,
        WeightsFrom::Formula => vae::formula_weights(shape, FORMULA_SEED).map_err(anyhow::Error::from)?,
    };
    let vae = weights::constants(&weights, DType::F32, device).and_then(|tensors| Vae::new(shape, &tensors));
    Ok(vae.map_err(anyhow::Error::from)?)
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
