//! One pass of the fast engine's trunk over a batch, forward and back, whatever learns.

use diffusion::TrainingLoss;
use kernels::{Condition, Contribution, Inputs, Learn, OutsideGradients, Parameters, Plan, Workspace};
use manifest::dit::DitConfig;

use super::fast;
use crate::batch::TrainingBatch;
use crate::loss;
use crate::losses::Losses;

/// The trunk's weights with room for one batch.
pub struct Pass {
    /// The weights.
    pub parameters: Parameters,
    /// Embeddings and modulations of the batch.
    pub condition: Condition,
    workspace: Workspace,
    loss: TrainingLoss,
    rows: Vec<u32>,
    output: Vec<f32>,
    d_output: Vec<f32>,
}

impl Pass {
    /// Room for batches of `batch` images with `prepended` prompts in front, where `learn` says what is wanted of the
    /// backward pass.
    pub fn new(parameters: Parameters, loss: TrainingLoss, batch: usize, learn: Learn, prepended: usize) -> Self {
        let shape = *parameters.shape();
        let outputs = batch * shape.output();
        Self {
            parameters,
            condition: Condition::new(shape, batch),
            workspace: Workspace::new(Plan { shape, batch, learn, prepended, image_gradient: false }),
            loss,
            rows: (0..batch as u32).collect(),
            output: vec![0.0; outputs],
            d_output: vec![0.0; outputs],
        }
    }

    /// Embeds the batch's timesteps and labels.
    pub fn embed(&mut self, batch: &TrainingBatch) {
        self.condition.compute(&self.parameters, &fast::timesteps(batch), &batch.clean.labels);
    }

    /// The losses of a batch that has been embedded. Their gradients are those of [`Pass::gradients`] afterwards.
    pub fn run(&mut self, batch: &TrainingBatch, contributions: &[Contribution]) -> Losses {
        self.forward(&batch.x_t, contributions);
        let losses = loss::losses(&self.loss, batch, &self.output, &mut self.d_output);
        self.backward(contributions);
        losses
    }

    fn forward(&mut self, x_t: &[f32], contributions: &[Contribution]) {
        let Self { parameters, condition, workspace, rows, output, .. } = self;
        workspace.forward(&Inputs { parameters, condition, rows, contributions }, x_t, output);
    }

    fn backward(&mut self, contributions: &[Contribution]) {
        let Self { parameters, condition, workspace, rows, d_output, .. } = self;
        workspace.backward(&Inputs { parameters, condition, rows, contributions }, d_output);
    }

    /// The output for `batch`, then a pass back from `d_output`.
    #[cfg(test)]
    pub fn run_from(&mut self, batch: &TrainingBatch, contributions: &[Contribution], d_output: &[f32]) -> Vec<f32> {
        self.forward(&batch.x_t, contributions);
        self.d_output.copy_from_slice(d_output);
        self.backward(contributions);
        self.output.clone()
    }

    /// Completes the gradients where everything learns; `outside` is what reaches the embeddings through a gate.
    pub fn finish(&mut self, contributions: &[Contribution], outside: OutsideGradients) {
        let Self { parameters, condition, workspace, rows, .. } = self;
        workspace.condition_backward(&Inputs { parameters, condition, rows, contributions }, outside);
    }

    /// Gradients of the latest pass.
    pub fn gradients(&self) -> &kernels::Gradients {
        self.workspace.gradients()
    }
}

/// No contribution to any block.
pub fn nothing(dit: &DitConfig) -> Vec<Contribution<'static>> {
    vec![Contribution::None; dit.depth]
}
