//! The images that a stage `features` looks at, wherever they come from; no more than a few are in memory.

use anyhow::Result;
use data::Images;
use manifest::stage;

use crate::decoder::Decoder;
use crate::extractor::BATCH;
use crate::images::Reader;
use crate::job::{EngineError, Job};
use crate::samples::Samples;

/// The images that a stage looks at.
pub(crate) enum Pictures {
    /// A dataset's.
    Real(Reader),
    /// Samples that are images.
    Drawn(Samples),
    /// Samples in latents.
    Latent(Samples, Box<Decoder>),
}

impl Pictures {
    /// # Errors
    /// An input is missing or damaged.
    pub(crate) fn open(job: &Job, stage: &stage::Features) -> Result<Self, EngineError> {
        let samples = || -> Result<Samples, EngineError> { Ok(Samples::open(job.input("samples")?)?) };
        Ok(match (&stage.data, &stage.latents) {
            (Some(source), _) => Self::Real(Reader::open(job, source)?),
            (None, None) => Self::Drawn(samples()?),
            (None, Some(space)) => {
                let samples = samples()?;
                let decoder = Decoder::open(job, space, samples.side(), &stage.numerics)?;
                Self::Latent(samples, Box::new(decoder))
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
            Self::Latent(_, decoder) => decoder.image().1,
        }
    }

    /// How many of them are handed over at once to somebody who sees `seen`: no more where they are decoded, which takes fifty times as
    /// long as a look.
    pub(crate) fn at_once(&self, seen: usize) -> usize {
        match self {
            Self::Real(_) | Self::Drawn(_) => BATCH,
            Self::Latent(..) => seen,
        }
    }

    /// Hands images from `first` on to `look`, `most` at once, with the number of the first.
    ///
    /// # Errors
    /// An image cannot be read; those of `look`, which end the matter.
    pub(crate) fn each_from(
        &mut self,
        first: usize,
        most: usize,
        mut look: impl FnMut(usize, Images) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let count = self.len();
        let mut ranges = (first..count).step_by(most).map(|first| first..(first + most).min(count));
        match self {
            // All in one go, so that photographs are decoded ahead of who looks.
            Self::Real(reader) => reader.each(first..count, most, look),
            Self::Drawn(samples) => ranges.try_for_each(|range| look(range.start, samples.images(range)?)),
            Self::Latent(samples, decoder) => ranges.try_for_each(|range| {
                let latents = samples.latents(range.clone())?;
                look(range.start, decoder.decode(&latents)?)
            }),
        }
    }
}
