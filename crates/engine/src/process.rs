//! A manifest's diffusion and sampler settings as the objects of crate `diffusion`.

use anyhow::Result;
use diffusion::{Kind, MseWeight, Process, Sampler, Spacing, TrainingLoss, Variance};
use manifest::dit::DitConfig;
use manifest::scale;

/// The forward process.
///
/// # Errors
/// Its length is out of range.
pub fn process(settings: &scale::Diffusion) -> Result<Process> {
    let schedule = match settings.schedule {
        scale::Schedule::Linear => diffusion::Schedule::Linear,
        scale::Schedule::ScaledLinear => diffusion::Schedule::ScaledLinear,
        scale::Schedule::Cosine => diffusion::Schedule::Cosine,
    };
    Ok(Process::new(schedule, settings.timesteps)?)
}

/// The training loss: `mse + vb` with unit weights, as in the paper.
///
/// # Errors
/// Those of [`process`].
pub fn training_loss(settings: &scale::Diffusion) -> Result<TrainingLoss> {
    Ok(TrainingLoss::new(process(settings)?, MseWeight::Constant))
}

/// The reverse process.
///
/// # Errors
/// The step count does not fit the process.
pub fn sampler(settings: &scale::Diffusion, sampler: &scale::Sampler, dit: &DitConfig) -> Result<Sampler> {
    let (kind, spacing) = match sampler.kind {
        scale::SamplerKind::Ddpm => (Kind::Ddpm, Spacing::Sections(vec![sampler.steps])),
        scale::SamplerKind::Ddim => (Kind::Ddim { eta: 0.0 }, Spacing::Strided(sampler.steps)),
        scale::SamplerKind::Pndm => (Kind::Pndm, Spacing::Leading(sampler.steps)),
    };
    let variance = if dit.learn_sigma { Variance::LearnedRange } else { Variance::FixedLarge };
    Ok(Sampler::new(process(settings)?.respaced(&spacing)?, kind, variance, sampler.clip_x0))
}
