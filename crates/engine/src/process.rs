//! A manifest's diffusion and sampler settings as the objects of crate `diffusion`.

use anyhow::Result;
use diffusion::{Kind, MseWeight, Process, Sampler, Spacing, TrainingLoss, Variance};
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

/// The reverse process of a network that predicts the variance too, or does not.
///
/// # Errors
/// The step count does not fit the process.
pub fn sampler(settings: &scale::Diffusion, sampler: &scale::Sampler, learn_sigma: bool) -> Result<Sampler> {
    let (kind, spacing) = match sampler.kind {
        scale::SamplerKind::Ddpm => (Kind::Ddpm, Spacing::Sections(vec![sampler.steps])),
        scale::SamplerKind::Ddim => (Kind::Ddim { eta: 0.0 }, Spacing::Strided(sampler.steps)),
        scale::SamplerKind::Pndm => (Kind::Pndm, Spacing::Leading(sampler.steps)),
    };
    let variance = if learn_sigma { Variance::LearnedRange } else { Variance::FixedLarge };
    Ok(Sampler::new(process(settings)?.respaced(&spacing)?, kind, variance, sampler.clip_x0))
}

#[cfg(test)]
mod tests {
    use manifest::scale::{Diffusion, GuidanceChannels, SamplerKind, Schedule};

    use super::*;

    /// A plan must refuse what cannot run, and nothing else: minutes of training come before the first sample.
    #[test]
    fn what_a_plan_accepts_is_what_runs() {
        for schedule in [Schedule::Linear, Schedule::ScaledLinear, Schedule::Cosine] {
            for timesteps in 1..=60 {
                let diffusion = Diffusion { schedule, timesteps };
                let possible = timesteps >= diffusion.shortest();
                assert_eq!(process(&diffusion).is_ok(), possible, "{diffusion:?}");
                for kind in [SamplerKind::Ddpm, SamplerKind::Ddim, SamplerKind::Pndm] {
                    for steps in (1..=timesteps + 1).filter(|_| possible) {
                        let settings = scale::Sampler {
                            kind,
                            steps,
                            clip_x0: true,
                            guidance: 1.0,
                            guidance_channels: GuidanceChannels::All,
                        };
                        let misfit = settings.misfit(timesteps);
                        let built = sampler(&diffusion, &settings, true);
                        assert_eq!(built.is_ok(), misfit.is_none(), "{diffusion:?} {settings:?}: {misfit:?}");
                    }
                }
            }
        }
    }
}
