//! Training steps: batch, trunk, loss and AdamW as the stages `train` and `pretrain` run them.

use anyhow::ensure;
use kernels::AdamW;
use manifest::denoiser::Denoiser;
use manifest::scale::{Numerics, Optimisation};

use super::inputs::{DIFFUSION, Inputs, numerics};
use super::work::Network;
use super::{Repeat, Setting};
use crate::denoising::{DenoisingObjective, Task};
use crate::job::EngineError;
use crate::training::{Objective, descend};

/// A training run that goes on step by step.
pub struct Step<'a> {
    objective: DenoisingObjective<'a>,
    optimisation: Optimisation,
    adamw: AdamW,
    segments: Vec<(std::ops::Range<usize>, f64)>,
    values: Vec<f32>,
    gradient: Vec<f32>,
    iteration: usize,
}

impl<'a> Step<'a> {
    /// A run at its beginning.
    ///
    /// # Errors
    /// The device is missing.
    pub fn new(inputs: &'a Inputs, setting: &Setting) -> Result<Self, EngineError> {
        let (dit, optimisation) = (inputs.network.dit(), optimisation(inputs.network));
        let (denoiser, numerics) = (Denoiser::Dit(dit.clone()), numerics(setting));
        let task = task(inputs, &denoiser, &optimisation, &numerics);
        let (layout, initial) = task.start(&inputs.backbone)?;
        let objective =
            task.objective(&dit, &inputs.images, None, &inputs.backbone, &layout, &setting.device.tensors()?)?;
        let values = layout.flatten(&initial)?;
        let adamw = AdamW::new(values.len());
        let gradient = vec![0.0; values.len()];
        Ok(Self { objective, optimisation, adamw, segments: layout.segments(), values, gradient, iteration: 0 })
    }
}

/// Steps without end.
pub fn optimisation(network: Network) -> Optimisation {
    Optimisation {
        iterations: usize::MAX,
        batch: network.batch(),
        learning_rate: 1e-4,
        final_learning_rate: 1e-4,
        warmup_iterations: 0,
        weight_decay: 0.0,
        horizontal_flip: true,
        micro_batch: None,
    }
}

/// The training of a work.
pub fn task<'a>(
    inputs: &'a Inputs,
    denoiser: &'a Denoiser,
    optimisation: &'a Optimisation,
    numerics: &'a Numerics,
) -> Task<'a> {
    let (method, diffusion) = (&inputs.method, &DIFFUSION);
    Task { denoiser, method, diffusion, optimisation, ema_halflife_iterations: 0.0, seed: 0, numerics }
}

impl Repeat for Step<'_> {
    fn warm_up(&mut self) -> Result<(), EngineError> {
        self.run()?;
        self.run()
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let Self { objective, optimisation, adamw, segments, values, gradient, iteration } = self;
        let losses = objective.gradient(*iteration, values, gradient)?;
        let check = || -> anyhow::Result<()> {
            ensure!(losses.total.is_finite(), "step {iteration} has no finite loss");
            Ok(())
        };
        check()?;
        descend(adamw, optimisation, *iteration, segments, values, gradient);
        *iteration += 1;
        Ok(())
    }
}
