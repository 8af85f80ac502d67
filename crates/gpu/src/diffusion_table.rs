//! The diffusion process as the loss reads it on a machine: one structure per timestep, computed in `f64` on the CPU.

use diffusion::TrainingLoss;

use crate::arguments::Timestep;

/// What the loss of samples of `elements` values needs of every timestep.
pub fn timesteps(loss: &TrainingLoss, elements: usize) -> Vec<Timestep> {
    let of = |step: &diffusion::Step| Timestep {
        mse_weight: loss.weight().at(step) / elements as f64,
        recip: step.sqrt_recip_alpha_bar,
        recipm1: step.sqrt_recipm1_alpha_bar,
        mean_x0: step.posterior_mean_x0,
        mean_xt: step.posterior_mean_xt,
        log_variance: step.posterior_log_variance,
        range: step.beta.ln() - step.posterior_log_variance,
        precision: (-step.posterior_log_variance).exp(),
        signal: step.alpha_bar.sqrt() as f32,
        spread: (1.0 - step.alpha_bar).sqrt() as f32,
    };
    loss.process().steps().iter().map(of).collect()
}
