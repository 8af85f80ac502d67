//! What PNDM remembers of a run, and the noise it makes of it.
//!
//! Pseudo linear multistep (Liu et al. 2022), as Stable Diffusion runs it: without Runge-Kutta steps; instead the first
//! step is taken a second time, with the mean of the predictions at both of its ends. Every step is that of the
//! deterministic DDIM, with a combination of the last four predictions in place of the last one.

/// Adams-Bashforth weights of the predictions, latest first, by how many there are.
const WEIGHTS: [&[f32]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// What a call of PNDM makes of the predictions. Also for those who do its arithmetic elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multistep {
    /// Weights of the predictions, the latest (this call's) first: the noise of the step is their weighted sum.
    pub weights: &'static [f32],
    /// Whether the first step is taken again: from the initial noise, and this call's prediction is not remembered.
    pub restarts: bool,
}

impl Multistep {
    /// Of call `call`.
    pub(crate) fn of(call: usize) -> Self {
        match call {
            1 => Self { weights: &[0.5, 0.5], restarts: true },
            _ => Self { weights: WEIGHTS[call.clamp(1, WEIGHTS.len()) - 1], restarts: false },
        }
    }
}

/// What a sampler remembers of one sample between the calls of a run; empty before it. Only PNDM remembers anything.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The last predictions `[C * H * W]`, latest first, at most as many as there are weights.
    predictions: Vec<Vec<f32>>,
    /// The initial noise, from which the first step is taken twice.
    start: Vec<f32>,
}

impl History {
    /// Takes in the predicted noise of call `call` and returns the noise of its step; in the second call `x` becomes the
    /// initial noise again. Panics if the calls before it were not those of this run.
    pub(crate) fn combine(&mut self, call: usize, x: &mut [f32], eps: &[f32]) -> Vec<f32> {
        let Multistep { weights, restarts } = Multistep::of(call);
        if call == 0 {
            self.predictions.clear();
            self.start = x.to_vec();
        }
        self.predictions.insert(0, eps.to_vec());
        self.predictions.truncate(WEIGHTS.len());
        assert_eq!(self.predictions.len(), weights.len(), "a history of this run, at call {call}");
        let mut noise = vec![0.0; eps.len()];
        for (prediction, weight) in self.predictions.iter().zip(weights) {
            noise.iter_mut().zip(prediction).for_each(|(noise, value)| *noise += weight * value);
        }
        if restarts {
            x.copy_from_slice(&self.start);
            self.predictions.remove(0);
        }
        noise
    }
}

