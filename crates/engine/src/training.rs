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

/// How training ended.
pub enum Trained {
    /// After its last iteration.
    Completed(Checkpoint),
    /// At the first iteration whose loss, or what it made of the values, was not finite, with the curve up to there.
    Diverged(usize, Vec<CurvePoint>),
}

/// Runs `optimisation` from `initial` values, or from the job's checkpoint where there is one.
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
    let keep_average = ema_halflife_iterations > 0.0;
    let mut state = match Checkpoint::load(job.directory, layout.len())? {
        Some(state) => state,
        None => Checkpoint::start(initial, keep_average),
    };
    let (first, second) = (std::mem::take(&mut state.first_moment), std::mem::take(&mut state.second_moment));
    let mut adamw = AdamW::from_state(state.iteration as u64, first, second);
    let segments = layout.segments();
    let mut gradient = vec![0.0; layout.len()];
    let mut saved = Instant::now();
    let mut shown: Option<Instant> = None;

    while state.iteration < optimisation.iterations {
        if job.stopping() {
            save(job, &mut state, &adamw)?;
            return Err(EngineError::Interrupted);
        }
        let iteration = state.iteration;
        let losses = objective.gradient(iteration, &state.values, &mut gradient)?;
        if !losses.total.is_finite() {
            return Ok(Trained::Diverged(iteration, state.curve));
        }
        let learning_rate = descend(&mut adamw, optimisation, iteration, &segments, &mut state.values, &gradient);
        if keep_average {
            let decay = average_decay(ema_halflife_iterations, iteration);
            kernels::average(&mut state.average, &state.values, decay);
        }
        // The loss of the next iteration would show it, but there may be none.
        if !state.values.iter().all(|value| value.is_finite()) {
            return Ok(Trained::Diverged(iteration, state.curve));
        }
        state.iteration += 1;
        record(&mut state, losses, learning_rate, optimisation.iterations);

        let last = state.iteration == optimisation.iterations;
        if last || saved.elapsed() >= CHECKPOINT_INTERVAL {
            save(job, &mut state, &adamw)?;
            saved = Instant::now();
        }
        if last || shown.is_none_or(|at| at.elapsed() >= Progress::INTERVAL) {
            (job.progress)(Progress {
                done: state.iteration as u64,
                total: optimisation.iterations as u64,
                unit: "iterations",
                note: format!("loss {:.4}", losses.total),
            });
            shown = Some(Instant::now());
        }
    }
    Ok(Trained::Completed(state))
}

/// Changes `values` by one step of AdamW and returns its learning rate; `segments` are those of [`Layout::segments`].
pub(crate) fn descend(
    adamw: &mut AdamW,
    optimisation: &Optimisation,
    iteration: usize,
    segments: &[(Range<usize>, f64)],
    values: &mut [f32],
    gradient: &[f32],
) -> f64 {
    let learning_rate = learning_rate(optimisation, iteration);
    let groups = segments.iter().map(|(range, factor)| Group {
        range: range.clone(),
        learning_rate: learning_rate * factor,
        weight_decay: optimisation.weight_decay,
    });
    adamw.step(values, gradient, &groups.collect::<Vec<_>>());
    learning_rate
}

fn save(job: &Job, state: &mut Checkpoint, adamw: &AdamW) -> Result<()> {
    let (first, second) = adamw.moments();
    (state.first_moment, state.second_moment) = (first.to_vec(), second.to_vec());
    state.save(job.directory)
}

/// Linear warm-up, then a cosine from the first to the last learning rate.
fn learning_rate(optimisation: &Optimisation, iteration: usize) -> f64 {
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
fn average_decay(halflife_iterations: f64, iteration: usize) -> f64 {
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
