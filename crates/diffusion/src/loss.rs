//! What a denoiser is trained on: the error of its noise and the variational bound of its variance.

use std::f64::consts::LN_2;

use crate::exp::exp_f64;
use crate::likelihood::{discretised_gaussian, normal_kl};
use crate::{Process, Step};

/// Terms that are computed side by side.
const LANES: usize = 8;

/// Weight of the squared error by timestep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MseWeight {
    /// 1 everywhere.
    Constant,
    /// `min(snr, k) / snr` (Hang et al. 2023).
    MinSnr(f64),
}

impl MseWeight {
    /// The weight at a step.
    pub fn at(self, step: &Step) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::MinSnr(k) => step.snr().min(k) / step.snr(),
        }
    }
}

/// The two terms of one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleLoss {
    /// Weighted mean squared error of the predicted noise.
    pub mse: f64,
    /// Variational bound in bits per dimension; 0 where the variance is not learned.
    pub vb: f64,
}

impl SampleLoss {
    /// The sum of both.
    pub fn total(&self) -> f64 {
        self.mse + self.vb
    }
}

/// `mse + vb` of the improved DDPM and DiT: `vb` is `KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))`, at `t = 0` the
/// negative log likelihood of the data's 8-bit bins. It trains the variance only: the mean inside it is a constant.
#[derive(Clone, Debug)]
pub struct TrainingLoss {
    process: Process,
    weight: MseWeight,
}

impl TrainingLoss {
    /// The loss over `process`.
    pub fn new(process: Process, weight: MseWeight) -> Self {
        Self { process, weight }
    }

    /// The process whose noise is predicted.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The weight of the squared error.
    pub fn weight(&self) -> MseWeight {
        self.weight
    }

    /// Loss of one sample at step `t`.
    ///
    /// # Shapes
    /// `x0`, `x_t`, `noise` `[C * H * W]`; `output` `[2 * C * H * W]` (noise, then variance values in the learned
    /// range) or `[C * H * W]`; `grad`, if given, like `output`: it is overwritten with `scale` times the derivative of
    /// [`SampleLoss::total`]. Panics where the lengths do not fit.
    #[allow(clippy::too_many_arguments, reason = "one sample's slices, without a struct to build per sample")]
    pub fn sample_loss(
        &self,
        t: usize,
        x0: &[f32],
        x_t: &[f32],
        noise: &[f32],
        output: &[f32],
        mut grad: Option<&mut [f32]>,
        scale: f64,
    ) -> SampleLoss {
        let n = x0.len();
        assert!(x_t.len() == n && noise.len() == n, "samples of different lengths");
        assert!(output.len() == n || output.len() == 2 * n, "{} outputs for {n} elements", output.len());
        assert!(grad.as_ref().is_none_or(|g| g.len() == output.len()), "a gradient like the output");
        let step = self.process.step(t);
        let (eps, variance) = output.split_at(n);
        let (grad_eps, grad_variance) = match grad.take() {
            Some(g) => g.split_at_mut(n),
            None => Default::default(),
        };
        let weight = self.weight.at(step) / n as f64;
        // Additions and multiplications alone, never fused: every width of vector gives the same bits.
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let mse = squared_error(eps, noise, weight, grad_eps, scale);
                if variance.is_empty() {
                    return SampleLoss { mse, vb: 0.0 };
                }
                let bound = Bound::new(step, n);
                let slope = bound.per_element * scale;
                let inputs = [x0, x_t, eps, variance];
                let vb = if t == 0 {
                    each_term(inputs, grad_variance, slope, |values| bound.decoder(values))
                } else {
                    each_term(
                        inputs,
                        grad_variance,
                        slope,
                        #[inline(always)]
                        |values| bound.divergence(values),
                    )
                };
                SampleLoss { mse, vb: vb * bound.per_element }
            },
        )
    }

    /// Losses of a batch, and the derivative of their mean with respect to `output`. Shapes as in
    /// [`TrainingLoss::sample_loss`] with a leading `B = t.len()`.
    pub fn batch_loss(
        &self,
        t: &[usize],
        x0: &[f32],
        x_t: &[f32],
        noise: &[f32],
        output: &[f32],
        mut grad: Option<&mut [f32]>,
    ) -> Vec<SampleLoss> {
        let batch = t.len();
        assert!(batch > 0 && x0.len().is_multiple_of(batch) && output.len().is_multiple_of(batch), "whole samples");
        let (n, m) = (x0.len() / batch, output.len() / batch);
        let sample = |(i, &t): (usize, &usize)| {
            let (image, out) = (i * n..(i + 1) * n, i * m..(i + 1) * m);
            let grad = grad.as_deref_mut().map(|g| &mut g[out.clone()]);
            let scale = 1.0 / batch as f64;
            let (x0, x_t, noise) = (&x0[image.clone()], &x_t[image.clone()], &noise[image]);
            self.sample_loss(t, x0, x_t, noise, &output[out], grad, scale)
        };
        t.iter().enumerate().map(sample).collect()
    }
}

