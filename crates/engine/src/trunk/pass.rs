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
}

impl Pass {
    /// Room for batches of `batch` images with `prepended` prompts in front, where `learn` says what is wanted of the
    /// backward pass.
    pub fn new(parameters: Parameters, loss: TrainingLoss, batch: usize, learn: Learn, prepended: usize) -> Self {
        let shape = *parameters.shape();
        Self {
            parameters,
            condition: Condition::new(shape, batch),
            workspace: Workspace::new(Plan { shape, batch, learn, prepended, image_gradient: false }),
            loss,
            rows: (0..batch as u32).collect(),
        }
    }

    /// Embeds the batch's timesteps and labels.
    pub fn embed(&mut self, batch: &TrainingBatch) {
        self.condition.compute(&self.parameters, &fast::timesteps(batch), &batch.clean.labels);
    }

    /// The losses of a batch that has been embedded. Their gradients are those of [`Pass::gradients`] afterwards.
    pub fn run(&mut self, batch: &TrainingBatch, contributions: &[Contribution]) -> Losses {
        let Self { parameters, condition, workspace, loss, rows } = self;
        let inputs = Inputs { parameters, condition, rows, contributions };
        let terms = workspace
            .step(&inputs, &batch.x_t, |sample, output, d_output| loss::sample(loss, batch, sample, output, d_output));
        loss::mean(&terms)
    }

    /// The output for `batch`, then a pass back from `d_output`.
    #[cfg(test)]
    pub fn run_from(&mut self, batch: &TrainingBatch, contributions: &[Contribution], d_output: &[f32]) -> Vec<f32> {
        let Self { parameters, condition, workspace, rows, .. } = self;
        let inputs = Inputs { parameters, condition, rows, contributions };
        let outputs = workspace.step(&inputs, &batch.x_t, |sample, output, d| {
            d.copy_from_slice(&d_output[sample * d.len()..(sample + 1) * d.len()]);
            output.to_vec()
        });
        outputs.concat()
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
