//! The images that a stage `features` looks at, wherever they come from; no more than a few are in memory.

use anyhow::Result;
use data::Images;
use manifest::autoencoder::LatentSpace;
use manifest::stage;

use crate::autoencoder::Autoencoder;
use crate::extractor::{BATCH, PART};
use crate::images::Reader;
use crate::job::{EngineError, Job};
use crate::samples::Samples;

/// The images that a stage looks at.
pub(crate) enum Pictures<'a> {
    /// A dataset's.
    Real(Reader),
    /// Samples that are images.
    Drawn(Samples),
    /// Samples in latents.
    Latent(Samples, Box<Autoencoder>, &'a LatentSpace),
}

impl<'a> Pictures<'a> {
    /// # Errors
    /// An input is missing or damaged.
    pub(crate) fn open(job: &Job, stage: &'a stage::Features) -> Result<Self, EngineError> {
        let samples = || -> Result<Samples, EngineError> { Ok(Samples::open(job.input("samples")?)?) };
        Ok(match (&stage.data, &stage.latents) {
            (Some(source), _) => Self::Real(Reader::open(job, source)?),
            (None, None) => Self::Drawn(samples()?),
            (None, Some(space)) => {
                Self::Latent(samples()?, Box::new(Autoencoder::open(job, &space.autoencoder)?), space)
            }
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Real(reader) => reader.len(),
            Self::Drawn(samples) | Self::Latent(samples, ..) => samples.len(),
        }
    }

    /// Their side in pixels.
    pub(crate) fn side(&self) -> usize {
        match self {
            Self::Real(reader) => reader.side(),
            Self::Drawn(samples) => samples.side(),
            Self::Latent(samples, autoencoder, _) => samples.side() * autoencoder.shape().downsampling(),
        }
    }

    /// How many of them are handed over at once: fewer where they are decoded, which takes fifty times as long as a look.
    pub(crate) fn at_once(&self) -> usize {
        match self {
            Self::Real(_) | Self::Drawn(_) => BATCH,
            Self::Latent(..) => PART,
        }
    }

    /// Hands images from `first` on to `look`, with the number of the first.
    ///
    /// # Errors
    /// An image cannot be read; those of `look`, which end the matter.
    pub(crate) fn each_from(
        &self,
        first: usize,
        mut look: impl FnMut(usize, Images) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let (count, most) = (self.len(), self.at_once());
        let mut ranges = (first..count).step_by(most).map(|first| first..(first + most).min(count));
        match self {
            // All in one go, so that photographs are decoded ahead of who looks.
            Self::Real(reader) => reader.each(first..count, most, look),
            Self::Drawn(samples) => ranges.try_for_each(|range| look(range.start, samples.images(range)?)),
            Self::Latent(samples, autoencoder, space) => ranges.try_for_each(|range| {
                let latents = samples.latents(range.clone())?;
                look(range.start, autoencoder.decode(&latents, samples.side(), space)?)
            }),
        }
    }
}
