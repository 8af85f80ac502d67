//! The Gaussian process that turns data into noise, and every table derived from it.

use std::f64::consts::FRAC_PI_2;

use crate::{Error, Spacing};

/// How fast noise is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Betas from `0.1 / T` to `20 / T` along a line (Ho et al. 2020, for any `T`).
    Linear,
    /// Betas from `0.85 / T` to `12 / T` whose roots lie on a line: Stable Diffusion's `scaled_linear` at `T = 1000`
    /// (Rombach et al. 2022).
    ScaledLinear,
    /// `alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi / 2)`, betas at most 0.999 (Nichol & Dhariwal 2021).
    Cosine,
}

impl Schedule {
    fn betas(self, timesteps: usize) -> Vec<f64> {
        let n = timesteps as f64;
        match self {
            Self::Linear => line(1000.0 / n * 1e-4, 1000.0 / n * 0.02, timesteps).collect(),
            Self::ScaledLinear => {
                let (first, last) = (1000.0 / n * 0.00085, 1000.0 / n * 0.012);
                line(first.sqrt(), last.sqrt(), timesteps).map(|root| root * root).collect()
            }
            Self::Cosine => {
                let alpha_bar = |u: f64| ((u + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
                let beta = |i: usize| 1.0 - alpha_bar((i + 1) as f64 / n) / alpha_bar(i as f64 / n);
                (0..timesteps).map(|i| beta(i).min(0.999)).collect()
            }
        }
    }
}

/// `count` values from `first` to `last`, evenly spaced.
fn line(first: f64, last: f64, count: usize) -> impl Iterator<Item = f64> {
    let stride = (last - first) / (count as f64 - 1.0);
    (0..count).map(move |i| if i + 1 == count { last } else { i as f64 * stride + first })
}

/// Everything known about one timestep `t`, in `f64`. Bars are cumulative products of `alpha = 1 - beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The timestep in the unspaced process: what a denoiser is told.
    pub timestep: usize,
    /// Variance added by this step.
    pub beta: f64,
    /// `alpha_bar_t`.
    pub alpha_bar: f64,
    /// `alpha_bar_{t-1}`; 1 at the first step.
    pub alpha_bar_prev: f64,
    /// `alpha_bar_{t+1}`; 0 at the last step.
    pub alpha_bar_next: f64,
    /// `sqrt(1 / alpha_bar)`.
    pub sqrt_recip_alpha_bar: f64,
    /// `sqrt(1 / alpha_bar - 1)`.
    pub sqrt_recipm1_alpha_bar: f64,
    /// Variance of `q(x_{t-1} | x_t, x_0)`; 0 at the first step.
    pub posterior_variance: f64,
    /// Its logarithm; the first step takes the second's.
    pub posterior_log_variance: f64,
    /// Weight of `x_0` in the mean of `q(x_{t-1} | x_t, x_0)`.
    pub posterior_mean_x0: f64,
    /// Weight of `x_t` in that mean.
    pub posterior_mean_xt: f64,
}

impl Step {
    /// Signal-to-noise ratio `alpha_bar / (1 - alpha_bar)`.
    pub fn snr(&self) -> f64 {
        self.alpha_bar / (1.0 - self.alpha_bar)
    }
}

/// A diffusion process, whole or respaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    steps: Vec<Step>,
}

impl Process {
    /// The process of `timesteps` steps. Fails if a beta leaves (0, 1), as short linear schedules do.
    pub fn new(schedule: Schedule, timesteps: usize) -> Result<Self, Error> {
        if timesteps < 2 {
            return Err(Error::TooShort(timesteps));
        }
        Self::from_betas(&schedule.betas(timesteps), &(0..timesteps).collect::<Vec<_>>())
    }

    /// The process that visits only the timesteps which `spacing` keeps, with betas such that its `alpha_bar` is the
    /// whole process's at those timesteps.
    pub fn respaced(&self, spacing: &Spacing) -> Result<Self, Error> {
        self.keeping(&spacing.timesteps(self.len())?)
    }

    /// As [`Process::respaced`], for a rising list of places in this process.
    pub fn keeping(&self, kept: &[usize]) -> Result<Self, Error> {
        if kept.len() < 2 {
            return Err(Error::TooShort(kept.len()));
        }
        let mut last = 1.0;
        let mut betas = Vec::with_capacity(kept.len());
        for (place, &timestep) in kept.iter().enumerate() {
            if timestep >= self.len() || (place > 0 && timestep <= kept[place - 1]) {
                return Err(Error::Order { timestep, place, timesteps: self.len() });
            }
            let alpha_bar = self.steps[timestep].alpha_bar;
            betas.push(1.0 - alpha_bar / last);
            last = alpha_bar;
        }
        let map: Vec<usize> = kept.iter().map(|&t| self.steps[t].timestep).collect();
        Self::from_betas(&betas, &map)
    }

    fn from_betas(betas: &[f64], timestep_map: &[usize]) -> Result<Self, Error> {
        if let Some(step) = betas.iter().position(|&b| !(b > 0.0 && b < 1.0)) {
            return Err(Error::Beta { timesteps: betas.len(), step, beta: betas[step] });
        }
        let product = |last: &mut f64, &beta: &f64| {
            *last *= 1.0 - beta;
            Some(*last)
        };
        let bars: Vec<f64> = betas.iter().scan(1.0, product).collect();
        let before = |t: usize| if t == 0 { 1.0 } else { bars[t - 1] };
        let variance = |t: usize| betas[t] * (1.0 - before(t)) / (1.0 - bars[t]);
        let step = |t: usize| Step {
            timestep: timestep_map[t],
            beta: betas[t],
            alpha_bar: bars[t],
            alpha_bar_prev: before(t),
            alpha_bar_next: bars.get(t + 1).copied().unwrap_or(0.0),
            sqrt_recip_alpha_bar: (1.0 / bars[t]).sqrt(),
            sqrt_recipm1_alpha_bar: (1.0 / bars[t] - 1.0).sqrt(),
            posterior_variance: variance(t),
            posterior_log_variance: variance(t.max(1)).ln(),
            posterior_mean_x0: betas[t] * before(t).sqrt() / (1.0 - bars[t]),
            posterior_mean_xt: (1.0 - before(t)) * (1.0 - betas[t]).sqrt() / (1.0 - bars[t]),
        };
        Ok(Self { steps: (0..betas.len()).map(step).collect() })
    }

