//! An autoencoder's decoder on a machine.

use anyhow::{Context, Result};
use gpu::{Machine, Size};
use manifest::scale::Dtype;
use models::vae::{Vae, VaeConfig};

use super::maps::MachineMaps;
use super::precision;
use super::recorder::Recorder;

/// Latents at once. An image does not depend on it.
pub const BATCH: usize = 16;

/// Makes images of latents on a machine, which it holds.
pub struct MachineDecoder<M: Machine>(MachineMaps<M>);

impl<M: Machine> MachineDecoder<M> {
    /// The decoder of `vae`, whose tensors are on the processor, for latents of `side`.
    ///
    /// # Errors
    /// The kernels do not do what is asked for, or it does not fit the machine's memory: said before anything is allocated.
    pub fn new(machine: M, vae: &Vae, shape: &VaeConfig, side: usize, dtype: Dtype) -> Result<Self> {
        let size = Size { height: side, width: side, channels: shape.latent_channels };
        let (mut recorder, latent) = Recorder::new(size);
        let image = vae.decoded(&mut recorder, &latent)?;
        let mut program = recorder.program();
        program.read(image, shape.image_channels)?;
        let elements = size.places() * size.channels;
        Ok(Self(MachineMaps::new(machine, precision(dtype), &program, BATCH, elements)?))
    }

    /// The images of latents `[n, C, side, side]`; values may leave [-1, 1].
    ///
    /// # Errors
    /// Those of the machine.
    pub fn decode(&mut self, latents: &[f32]) -> Result<Vec<f32>> {
        self.0.run(latents)?.pop().context("there are no latents")
    }
}
