//! Who looks at images for the stage `features`: candle, or the fast engine on a GPU.

use anyhow::{Context, Result};
use candle_core::Device;
use data::Images;
use gpu::Size;
use manifest::extractor::FeatureNetwork;
use manifest::scale::Engine;
use manifest::stage;
use models::inception::{POOLED, SIDE, SPATIAL};
use rayon::prelude::*;

use crate::extractor::{PART, pixels};
use crate::features::{Judge, Seen, coloured};
use crate::job::{self, EngineError, Job};
use crate::on_gpu::{self, Gpu, LOOKED_AT, MachineInception};

/// A network of features, where it runs.
pub(crate) enum Sight {
    /// Candle: some images at a time on each thread.
    Candle(Judge, Device),
    /// Inception on a GPU, in large batches.
    Machine(Box<MachineInception<Gpu>>),
}

impl Sight {
    /// Reads the weights of the stage's network, for images of `side`.
    ///
    /// # Errors
    /// As [`Judge::open`]; there is no such GPU, or it is too small.
    pub(crate) fn open(job: &Job, stage: &stage::Features, side: usize) -> Result<Self, EngineError> {
        if let (Engine::Fast, job::Device::Cuda(number), FeatureNetwork::Inception(_)) =
            (stage.numerics.engine, job.device, &stage.extractor)
            && let Judge::Inception(network) = Judge::open(job, &stage.extractor, &Device::Cpu)?
        {
            let (gpu, size) = (on_gpu::open(number)?, Size { height: side, width: side, channels: 3 });
            let inception = MachineInception::new(gpu, &network, size, SIDE, LOOKED_AT)?;
            return Ok(Self::Machine(Box::new(inception)));
        }
        let device = job.tensor_device()?;
        Ok(Self::Candle(Judge::open(job, &stage.extractor, &device)?, device))
    }

    /// Numbers of an image's pooled features, and of its spatial ones.
    pub(crate) fn widths(&self) -> [usize; 2] {
        match self {
            Self::Candle(judge, _) => judge.widths(),
            Self::Machine(_) => [POOLED, SPATIAL],
        }
    }

    /// How many images it sees at once.
    pub(crate) fn at_once(&self) -> usize {
        match self {
            Self::Candle(..) => PART,
            Self::Machine(_) => LOOKED_AT,
        }
    }

    /// Features of images, pooled ones and spatial ones.
    ///
    /// # Errors
    /// The images are of another size than the network's; those of the machine.
    pub(crate) fn see(&mut self, images: &Images) -> Result<Seen> {
        let all: Vec<usize> = (0..images.len()).collect();
        let seen = match self {
            Self::Candle(judge, device) => {
                let parts = all.par_chunks(PART).map(|part| judge.see(images, part, device));
                parts.collect::<Result<Vec<_>>>().map(|parts| {
                    let (pooled, spatial): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
                    (pooled.concat(), spatial.concat())
                })
            }
            Self::Machine(inception) => {
                let x = coloured(&pixels(images, &all, &Device::Cpu)?)?.flatten_all()?.to_vec1()?;
                inception.see(&x)
            }
        };
        seen.context("cannot look at the images")
    }
}