/// `weight * sum (eps - noise)^2`, and `scale` times its derivative in `grad` unless that is empty.
#[inline(always)]
fn squared_error(eps: &[f32], noise: &[f32], weight: f64, grad: &mut [f32], scale: f64) -> f64 {
    let slope = (2.0 * weight * scale) as f32;
    for ((g, &e), &n) in grad.iter_mut().zip(eps).zip(noise) {
        *g = slope * (e - n);
    }
    let squares = each_term(
        [eps, noise],
        &mut [],
        0.0,
        #[inline(always)]
        |[e, n]| ((e - n) * (e - n), 0.0),
    );
    weight * squares
}

/// Sum of the terms of all elements, whose slopes times `scale` go to `grad` unless that is empty. [`LANES`] elements are
/// computed side by side, and summed in an order of that width: the compiler makes vectors of them.
#[inline(always)]
fn each_term<const K: usize>(
    inputs: [&[f32]; K],
    grad: &mut [f32],
    scale: f64,
    term: impl Fn([f64; K]) -> (f64, f64),
) -> f64 {
    let (mut sums, mut slopes) = ([0.0; LANES], [0.0; LANES]);
    let (blocks, rest) = (inputs.map(|input| input.as_chunks::<LANES>().0), inputs.map(|i| i.as_chunks::<LANES>().1));
    #[expect(clippy::needless_range_loop, reason = "a block of every input, not of the first alone")]
    for block in 0..blocks[0].len() {
        let block_inputs: [&[f32; LANES]; K] = std::array::from_fn(|k| &blocks[k][block]);
        for lane in 0..LANES {
            let (value, slope) = term(std::array::from_fn(|k| f64::from(block_inputs[k][lane])));
            sums[lane] += value;
            slopes[lane] = slope * scale;
        }
        if let Some(grad) = grad.as_chunks_mut::<LANES>().0.get_mut(block) {
            *grad = slopes.map(|slope| slope as f32);
        }
    }
    for lane in 0..rest[0].len() {
        let (value, slope) = term(std::array::from_fn(|k| f64::from(rest[k][lane])));
        sums[lane] += value;
        if let Some(grad) = grad.as_chunks_mut::<LANES>().1.get_mut(lane) {
            *grad = (slope * scale) as f32;
        }
    }
    sums.iter().sum()
}

/// The variational bound of one step, element by element, in nats.
struct Bound<'a> {
    step: &'a Step,
    /// `ln beta - ln posterior variance`: the width of the learned range.
    range: f64,
    /// `e^-(posterior log variance)`.
    precision: f64,
    /// Nats of one element to bits per dimension.
    per_element: f64,
}

impl<'a> Bound<'a> {
    fn new(step: &'a Step, elements: usize) -> Self {
        Self {
            step,
            range: step.beta.ln() - step.posterior_log_variance,
            precision: (-step.posterior_log_variance).exp(),
            per_element: 1.0 / (elements as f64 * LN_2),
        }
    }

    #[inline(always)]
    fn predicted_x0(&self, x_t: f64, eps: f64) -> f64 {
        self.step.sqrt_recip_alpha_bar * x_t - self.step.sqrt_recipm1_alpha_bar * eps
    }

