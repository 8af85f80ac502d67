//! The diffusion loss of a batch, sample by sample.

use diffusion::{SampleLoss, TrainingLoss};

use crate::batch::TrainingBatch;
use crate::losses::Losses;

/// Loss of one sample of a batch for the model's `output` `[O, H, W]`, and its share of the mean loss's derivative over
/// `d_output`.
pub fn sample(
    loss: &TrainingLoss,
    batch: &TrainingBatch,
    sample: usize,
    output: &[f32],
    d_output: &mut [f32],
) -> SampleLoss {
    let count = batch.clean.t.len();
    let inputs = batch.x_t.len() / count;
    let image = sample * inputs..(sample + 1) * inputs;
    let (x0, x_t, noise) = (&batch.clean.x0[image.clone()], &batch.x_t[image.clone()], &batch.clean.noise[image]);
    loss.sample_loss(batch.clean.t[sample], x0, x_t, noise, output, Some(d_output), 1.0 / count as f64)
}

/// Means over the samples, summed in their order.
pub fn mean(samples: &[SampleLoss]) -> Losses {
    let mean = |term: fn(&SampleLoss) -> f64| samples.iter().map(term).sum::<f64>() / samples.len() as f64;
    let (mse, vb) = (mean(|t| t.mse), mean(|t| t.vb));
    Losses { mse, vb, total: mse + vb, ..Losses::default() }
}

/// Mean losses of a batch for the model's `output` `[B, O, H, W]`, and the derivative of their sum over `d_output`.
pub fn losses(loss: &TrainingLoss, batch: &TrainingBatch, output: &[f32], d_output: &mut [f32]) -> Losses {
    let data::Batch { t, x0, noise, .. } = &batch.clean;
    mean(&loss.batch_loss(t, x0, &batch.x_t, noise, output, Some(d_output)))
}