/// The places of a process of `len` steps at which PNDM calls the denoiser: all but the first, where it ends; from the
/// last; the second twice.
pub(crate) fn places(len: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (1..len).rev().collect();
    if let Some(&second) = places.get(1) {
        places.insert(1, second);
    }
    places
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::{Kind, Process, Sampler, Schedule, Spacing, Variance};

    /// Data `N(MEAN, STD^2)`.
    const MEAN: f64 = 0.3;
    const STD: f64 = 0.5;

    static WHOLE: LazyLock<Process> = LazyLock::new(|| Process::new(Schedule::ScaledLinear, 1000).unwrap());

    fn sampler(kind: Kind, steps: usize, clip_x0: bool) -> Sampler {
        Sampler::new(WHOLE.respaced(&Spacing::Leading(steps)).unwrap(), kind, Variance::FixedLarge, clip_x0)
    }

    /// The exact prediction of the noise in `x` at timestep `t`.
    fn eps(x: f32, t: usize) -> f32 {
        let alpha_bar = WHOLE.step(t).alpha_bar;
        let gain = (1.0 - alpha_bar).sqrt() / (alpha_bar * STD * STD + 1.0 - alpha_bar);
        (gain * (f64::from(x) - alpha_bar.sqrt() * MEAN)) as f32
    }

    /// Runs from `x`, over a process that ends at timestep 0.
    fn run(sampler: &Sampler, mut x: f32, history: &mut History) -> f32 {
        for call in 0..sampler.calls() {
            // DDIM's process would go on below timestep 0.
            if sampler.timestep(call) > 0 {
                let output = [eps(x, sampler.timestep(call))];
                sampler.advance(call, std::slice::from_mut(&mut x), &output, history, 0, 0);
            }
        }
        x
    }

    /// The probability flow of normal data is linear: it keeps the number of standard deviations from the mean.
    fn flow(x: f32, from: usize) -> f32 {
        let moments = |t: usize| {
            let alpha_bar = WHOLE.step(t).alpha_bar;
            (alpha_bar.sqrt() * MEAN, (alpha_bar * STD * STD + 1.0 - alpha_bar).sqrt())
        };
        let ((mean, std), (end_mean, end_std)) = (moments(from), moments(0));
        ((f64::from(x) - mean) / std * end_std + end_mean) as f32
    }

    /// Each halving of the step: an error far below DDIM's, and falling faster.
    #[test]
    fn many_steps_follow_the_probability_flow() {
        let start = 1.7;
        let error = |kind, steps: usize| {
            let sampler = sampler(kind, steps, false);
            let exact = flow(start, sampler.timestep(0));
            (run(&sampler, start, &mut History::default()) - exact).abs()
        };
        let (coarse, fine) = (error(Kind::Pndm, 25), error(Kind::Pndm, 100));
        let (ddim_coarse, ddim_fine) = (error(Kind::Ddim { eta: 0.0 }, 25), error(Kind::Ddim { eta: 0.0 }, 100));
        assert!(fine < 1e-3 && fine < 0.2 * ddim_fine, "{coarse} {fine} {ddim_coarse} {ddim_fine}");
        assert!(coarse < 0.5 * ddim_coarse && coarse / fine > 2.0 * ddim_coarse / ddim_fine);
    }

    /// A prediction that does not change makes every combination that prediction, and every step DDIM's.
    #[test]
    fn the_weights_of_every_length_sum_to_one() {
        let mut history = History::default();
        let mut x = [0.5_f32, -0.25];
        for call in 0..8 {
            let noise = history.combine(call, &mut x, &[2.0, -4.0]);
            assert!((noise[0] - 2.0).abs() < 1e-6 && (noise[1] + 4.0).abs() < 1e-6, "call {call}: {noise:?}");
        }
    }

    #[test]
    fn the_second_step_is_called_twice() {
        assert_eq!(places(5), [4, 3, 3, 2, 1]);
        assert_eq!(places(3), [2, 1, 1]);
        assert_eq!(places(2), [1]);
        let two = sampler(Kind::Pndm, 2, false);
        assert_eq!((0..two.calls()).map(|call| two.timestep(call)).collect::<Vec<_>>(), [501, 1, 1]);
    }

    #[test]
    fn a_history_serves_one_run_after_another() {
        let sampler = sampler(Kind::Pndm, 10, false);
        let mut history = History::default();
        let first = run(&sampler, 0.4, &mut history);
        run(&sampler, -1.0, &mut history);
        assert_eq!(run(&sampler, 0.4, &mut history).to_bits(), first.to_bits());
    }

    #[test]
    #[should_panic(expected = "a history of this run, at call 5")]
    fn a_history_of_fewer_calls_is_refused() {
        let mut history = History::default();
        let sampler = sampler(Kind::Pndm, 10, false);
        for call in [0, 1, 2, 5] {
            sampler.advance(call, &mut [0.1], &[0.2], &mut history, 0, 0);
        }
    }

    /// With an image held to [-1, 1], the last step leaves at most that and its share of noise.
    #[test]
    fn the_predicted_image_can_be_clipped() {
        let end = |clip_x0| {
            let sampler = sampler(Kind::Pndm, 10, clip_x0);
            let (mut x, mut history) = ([3.0], History::default());
            for call in 0..sampler.calls() {
                sampler.advance(call, &mut x, &[-1.0], &mut history, 0, 0);
            }
            x[0]
        };
        assert!(end(false) > 10.0 && end(true).abs() < 1.1, "{} {}", end(false), end(true));
    }
}
