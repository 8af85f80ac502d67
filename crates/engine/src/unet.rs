//! The weights of a UNet: a file, alone or among Stable Diffusion's networks, or a formula; and how many images it takes at once.

use std::path::Path;

use anyhow::Result;
use manifest::extractor::WeightsFrom;
use manifest::unet::{UnetConfig, UnetNetwork};
use models::formula::FORMULA_SEED;
use models::unet::{formula_weights, named_shapes};
use models::weights::{WeightFile, Weights, names::Family};

use crate::job::{EngineError, Job};

/// Numbers of a map below which a layer's arithmetic does not outweigh what starting it costs.
const SMALL: usize = 1 << 15;

/// How many images go through a network together: as many as give its widest map [`SMALL`] numbers, so that one does of Stable
/// Diffusion's. Sums over them depend on it, so it depends on the shape alone, and on no number of threads.
pub fn together(shape: &UnetConfig) -> usize {
    SMALL.div_ceil(shape.image_size.pow(2) * shape.widths.first().copied().unwrap_or(1))
}

/// The weights of `network`: the job's input `backbone`, unless they are a formula.
///
/// # Errors
/// The input is missing, damaged, or another network's.
pub fn weights(job: &Job, network: &UnetNetwork) -> Result<Weights, EngineError> {
    match network.weights {
        WeightsFrom::File => {
            Ok(open_file(job.input("backbone")?, &network.shape)?.read().map_err(anyhow::Error::from)?)
        }
        WeightsFrom::Formula => Ok(formula_weights(&network.shape, FORMULA_SEED).map_err(anyhow::Error::from)?),
    }
}

/// A file that holds a UNet's weights under any of their published names, alone or among other networks. No number is read.
///
/// # Errors
/// Names the file, and every tensor that it lacks or has in another shape.
pub fn open_file(path: &Path, shape: &UnetConfig) -> Result<WeightFile> {
    let mut file = WeightFile::open(path, None)?;
    file.translate(Family::Unet);
    file.keep(&named_shapes(shape)?)?;
    Ok(file)
}
