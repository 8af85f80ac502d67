//! A network of feature maps on a machine, for any number of images.

use anyhow::Result;
use gpu::{GATHERED, Machine, MapNetwork, Precision, Program};

use super::said;

/// A network on a machine, which it holds.
pub struct MachineMaps<M: Machine> {
    network: MapNetwork<M, M>,
    /// Numbers of an image.
    elements: usize,
}

impl<M: Machine> MachineMaps<M> {
    /// Room for `program` with so many images of `elements` numbers at once.
    ///
    /// # Errors
    /// It does not fit the machine's memory: said before anything is allocated.
    pub fn new(machine: M, precision: Precision, program: &Program, batch: usize, elements: usize) -> Result<Self> {
        gpu::check_maps(machine.free()?, precision, program, batch)?;
        let network = MapNetwork::new(machine, precision, program, batch, GATHERED).map_err(said)?;
        Ok(Self { network, elements })
    }

    /// What the program asks for, of images `[n, C, height, width]`.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn run(&mut self, images: &[f32]) -> Result<Vec<Vec<f32>>> {
        let batch = self.network.batch();
        let mut all: Vec<Vec<f32>> = Vec::new();
        for images in images.chunks(batch * self.elements) {
            let count = images.len() / self.elements;
            // A batch that is shorter is filled with images that nobody sees.
            let mut whole = images.to_vec();
            whole.resize(batch * self.elements, 0.0);
            let outputs = self.network.run(&whole)?;
            all.resize(outputs.len(), Vec::new());
            for (all, output) in all.iter_mut().zip(outputs) {
                all.extend_from_slice(&output[..count * (output.len() / batch)]);
            }
        }
        Ok(all)
    }
}
