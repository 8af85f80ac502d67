//! The fast engine where every weight learns: pre-training and full fine-tuning.

use anyhow::Result;
use diffusion::TrainingLoss;
use kernels::{Condition, Contribution, Inputs, Learn, OutsideGradients, Parameters, Plan, Workspace};

use super::{Setting, TrainingTrunk, fast};
use crate::batch::TrainingBatch;
use crate::loss;
use crate::losses::Losses;

/// The trunk with room for one batch. Its layout is that of [`fast::full_layout`].
pub struct FullTrunk {
    loss: TrainingLoss,
    parameters: Parameters,
    condition: Condition,
    workspace: Workspace,
    rows: Vec<u32>,
}

impl FullTrunk {
    /// # Errors
    /// The shape is unsound.
    pub fn new(setting: Setting) -> Result<Self> {
        let (shape, batch) = (fast::shape(setting.dit), setting.batch);
        let plan = Plan { shape, batch, learn: Learn::Everything, prepended: 0, image_gradient: false };
        Ok(Self {
            loss: setting.loss,
            parameters: Parameters::zeros(shape)?,
            condition: Condition::new(shape, batch),
            workspace: Workspace::new(plan),
            rows: (0..batch as u32).collect(),
        })
    }
}

impl TrainingTrunk for FullTrunk {
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        self.parameters.values_mut().copy_from_slice(values);
        self.condition.compute(&self.parameters, &fast::timesteps(batch), &batch.clean.labels);
        let contributions = vec![Contribution::None; self.parameters.shape().depth];
        let inputs = Inputs {
            parameters: &self.parameters,
            condition: &self.condition,
            rows: &self.rows,
            contributions: &contributions,
        };
        let terms = self.workspace.step(&inputs, &batch.x_t, |sample, output, d_output| {
            loss::sample(&self.loss, batch, sample, output, d_output)
        });
        self.workspace.condition_backward(&inputs, OutsideGradients::default());
        let ours = self.workspace.gradients().parameters.as_ref().expect("everything learns");
        gradient.copy_from_slice(ours.values());
        Ok(loss::mean(&terms))
    }
}