    /// KL of the true posterior from the predicted one, and its derivative by the variance value `v`. The true log
    /// variance is the lower end of the learned range, so that the difference of both is `(v + 1) / 2 * range`, and
    /// `x_t` cancels in the difference of the means.
    #[inline(always)]
    fn divergence(&self, [x0, x_t, eps, v]: [f64; 4]) -> (f64, f64) {
        let wider = 0.5 * (v + 1.0) * self.range;
        let shrink = exp_f64(-wider);
        let apart = self.step.posterior_mean_x0 * (x0 - self.predicted_x0(x_t, eps));
        let ratio = shrink * (1.0 + apart * apart * self.precision);
        (0.5 * (wider - 1.0 + ratio), 0.25 * self.range * (1.0 - ratio))
    }

    /// Negative log likelihood of the data's bin, and its derivative by `v`.
    fn decoder(&self, [x0, x_t, eps, v]: [f64; 4]) -> (f64, f64) {
        let mean = self.step.posterior_mean_x0 * self.predicted_x0(x_t, eps) + self.step.posterior_mean_xt * x_t;
        let log_scale = 0.5 * (self.step.posterior_log_variance + 0.5 * (v + 1.0) * self.range);
        let (log_likelihood, slope) = discretised_gaussian(x0, mean, log_scale);
        (-log_likelihood, -slope * 0.25 * self.range)
    }
}

impl Process {
    /// `KL(q(x_T | x_0) || N(0, 1))` of one sample in bits per dimension: what the end of the process still knows.
    pub fn prior_bpd(&self, x0: &[f32]) -> f64 {
        let last = self.step(self.len() - 1);
        let (signal, logvar) = (last.alpha_bar.sqrt(), (1.0 - last.alpha_bar).ln());
        let kl = x0.iter().map(|&x| normal_kl(signal * f64::from(x), logvar, 0.0, 0.0));
        kl.sum::<f64>() / (x0.len() as f64 * LN_2)
    }
}

#[cfg(test)]
mod tests {
    use random::{Draws, Stream};

    use super::*;
    use crate::Schedule;

    const ELEMENTS: usize = 6;

    fn normals(seed: u64, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        Draws::new(seed, Stream::TrainNoise, 0).fill_normal(0, &mut values);
        values
    }

    /// Data with both open bins, its noise, `x_t` and an output near the truth.
    fn sample(loss: &TrainingLoss, t: usize) -> [Vec<f32>; 4] {
        let mut x0: Vec<f32> = normals(1, ELEMENTS).iter().map(|v| v.clamp(-0.9, 0.9)).collect();
        (x0[0], x0[1]) = (-1.0, 1.0);
        let noise = normals(2, ELEMENTS);
        let mut x_t = vec![0.0; ELEMENTS];
        loss.process().q_sample(t, &x0, &noise, &mut x_t);
        let mut output = normals(3, 2 * ELEMENTS);
        output.iter_mut().zip(&noise).for_each(|(o, n)| *o = n + 0.3 * *o);
        [x0, x_t, noise, output]
    }