    /// Number of steps.
    #[allow(clippy::len_without_is_empty, reason = "a process has two steps at least")]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// All steps, from the least noise to the most.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Step `t`; panics beyond the end.
    pub fn step(&self, t: usize) -> &Step {
        &self.steps[t]
    }

    /// Draws from `q(x_t | x_0)`: `x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise`. All slices are one sample
    /// (or several that share `t`).
    pub fn q_sample(&self, t: usize, x0: &[f32], noise: &[f32], x_t: &mut [f32]) {
        assert!(x0.len() == noise.len() && x0.len() == x_t.len(), "samples of different lengths");
        let alpha_bar = self.steps[t].alpha_bar;
        let (signal, spread) = (alpha_bar.sqrt() as f32, (1.0 - alpha_bar).sqrt() as f32);
        for ((out, &x), &e) in x_t.iter_mut().zip(x0).zip(noise) {
            *out = signal * x + spread * e;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_linear_schedule_adds_about_as_much_noise() {
        let end = |timesteps| Process::new(Schedule::Linear, timesteps).unwrap().steps[timesteps - 1];
        assert_eq!(end(250).beta, 0.08);
        assert!((Process::new(Schedule::Linear, 250).unwrap().step(0).beta - 4e-4).abs() < 1e-18);
        assert!((end(500).alpha_bar.ln() / end(1000).alpha_bar.ln() - 1.0).abs() < 0.02);
        assert!(Process::new(Schedule::Cosine, 50).unwrap().step(49).alpha_bar < 1e-4);
        let scaled = |timesteps| Process::new(Schedule::ScaledLinear, timesteps).unwrap().steps[timesteps - 1];
        assert!((scaled(250).alpha_bar.ln() / scaled(1000).alpha_bar.ln() - 1.0).abs() < 0.02);
    }

    /// The middle of an odd number of roots is the mean of the outer two.
    #[test]
    fn the_roots_of_scaled_betas_lie_on_a_line() {
        let process = Process::new(Schedule::ScaledLinear, 1001).unwrap();
        let root = |t: usize| process.step(t).beta.sqrt();
        assert!(
            (root(0).powi(2) * 1.001 - 0.00085).abs() < 1e-15 && (root(1000).powi(2) * 1.001 - 0.012).abs() < 1e-15
        );
        assert!((root(500) - 0.5 * (root(0) + root(1000))).abs() < 1e-15);
    }

    #[test]
    fn respacing_keeps_alpha_bar_and_the_original_timesteps() {
        let whole = Process::new(Schedule::Cosine, 300).unwrap();
        let half = whole.keeping(&(0..300).step_by(2).collect::<Vec<_>>()).unwrap();
        let quarter = half.keeping(&(0..150).step_by(2).collect::<Vec<_>>()).unwrap();
        assert_eq!(quarter.len(), 75);
        for (i, step) in quarter.steps().iter().enumerate() {
            assert_eq!(step.timestep, 4 * i);
            let alpha_bar = whole.step(4 * i).alpha_bar;
            assert!((step.alpha_bar / alpha_bar - 1.0).abs() < 1e-10);
        }
    }

    /// Bayes' rule on Gaussians: precisions add up.
    #[test]
    fn the_posterior_is_the_product_of_its_gaussians() {
        for step in &Process::new(Schedule::Linear, 100).unwrap().steps[1..] {
            let alpha = 1.0 - step.beta;
            let precision = alpha / step.beta + 1.0 / (1.0 - step.alpha_bar_prev);
            assert!((step.posterior_variance * precision - 1.0).abs() < 1e-9);
            let from_xt = alpha.sqrt() / step.beta / precision;
            let from_x0 = step.alpha_bar_prev.sqrt() / (1.0 - step.alpha_bar_prev) / precision;
            assert!((step.posterior_mean_xt - from_xt).abs() < 1e-9);
            assert!((step.posterior_mean_x0 - from_x0).abs() < 1e-9);
        }
    }

    #[test]
    fn impossible_processes_are_refused() {
        assert_eq!(Process::new(Schedule::Cosine, 1).unwrap_err(), Error::TooShort(1));
        assert_eq!(Process::new(Schedule::Cosine, 0).unwrap_err(), Error::TooShort(0));
        let short = Process::new(Schedule::Linear, 20).unwrap_err();
        assert_eq!(short, Error::Beta { timesteps: 20, step: 19, beta: 1.0 });
        assert!(matches!(Process::new(Schedule::ScaledLinear, 12).unwrap_err(), Error::Beta { step: 11, .. }));
        assert!(short.to_string().contains("use more timesteps"), "{short}");
        let whole = Process::new(Schedule::Cosine, 10).unwrap();
        assert_eq!(whole.keeping(&[3]).unwrap_err(), Error::TooShort(1));
        for (kept, place) in [(&[0, 5, 5][..], 2), (&[4, 2], 1), (&[0, 10], 1)] {
            let timestep = kept[place];
            assert_eq!(whole.keeping(kept).unwrap_err(), Error::Order { timestep, place, timesteps: 10 });
        }
    }
}
