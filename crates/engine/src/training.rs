//! The training loop: AdamW over one flat buffer, checkpoints, an optional weight average, and the loss curve.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use kernels::{AdamW, Group};
use manifest::scale::Optimisation;

use crate::checkpoint::Checkpoint;
use crate::job::{CurvePoint, EngineError, Job, Progress};
use crate::losses::Losses;
use crate::trainables::Layout;

/// Time between two checkpoints. It decides what a kill costs, never what comes out.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(20);

/// Points of the loss curve over a run.
const CURVE_POINTS: usize = 200;

/// What is minimised.
pub trait Objective {
    /// The losses of `iteration` at `values`, and the gradient of their total, written over `gradient`.
    ///
    /// # Errors
    /// Those of the tensors' library.
    fn gradient(&mut self, iteration: usize, values: &[f32], gradient: &mut [f32]) -> Result<Losses>;
}

/// What goes on from iteration to iteration: values, moments and, where one is kept, their average.
pub trait Course {
    /// Trains at least one iteration, from `iteration` on, and none from `end` on.
    ///
    /// # Errors
    /// Those of the tensors' library, or of the device.
    fn advance(&mut self, iteration: usize, end: usize) -> Result<Advance>;

    /// Copies where it stands into `state`.
    ///
    /// # Errors
    /// Those of the device.
    fn keep(&self, state: &mut Checkpoint) -> Result<()>;
}

/// What some iterations left.
pub struct Advance {
    /// The losses of each.
    pub losses: Vec<Losses>,
    /// Whether the values that the last of them left are finite; not all that are not need be noticed but after the last iteration.
    pub finite: bool,
}

/// How training ended.
pub enum Trained {
    /// After its last iteration.
    Completed(Checkpoint),
    /// At the first iteration whose loss, or what it made of the values, was not finite, with the curve up to there.
    Diverged(usize, Vec<CurvePoint>),
}

/// Runs `optimisation` from `initial` values, or from the job's checkpoint where there is one, on the processor.
///
/// # Errors
/// [`EngineError::Interrupted`] after the job was asked to stop; then the checkpoint holds the state.
pub fn train(
    job: &Job,
    layout: &Layout,
    initial: Vec<f32>,
    optimisation: &Optimisation,
    ema_halflife_iterations: f64,
    objective: &mut dyn Objective,
) -> Result<Trained, EngineError> {
    let mut state = start(job, layout, initial, ema_halflife_iterations)?;
    let take = std::mem::take;
    let (first, second) = (take(&mut state.first_moment), take(&mut state.second_moment));
    let mut course = OnProcessor {
        objective,
        optimisation,
        ema_halflife_iterations,
        segments: layout.segments(),
        adamw: AdamW::from_state(state.iteration as u64, first, second),
        values: take(&mut state.values),
        average: take(&mut state.average),
        gradient: vec![0.0; layout.len()],
    };
    follow(job, state, optimisation, &mut course)
}

/// Where a run begins: at the job's checkpoint, or at `initial` values.
///
/// # Errors
/// The checkpoint is damaged, or of another run.
pub fn start(
    job: &Job,
    layout: &Layout,
    initial: Vec<f32>,
    ema_halflife_iterations: f64,
) -> Result<Checkpoint, EngineError> {
    Ok(match Checkpoint::load(job.directory, layout.len())? {
        Some(state) => state,
        None => Checkpoint::start(initial, ema_halflife_iterations > 0.0),
    })
}

/// Runs `optimisation` along `course` from `state` on, whose values are the course's.
///
/// # Errors
/// As [`train`].
pub fn follow(
    job: &Job,
    mut state: Checkpoint,
    optimisation: &Optimisation,
    course: &mut dyn Course,
) -> Result<Trained, EngineError> {
    let mut saved = Instant::now();
    let mut shown: Option<Instant> = None;
    let iterations = optimisation.iterations;
    while state.iteration < iterations {
        if job.stopping() {
            save(job, &mut state, course)?;
            return Err(EngineError::Interrupted);
        }
        let Advance { losses, finite } = course.advance(state.iteration, iterations)?;
        let last_loss = losses.len() - 1;
        for (i, losses) in losses.iter().enumerate() {
            // The loss of the next iteration would show values that are not finite, but there may be none.
            if !losses.total.is_finite() || (i == last_loss && !finite) {
                return Ok(Trained::Diverged(state.iteration, state.curve));
            }
            let rate = learning_rate(optimisation, state.iteration);
            state.iteration += 1;
            record(&mut state, *losses, rate, iterations);
        }

        let last = state.iteration == iterations;
        if last || saved.elapsed() >= CHECKPOINT_INTERVAL {
            save(job, &mut state, course)?;
            saved = Instant::now();
        }
        if last || shown.is_none_or(|at| at.elapsed() >= Progress::INTERVAL) {
            (job.progress)(Progress {
                done: state.iteration as u64,
                total: iterations as u64,
                unit: "iterations",
                note: format!("loss {:.4}", losses[last_loss].total),
            });
            shown = Some(Instant::now());
        }
    }
    // A run that had come to its end before has its values in the checkpoint, and in the course.
    course.keep(&mut state)?;
    Ok(Trained::Completed(state))
}

