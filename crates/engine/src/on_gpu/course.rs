//! A training run on a machine: the host chooses examples and rates of many steps at once, and reads their losses together.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use data::{Batch, Examples};
use gpu::{Machine, Place, Pool, Rates, SLOTS, Setting, State, Step};
use kernels::Parameters;
use manifest::dit::DitConfig;

use super::method;
use super::{precision, said};
use crate::batch::Batcher;
use crate::checkpoint::Checkpoint;
use crate::denoising::Task;
use crate::losses::Losses;
use crate::process;
use crate::trainables::Layout;
use crate::training::{Advance, Course, average_decay, learning_rate};
use crate::trunk::fast;

/// How long the host may be deaf while steps run: it decides how many are asked for at once, never what comes out.
const PATIENCE: Duration = Duration::from_millis(500);

/// Examples written to the machine at once.
const PIECE: usize = 256;

/// A run of a task on a machine.
pub struct MachineTraining<'m, 'i, M: Machine> {
    step: Step<'m, M>,
    task: &'i Task<'i>,
    batcher: Batcher<'i>,
    chosen: Batch,
    /// Copies of each example: 2 where half of them are mirrored.
    orientations: usize,
    /// Learning rate of the gate over that of the prompts.
    gate: f64,
    /// What its balancing losses count, importance and load.
    balance: [f64; 2],
    /// Steps to ask for next time.
    pace: usize,
}

impl<'m, 'i, M: Machine> MachineTraining<'m, 'i, M> {
    /// The run of `task` from where `state` stands, over `examples`.
    ///
    /// # Errors
    /// The kernels do not do what is asked for, or it does not fit the machine's memory: said before anything is allocated.
    pub fn new(
        machine: &'m M,
        task: &'i Task<'i>,
        dit: &DitConfig,
        examples: &'i dyn Examples,
        parameters: Option<&Parameters>,
        layout: &Layout,
        state: &Checkpoint,
    ) -> Result<Self> {
        let (precision, optimisation) = (precision(task.numerics.dtype), task.optimisation);
        let method = method::training(task.method, dit)?;
        let loss = process::training_loss(task.diffusion)?;
        let setting = Setting {
            shape: fast::shape(dit),
            method,
            batch: optimisation.batch,
            part: optimisation.micro_batch.map_or(optimisation.batch, usize::from),
            loss: &loss,
            average: task.ema_halflife_iterations > 0.0,
            seed: task.seed,
        };
        let (orientations, scale) = (1 + usize::from(optimisation.horizontal_flip), examples.scale());
        let count = examples.count() * orientations;
        let free = machine.free()?;
        gpu::check_step(free, precision, setting, count, scale.is_some()).map_err(said)?;
        let pool = pool(machine, examples, orientations).map_err(said)?;
        let mut step = Step::new(machine, precision, setting, pool).map_err(said)?;
        if let Some(parameters) = parameters {
            step.set_backbone(parameters)?;
        }
        let Checkpoint { iteration, values, first_moment: first, second_moment: second, average, .. } = state.clone();
        step.set_state(iteration as u32, &State { values, first, second, average })?;
        let (gate, balance) = match method {
            gpu::Method::Prompts { prompts, balance } if prompts.gate.is_some() => {
                let factor = layout.slots.last().map_or(1.0, |slot| slot.learning_rate_factor);
                (factor, [balance.importance.coefficient, balance.load.unwrap_or(0.0)])
            }
            _ => (1.0, [0.0; 2]),
        };
        let flips = optimisation.horizontal_flip;
        let process = process::process(task.diffusion)?;
        let batcher = Batcher::new(examples, process, dit.into(), flips, task.seed);
        let chosen = Batch::new(optimisation.batch, 0);
        Ok(Self { step, task, batcher, chosen, orientations, gate, balance, pace: 1 })
    }

    /// Writes what the steps `first..first + count` train on.
    fn write(&mut self, first: usize, count: usize) -> Result<()> {
        for number in first..first + count {
            self.batcher.choose(number, &mut self.chosen);
            let Batch { indices, flipped, labels, t, .. } = &self.chosen;
            let place = |i: usize| Place {
                example: (indices[i] * self.orientations + usize::from(flipped[i])) as u32,
                label: labels[i],
                timestep: t[i] as u32,
            };
            let places: Vec<Place> = (0..t.len()).map(place).collect();
            let rate = learning_rate(self.task.optimisation, number);
            let rates = Rates {
                learning_rates: [rate, rate * self.gate],
                weight_decay: self.task.optimisation.weight_decay,
                decay: average_decay(self.task.ema_halflife_iterations, number),
            };
            self.step.write(number as u32, &places, &rates)?;
        }
        Ok(())
    }

    /// Whether all values are finite.
    ///
    /// # Errors
    /// They are not, or those of the machine.
    pub fn finite(&self) -> Result<()> {
        let finite = self.step.state()?.values.iter().all(|value| value.is_finite());
        ensure!(finite, "values are not finite");
        Ok(())
    }

    /// Does steps without waiting, for a clock: from `first` on, at most [`SLOTS`].
    ///
    /// # Errors
    /// Those of the machine.
    pub fn launch(&mut self, first: usize, count: usize) -> Result<()> {
        self.write(first, count)?;
        for _ in 0..count {
            self.step.run()?;
        }
        Ok(())
    }
}

/// Copies all examples to the machine.
fn pool<M: Machine>(machine: &M, examples: &dyn Examples, orientations: usize) -> Result<Pool<M>, gpu::Error> {
    let (count, elements) = (examples.count() * orientations, examples.elements());
    let mut pool = Pool::new(machine, count, elements, examples.scale())?;
    let random = usize::from(examples.scale().is_some());
    for first in (0..count).step_by(PIECE) {
        let piece = PIECE.min(count - first);
        let (mut mean, mut deviation) = (vec![0.0; piece * elements], vec![0.0; random * piece * elements]);
        for i in 0..piece {
            let (index, flip) = ((first + i) / orientations, (first + i) % orientations == 1);
            let at = i * elements..(i + 1) * elements;
            let deviation = deviation.get_mut(at.clone()).unwrap_or_default();
            examples.moments(index, flip, &mut mean[at], deviation);
        }
        pool.write(machine, first, &mean, &deviation)?;
    }
    Ok(pool)
}

impl<M: Machine> Course for MachineTraining<'_, '_, M> {
    fn advance(&mut self, iteration: usize, end: usize) -> Result<Advance> {
        let count = self.pace.min(end - iteration);
        let begin = Instant::now();
        self.launch(iteration, count)?;
        let losses = self.step.losses(iteration as u32, count)?;
        // The first step loads kernels, the second captures a graph.
        let each = begin.elapsed() / count as u32;
        self.pace = ((PATIENCE.as_secs_f64() / each.as_secs_f64().max(1e-6)) as usize).clamp(1, SLOTS);
        let losses = losses.iter().map(|l| Losses {
            mse: l.mse,
            vb: l.vb,
            importance: l.importance,
            load: l.load,
            total: l.mse + l.vb + self.balance[0] * l.importance + self.balance[1] * l.load,
        });
        let losses = losses.collect();
        // Until the end, the next losses tell.
        let finite = iteration + count < end || self.finite().is_ok();
        Ok(Advance { losses, finite })
    }

    fn keep(&self, state: &mut Checkpoint) -> Result<()> {
        let State { values, first, second, average } = self.step.state()?;
        (state.values, state.first_moment, state.second_moment, state.average) = (values, first, second, average);
        Ok(())
    }
}
