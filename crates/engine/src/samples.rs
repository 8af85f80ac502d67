//! Samples as the stage `sample` leaves them: images in bytes, or latents. They are read in parts.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use data::Images;
use safetensors::Dtype;

use crate::mapped::{Mapped, floats};

/// Name of the tensor, u8 `[n, C, side, side]` for images and f32 for latents.
pub const TENSOR: &str = "samples";

/// Samples on disk.
pub struct Samples {
    file: Mapped,
    /// Their place in the file.
    bytes: Range<usize>,
    /// Bytes of a number: 1 of images, 4 of latents.
    width: usize,
    count: usize,
    channels: usize,
    side: usize,
}

impl Samples {
    /// # Errors
    /// The file is missing, damaged or holds something else.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Mapped::open(path)?;
        let (dtype, shape, bytes) = file.find(TENSOR)?;
        ensure!([Dtype::U8, Dtype::F32].contains(&dtype), "{}: samples have type {dtype:?}", path.display());
        let &[count, channels, side, width] = shape.as_slice() else {
            bail!("{}: samples have shape {shape:?}", path.display())
        };
        ensure!(side == width, "{}: samples are {side} x {width}, not square", path.display());
        Ok(Self { file, bytes, width: dtype.bitsize() / 8, count, channels, side })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Their side.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Numbers in one sample.
    pub fn elements(&self) -> usize {
        self.channels * self.side * self.side
    }

    /// Images `range`.
    ///
    /// # Errors
    /// They are latents.
    pub fn images(&self, range: Range<usize>) -> Result<Images> {
        ensure!(self.width == 1, "these samples are latents, which must be decoded first");
        Ok(Images::new(self.channels, self.side, self.part(range).to_vec()))
    }

    /// Latents `range`, `[n, C, side, side]`.
    ///
    /// # Errors
    /// They are images.
    pub fn latents(&self, range: Range<usize>) -> Result<Vec<f32>> {
        ensure!(self.width == size_of::<f32>(), "these samples are images, not latents");
        Ok(floats(self.part(range)).collect())
    }

    /// Samples `range` as the sampler left them: images in [-1, 1], or latents.
    ///
    /// # Errors
    /// None that [`Samples::open`] has not found.
    pub fn values(&self, range: Range<usize>) -> Result<Vec<f32>> {
        if self.width > 1 {
            return self.latents(range);
        }
        let images = self.images(range)?;
        let mut values = vec![0.0; images.pixels.len()];
        values.chunks_exact_mut(self.elements()).enumerate().for_each(|(i, out)| images.normalised(i, false, out));
        Ok(values)
    }

    fn part(&self, range: Range<usize>) -> &[u8] {
        let at = |sample: usize| self.bytes.start + sample * self.elements() * self.width;
        self.file.bytes(at(range.start)..at(range.end))
    }
}