/// A run whose optimiser is the processor's, whoever computes the gradient.
struct OnProcessor<'a> {
    objective: &'a mut dyn Objective,
    optimisation: &'a Optimisation,
    ema_halflife_iterations: f64,
    segments: Vec<(Range<usize>, f64)>,
    adamw: AdamW,
    values: Vec<f32>,
    average: Vec<f32>,
    gradient: Vec<f32>,
}

impl Course for OnProcessor<'_> {
    fn advance(&mut self, iteration: usize, _: usize) -> Result<Advance> {
        let losses = self.objective.gradient(iteration, &self.values, &mut self.gradient)?;
        if losses.total.is_finite() {
            let Self { adamw, optimisation, segments, values, gradient, .. } = self;
            descend(adamw, optimisation, iteration, segments, values, gradient);
            if self.ema_halflife_iterations > 0.0 {
                let decay = average_decay(self.ema_halflife_iterations, iteration);
                kernels::average(&mut self.average, &self.values, decay);
            }
        }
        let finite = self.values.iter().all(|value| value.is_finite());
        Ok(Advance { losses: vec![losses], finite })
    }

    fn keep(&self, state: &mut Checkpoint) -> Result<()> {
        let (first, second) = self.adamw.moments();
        (state.values, state.average) = (self.values.clone(), self.average.clone());
        (state.first_moment, state.second_moment) = (first.to_vec(), second.to_vec());
        Ok(())
    }
}

/// Changes `values` by one step of AdamW; `segments` are those of [`Layout::segments`].
pub(crate) fn descend(
    adamw: &mut AdamW,
    optimisation: &Optimisation,
    iteration: usize,
    segments: &[(Range<usize>, f64)],
    values: &mut [f32],
    gradient: &[f32],
) {
    let learning_rate = learning_rate(optimisation, iteration);
    let groups = segments.iter().map(|(range, factor)| Group {
        range: range.clone(),
        learning_rate: learning_rate * factor,
        weight_decay: optimisation.weight_decay,
    });
    adamw.step(values, gradient, &groups.collect::<Vec<_>>());
}

fn save(job: &Job, state: &mut Checkpoint, course: &dyn Course) -> Result<()> {
    course.keep(state)?;
    state.save(job.directory)
}

/// Linear warm-up, then a cosine from the first to the last learning rate.
pub(crate) fn learning_rate(optimisation: &Optimisation, iteration: usize) -> f64 {
    let Optimisation { learning_rate: first, final_learning_rate: last, warmup_iterations: warmup, .. } = *optimisation;
    if iteration < warmup {
        return first * (iteration + 1) as f64 / warmup as f64;
    }
    let span = (optimisation.iterations - warmup).max(1) as f64;
    let done = (iteration - warmup) as f64 / span;
    last + (first - last) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

/// Decay of the average: its half-life, but never longer than a tenth of what has been done, so that the first
/// weights are forgotten.
pub(crate) fn average_decay(halflife_iterations: f64, iteration: usize) -> f64 {
    let halflife = halflife_iterations.min((iteration + 1) as f64 * 0.1);
    0.5_f64.powf(1.0 / halflife)
}

fn record(state: &mut Checkpoint, losses: Losses, learning_rate: f64, iterations: usize) {
    state.running.add(&losses);
    let done = state.iteration;
    let point = |iteration: usize| iteration * CURVE_POINTS / iterations;
    if point(done) > point(done - 1) {
        let losses = state.running.take();
        state.curve.push(CurvePoint { iteration: done as u64, learning_rate, losses });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optimisation(iterations: usize) -> Optimisation {
        Optimisation {
            iterations,
            batch: 1,
            learning_rate: 1e-3,
            final_learning_rate: 1e-4,
            warmup_iterations: 10,
            weight_decay: 0.0,
            horizontal_flip: false,
            micro_batch: None,
        }
    }

    #[test]
    fn learning_rate_rises_then_falls_to_its_last_value() {
        let o = optimisation(110);
        assert_eq!(learning_rate(&o, 0), 1e-4);
        assert_eq!(learning_rate(&o, 9), 1e-3);
        assert_eq!(learning_rate(&o, 10), 1e-3);
        assert!((learning_rate(&o, 60) - 5.5e-4).abs() < 1e-12);
        assert!(learning_rate(&o, 109) > 1e-4 && learning_rate(&o, 109) < 1.01e-4);
    }
}
