//! Inception on a machine. Always in `f32`: a measure has the same digits whatever the precision of what it measures.

use anyhow::Result;
use gpu::{Machine, Precision, Size};
use models::inception::{Inception, SPATIAL_CHANNELS};

use super::maps::MachineMaps;
use super::recorder::Recorder;

/// Images at once. Features do not depend on it.
pub const BATCH: usize = 64;

/// Takes features of images on a machine, which it holds.
pub struct MachineInception<M: Machine>(MachineMaps<M>);

impl<M: Machine> MachineInception<M> {
    /// `network`, whose tensors are on the processor, for `batch` images of `size` at once, which are made squares of `side`.
    ///
    /// # Errors
    /// The images are too small, or it does not fit the machine's memory: said before anything is allocated.
    pub fn new(machine: M, network: &Inception, size: Size, side: usize, batch: usize) -> Result<Self> {
        let (mut recorder, images) = Recorder::new(size);
        let images = recorder.resized(images, [side, side])?;
        let seen = network.seen(&mut recorder, &images)?;
        let mut program = recorder.program();
        program.read_means(seen.mixed_7)?;
        program.read(seen.spatial, SPATIAL_CHANNELS)?;
        let elements = size.places() * size.channels;
        Ok(Self(MachineMaps::new(machine, Precision::F32, &program, batch, elements)?))
    }

    /// Pooled features of images `[n, 3, side, side]` in [-1, 1], and spatial ones `[n, places * 7]`.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn see(&mut self, images: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let mut outputs = self.0.run(images)?.into_iter();
        let (pooled, spatial) = (outputs.next().unwrap_or_default(), outputs.next().unwrap_or_default());
        let count = pooled.len() / models::inception::POOLED;
        // channel by channel, as a machine reads maps back; the features have them place by place
        let places = spatial.len() / (SPATIAL_CHANNELS * count.max(1));
        let number = |i: usize| {
            let (image, inside) = (i / (SPATIAL_CHANNELS * places), i % (SPATIAL_CHANNELS * places));
            let (place, channel) = (inside / SPATIAL_CHANNELS, inside % SPATIAL_CHANNELS);
            spatial[(image * SPATIAL_CHANNELS + channel) * places + place]
        };
        Ok((pooled, (0..spatial.len()).map(number).collect()))
    }
}
