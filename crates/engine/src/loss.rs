//! The diffusion loss of a batch, in parallel over its samples.

use diffusion::{SampleLoss, TrainingLoss};
use rayon::prelude::*;

use crate::batch::TrainingBatch;
use crate::losses::Losses;

/// Mean losses of a batch for the model's `output` `[B, O, H, W]`, and the derivative of their sum over `d_output`.
/// The sums run in the order of the samples, whatever the threads.
pub fn losses(loss: &TrainingLoss, batch: &TrainingBatch, output: &[f32], d_output: &mut [f32]) -> Losses {
    let count = batch.clean.t.len();
    let (inputs, outputs) = (batch.x_t.len() / count, output.len() / count);
    let images = batch.clean.x0.par_chunks(inputs).zip(batch.x_t.par_chunks(inputs));
    let images = images.zip(batch.clean.noise.par_chunks(inputs)).zip(&batch.clean.t);
    let samples = images.zip(output.par_chunks(outputs)).zip(d_output.par_chunks_mut(outputs));
    let terms: Vec<SampleLoss> = samples
        .map(|(((((x0, x_t), noise), &t), output), d_output)| {
            loss.sample_loss(t, x0, x_t, noise, output, Some(d_output), 1.0 / count as f64)
        })
        .collect();
    let mean = |term: fn(&SampleLoss) -> f64| terms.iter().map(term).sum::<f64>() / count as f64;
    let (mse, vb) = (mean(|t| t.mse), mean(|t| t.vb));
    Losses { mse, vb, total: mse + vb, ..Losses::default() }
}
