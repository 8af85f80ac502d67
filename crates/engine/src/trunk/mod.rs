//! A trunk with a method on it, as training sees it: losses and gradients of what learns. One implementation per engine.

mod adapted;
mod captions;
#[cfg(test)]
mod engines;
pub mod fast;
mod full;
#[cfg(test)]
mod goldens;
mod pass;
mod patched;
mod reference;
#[cfg(test)]
pub mod released;
mod unet;

pub use captions::captioned_trunk;
pub use unet::UnetTrunk;

use anyhow::Result;
use candle_core::Device;
use diffusion::TrainingLoss;
use manifest::dit::DitConfig;
use manifest::method::Method;
use manifest::scale::{Engine, Numerics};
use models::weights::Weights;

use crate::batch::TrainingBatch;
use crate::losses::Losses;
use crate::trainables::Layout;

/// Losses and gradients of one batch.
pub trait TrainingTrunk: Send {
    /// Losses of `batch` at `values`, and the gradient of their total over `gradient`, both flat in the trunk's layout.
    ///
    /// # Errors
    /// Those of the tensors' library.
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses>;
}

/// What a trunk is made of.
pub struct Setting<'a> {
    /// The network.
    pub dit: &'a DitConfig,
    /// What learns; pre-training is `Finetune` from scratch.
    pub method: &'a Method,
    /// The frozen weights; unused where all learn.
    pub backbone: &'a Weights,
    /// Places of what learns.
    pub layout: &'a Layout,
    /// The loss.
    pub loss: TrainingLoss,
    /// Images a step.
    pub batch: usize,
}

/// The trunk of an engine.
///
/// # Errors
/// The weights do not fit the network, or the method does not.
pub fn training_trunk(setting: Setting, numerics: &Numerics, device: &Device) -> Result<Box<dyn TrainingTrunk>> {
    Ok(match (numerics.engine, setting.method) {
        (Engine::Reference, _) => Box::new(reference::ReferenceTrunk::new(setting, device)?),
        (Engine::Fast, Method::Finetune(_)) => Box::new(full::FullTrunk::new(setting)?),
        (Engine::Fast, Method::Lora(_)) => Box::new(adapted::AdaptedTrunk::new(setting)?),
        (Engine::Fast, _) => Box::new(patched::PatchedTrunk::new(setting)?),
    })
}
