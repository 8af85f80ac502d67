//! An autoencoder's decoder on a machine: a batch of latents is one recording.

use anyhow::Result;
use gpu::{GATHERED, Machine, MapNetwork, Size};
use manifest::scale::Dtype;
use models::vae::{Vae, VaeConfig};

use super::recorder::Recorder;
use super::{precision, said};

/// Latents at once. An image does not depend on it.
pub const BATCH: usize = 16;

/// Makes images of latents on a machine, which it holds.
pub struct MachineDecoder<M: Machine> {
    // before the machine that its memory is of
    network: MapNetwork<M>,
    machine: M,
    /// Numbers of a latent, and of an image.
    elements: [usize; 2],
}

impl<M: Machine> MachineDecoder<M> {
    /// The decoder of `vae`, whose tensors are on the processor, for latents of `side`.
    ///
    /// # Errors
    /// The kernels do not do what is asked for, or it does not fit the machine's memory: said before anything is allocated.
    pub fn new(machine: M, vae: &Vae, shape: &VaeConfig, side: usize, dtype: Dtype) -> Result<Self> {
        let (mut recorder, latent) = Recorder::new(Size { height: side, width: side, channels: shape.latent_channels });
        vae.decoded(&mut recorder, &latent)?;
        let (program, precision) = (recorder.program(), precision(dtype));
        gpu::check_maps(machine.free()?, precision, &program, BATCH)?;
        let network = MapNetwork::new(&machine, precision, &program, BATCH, GATHERED).map_err(said)?;
        let image = shape.image_channels * (side * shape.downsampling()).pow(2);
        Ok(Self { network, machine, elements: [shape.latent_channels * side * side, image] })
    }

    /// The images of latents `[n, C, side, side]`; values may leave [-1, 1].
    ///
    /// # Errors
    /// Those of the machine.
    pub fn decode(&mut self, latents: &[f32]) -> Result<Vec<f32>> {
        let [latent, image] = self.elements;
        let mut images = Vec::with_capacity(latents.len() / latent * image);
        for batch in latents.chunks(BATCH * latent) {
            let mut batch = batch.to_vec();
            let count = batch.len() / latent;
            // A batch that is shorter is filled with latents that nobody sees.
            batch.resize(BATCH * latent, 0.0);
            images.extend_from_slice(&self.network.run(&self.machine, &batch)?[..count * image]);
        }
        Ok(images)
    }
}
