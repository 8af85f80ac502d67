//! The arithmetic of one reverse step on one sample.

use crate::Step;
use crate::exp::exp;
use crate::kind::{Kind, Variance};

/// The coefficients of one reverse step, folded to `f32`. Also for those who do its arithmetic elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// `x0 = recip * x_t - recipm1 * eps`, held to `[-limit, limit]`.
    pub recip: f32,
    /// See `recip`.
    pub recipm1: f32,
    /// See `recip`.
    pub limit: f32,
    /// DDPM: `x_{t-1} = mean_x0 * x0 + mean_xt * x_t + std * noise`.
    pub mean_x0: f32,
    /// See `mean_x0`.
    pub mean_xt: f32,
    /// DDPM: `ln std = middle + half_range * v`.
    pub middle: f32,
    /// See `middle`.
    pub half_range: f32,
    /// DDIM and PNDM: `x_{t-1} = signal * x0 + spread * (recip * x_t - x0) / recipm1 + sigma * noise`.
    pub signal: f32,
    /// See `signal`.
    pub spread: f32,
    /// See `signal`.
    pub sigma: f32,
    /// Whether DDIM's formula is meant, and not DDPM's.
    pub ddim: bool,
    /// Whether noise is added: not in the last step, not by DDIM with `eta` 0, never by PNDM.
    pub noisy: bool,
}

/// One reverse step.
pub(crate) struct Reverse {
    kind: Kind,
    variance: Variance,
    pub(crate) coefficients: Coefficients,
}

impl Reverse {
    /// Of `step`; `last` if it ends the run.
    pub(crate) fn new(step: &Step, last: bool, kind: Kind, variance: Variance, clip_x0: bool) -> Self {
        let Step { beta, alpha_bar, alpha_bar_prev: prev, posterior_log_variance: low, .. } = *step;
        let (middle, half_range) = match variance {
            Variance::LearnedRange => (0.25 * (beta.ln() + low), 0.25 * (beta.ln() - low)),
            Variance::FixedLarge => (0.5 * if last { low } else { beta.ln() }, 0.0),
        };
        let eta = match kind {
            Kind::Ddpm | Kind::Pndm => 0.0,
            Kind::Ddim { eta } => eta,
        };
        let sigma = eta * ((1.0 - prev) / (1.0 - alpha_bar) * (1.0 - alpha_bar / prev)).sqrt();
        let coefficients = Coefficients {
            recip: step.sqrt_recip_alpha_bar as f32,
            recipm1: step.sqrt_recipm1_alpha_bar as f32,
            limit: if clip_x0 { 1.0 } else { f32::INFINITY },
            mean_x0: step.posterior_mean_x0 as f32,
            mean_xt: step.posterior_mean_xt as f32,
            middle: middle as f32,
            half_range: half_range as f32,
            signal: prev.sqrt() as f32,
            spread: (1.0 - prev - sigma * sigma).max(0.0).sqrt() as f32,
            sigma: sigma as f32,
            ddim: kind != Kind::Ddpm,
            noisy: !last && (kind == Kind::Ddpm || eta != 0.0),
        };
        Self { kind, variance, coefficients }
    }

    #[inline(always)]
    pub(crate) fn x0(&self, x_t: f32, eps: f32) -> f32 {
        let Coefficients { recip, recipm1, limit, .. } = self.coefficients;
        (recip * x_t - recipm1 * eps).clamp(-limit, limit)
    }

    /// The noise that `x0` implies: not the predicted one where `x0` was clipped.
    #[inline(always)]
    pub(crate) fn eps(&self, x_t: f32, x0: f32) -> f32 {
        (self.coefficients.recip * x_t - x0) / self.coefficients.recipm1
    }

    #[inline(always)]
    pub(crate) fn mean(&self, x_t: f32, x0: f32) -> f32 {
        self.coefficients.mean_x0 * x0 + self.coefficients.mean_xt * x_t
    }

    #[inline(always)]
    pub(crate) fn log_std(&self, v: f32) -> f32 {
        self.coefficients.middle + self.coefficients.half_range * v
    }

    /// `x` goes from `x_t` to `x_{t-1}`; `noise` is read where the step is noisy.
    pub(crate) fn step(&self, x: &mut [f32], output: &[f32], noise: &[f32]) {
        let (eps, values) = output.split_at(x.len());
        let Coefficients { signal, spread, sigma, noisy, .. } = self.coefficients;
        let noise = if noisy { &noise[..x.len()] } else { &[] };
        match (self.kind, noisy) {
            (Kind::Ddpm, false) => each(x, eps, |x, e| self.mean(x, self.x0(x, e))),
            (Kind::Ddpm, true) => match self.variance {
                Variance::LearnedRange => {
                    each(x, eps, |x, e| self.mean(x, self.x0(x, e)));
                    for ((x, &v), &z) in x.iter_mut().zip(values).zip(noise) {
                        *x += exp(self.log_std(v)) * z;
                    }
                }
                Variance::FixedLarge => {
                    let std = exp(self.log_std(0.0));
                    each(x, eps, |x, e| self.mean(x, self.x0(x, e)));
                    each(x, noise, |x, z| x + std * z);
                }
            },
            (Kind::Ddim { .. } | Kind::Pndm, noisy) => {
                each(x, eps, |x, e| {
                    let x0 = self.x0(x, e);
                    signal * x0 + spread * self.eps(x, x0)
                });
                if noisy {
                    each(x, noise, |x, z| x + sigma * z);
                }
            }
        }
    }
}

/// `x[i] = f(x[i], y[i])`.
#[inline(always)]
fn each(x: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = f(*x, y);
    }
}
