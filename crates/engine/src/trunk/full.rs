//! The fast engine where every weight learns: pre-training and full fine-tuning.

use anyhow::Result;
use kernels::{Learn, OutsideGradients, Parameters};
use manifest::dit::DitConfig;

use super::pass::{Pass, nothing};
use super::{Setting, TrainingTrunk, fast};
use crate::batch::TrainingBatch;
use crate::losses::Losses;

/// The trunk with room for one batch. Its layout is that of [`fast::full_slots`].
pub struct FullTrunk {
    dit: DitConfig,
    pass: Pass,
}

impl FullTrunk {
    /// # Errors
    /// The shape is unsound.
    pub fn new(setting: Setting) -> Result<Self> {
        let parameters = Parameters::zeros(fast::shape(setting.dit))?;
        let pass = Pass::new(parameters, setting.loss, setting.batch, Learn::Everything, 0);
        Ok(Self { dit: setting.dit.clone(), pass })
    }
}

impl TrainingTrunk for FullTrunk {
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        self.pass.parameters.values_mut().copy_from_slice(values);
        self.pass.embed(batch);
        let contributions = nothing(&self.dit);
        let losses = self.pass.run(batch, &contributions);
        self.pass.finish(&contributions, OutsideGradients::default());
        let ours = self.pass.gradients().parameters.as_ref().expect("everything learns");
        gradient.copy_from_slice(ours.values());
        Ok(losses)
    }
}