    #[test]
    fn the_gradient_is_the_finite_difference() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            for weight in [MseWeight::Constant, MseWeight::MinSnr(5.0)] {
                let loss = TrainingLoss::new(Process::new(schedule, 100).unwrap(), weight);
                for t in [0, 1, 7, 50, 99] {
                    let [x0, x_t, noise, output] = sample(&loss, t);
                    let mut grad = vec![f32::NAN; output.len()];
                    loss.sample_loss(t, &x0, &x_t, &noise, &output, Some(&mut grad), 0.25);
                    let at = |output: &[f32]| loss.sample_loss(t, &x0, &x_t, &noise, output, None, 0.25);
                    for (i, &g) in grad.iter().enumerate() {
                        let (mut less, mut more) = (output.clone(), output.clone());
                        less[i] -= 1e-2;
                        more[i] += 1e-2;
                        let width = f64::from(more[i]) - f64::from(less[i]);
                        let (less, more) = (at(&less), at(&more));
                        // The mean inside the bound is a constant: noise moves the squared error only.
                        let apart = if i < ELEMENTS { more.mse - less.mse } else { more.vb - less.vb };
                        let difference = 0.25 * apart / width;
                        let error = (f64::from(g) - difference).abs() / difference.abs().max(1e-2);
                        assert!(error < 1e-4, "{schedule:?} {weight:?} t {t} [{i}]: {g} {difference}");
                    }
                }
            }
        }
    }

    /// The bound against the general divergence, means and variances written out.
    #[test]
    fn the_bound_is_the_divergence_of_the_posteriors() {
        let loss = TrainingLoss::new(Process::new(Schedule::Linear, 100).unwrap(), MseWeight::Constant);
        for t in [1, 2, 60, 99] {
            let [x0, x_t, noise, output] = sample(&loss, t);
            let s = loss.process().step(t);
            let kl = |i: usize| {
                let [x0, x_t, eps, v] = [x0[i], x_t[i], output[i], output[i + ELEMENTS]].map(f64::from);
                let guess = (x_t - (1.0 - s.alpha_bar).sqrt() * eps) / s.alpha_bar.sqrt();
                let mean = |x0: f64| s.posterior_mean_x0 * x0 + s.posterior_mean_xt * x_t;
                let share = (v + 1.0) / 2.0;
                let logvar = share * s.beta.ln() + (1.0 - share) * s.posterior_variance.ln();
                normal_kl(mean(x0), s.posterior_variance.ln(), mean(guess), logvar)
            };
            let expected = (0..ELEMENTS).map(kl).sum::<f64>() / ELEMENTS as f64 / LN_2;
            let found = loss.sample_loss(t, &x0, &x_t, &noise, &output, None, 1.0);
            assert!((found.vb - expected).abs() < 1e-10 * expected.max(1.0), "t {t}: {} {expected}", found.vb);
            assert_eq!(found.total(), found.mse + found.vb);
        }
    }

    #[test]
    fn without_a_learned_variance_only_the_squared_error_remains() {
        let loss = TrainingLoss::new(Process::new(Schedule::Cosine, 100).unwrap(), MseWeight::Constant);
        let [x0, x_t, noise, output] = sample(&loss, 40);
        let both = loss.sample_loss(40, &x0, &x_t, &noise, &output, None, 1.0);
        let mut grad = vec![0.0; ELEMENTS];
        let alone = loss.sample_loss(40, &x0, &x_t, &noise, &output[..ELEMENTS], Some(&mut grad), 1.0);
        assert_eq!(alone, SampleLoss { mse: both.mse, vb: 0.0 });
        assert!(both.vb > 0.0 && grad.iter().all(|g| *g != 0.0));
    }

    #[test]
    fn a_batch_is_its_samples_and_their_mean() {
        let loss = TrainingLoss::new(Process::new(Schedule::Cosine, 100).unwrap(), MseWeight::MinSnr(5.0));
        let t = [3, 90];
        let [a, b] = t.map(|t| sample(&loss, t));
        let both = |i: usize| [a[i].clone(), b[i].clone()].concat();
        let mut grad = vec![0.0; 4 * ELEMENTS];
        let losses = loss.batch_loss(&t, &both(0), &both(1), &both(2), &both(3), Some(&mut grad));
        let mut alone = vec![0.0; 2 * ELEMENTS];
        let [x0, x_t, noise, output] = &b;
        assert_eq!(losses[1], loss.sample_loss(90, x0, x_t, noise, output, Some(&mut alone), 0.5));
        assert_eq!(grad[2 * ELEMENTS..], alone);
    }

    #[test]
    fn what_is_not_finite_shows() {
        let loss = TrainingLoss::new(Process::new(Schedule::Cosine, 100).unwrap(), MseWeight::Constant);
        for t in [0, 40] {
            for element in [2, ELEMENTS + 2] {
                let [x0, x_t, noise, mut output] = sample(&loss, t);
                output[element] = f32::NAN;
                assert!(loss.sample_loss(t, &x0, &x_t, &noise, &output, None, 1.0).total().is_nan());
            }
        }
    }
}
