//! Running a process backwards: DDPM, DDIM and PNDM over any denoiser.

use random::{Draws, Stream};
use rayon::prelude::*;

use crate::Process;
use crate::kind::{Kind, Variance};
use crate::pndm::{self, History, Multistep};
use crate::reverse::{Coefficients, Reverse};

/// Predicts the noise in a batch of samples.
pub trait Denoiser {
    /// Why it may fail.
    type Error;

    /// Writes the prediction for `x` at timestep `t` of the unspaced process into `out`.
    ///
    /// # Shapes
    /// `x` `[B, C * H * W]`, `out` `[B, 2 * C * H * W]` with [`Variance::LearnedRange`], else like `x`.
    fn denoise(&mut self, x: &[f32], t: usize, out: &mut [f32]) -> Result<(), Self::Error>;
}

/// What a denoiser's output says about `x_{t-1}`, for one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Mean of `p(x_{t-1} | x_t)`.
    pub mean: Vec<f32>,
    /// Log of its variance.
    pub log_variance: Vec<f32>,
    /// Predicted `x_0`.
    pub x0: Vec<f32>,
}

/// A process run backwards.
#[derive(Clone, Debug)]
pub struct Sampler {
    process: Process,
    kind: Kind,
    variance: Variance,
    clip_x0: bool,
    /// Where in the process the denoiser is called, in order.
    places: Vec<usize>,
}

impl Sampler {
    /// A sampler over `process` (respaced beforehand for fewer steps). `clip_x0` holds the predicted image to [-1, 1].
    pub fn new(process: Process, kind: Kind, variance: Variance, clip_x0: bool) -> Self {
        let places = match kind {
            Kind::Ddpm | Kind::Ddim { .. } => (0..process.len()).rev().collect(),
            Kind::Pndm => pndm::places(process.len()),
        };
        Self { process, kind, variance, clip_x0, places }
    }

    /// The process that is run.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// How often the denoiser is called in a run.
    pub fn calls(&self) -> usize {
        self.places.len()
    }

    /// The timestep of the unspaced process that the denoiser is told in call `call`; panics beyond the last.
    pub fn timestep(&self, call: usize) -> usize {
        self.process.step(self.places[call]).timestep
    }

    /// Values of a denoiser's output for a sample of `elements` values.
    pub fn outputs(&self, elements: usize) -> usize {
        match self.variance {
            Variance::LearnedRange => 2 * elements,
            Variance::FixedLarge => elements,
        }
    }

    /// Turns noise into samples.
    ///
    /// `x` `[B, elements]` is overwritten; its rows become the samples `first_sample, first_sample + 1, ..` of `seed`,
    /// each the same whatever `B`. `before` hears of each call of the denoiser in advance, and may end the run.
    ///
    /// # Errors
    /// Those of the denoiser and of `before`.
    pub fn sample<D: Denoiser>(
        &self,
        denoiser: &mut D,
        x: &mut [f32],
        elements: usize,
        first_sample: u64,
        seed: u64,
        mut before: impl FnMut(usize) -> Result<(), D::Error>,
    ) -> Result<(), D::Error> {
        initial_noise(x, elements, first_sample, seed);
        let mut output = vec![0.0; self.outputs(x.len())];
        let mut histories = vec![History::default(); x.len() / elements];
        for call in 0..self.calls() {
            before(call)?;
            denoiser.denoise(x, self.timestep(call), &mut output)?;
            let samples = x.par_chunks_mut(elements).zip(output.par_chunks(self.outputs(elements)));
            samples.zip(&mut histories).enumerate().for_each(|(i, ((x, output), history))| {
                self.advance(call, x, output, history, first_sample + i as u64, seed);
            });
        }
        Ok(())
    }

    /// What [`Sampler::advance`] computes after call `call`; of PNDM, behind [`Sampler::multistep`].
    pub fn coefficients(&self, call: usize) -> Coefficients {
        self.reverse(self.place_of_step(call)).coefficients
    }

    /// What PNDM makes of the predictions in call `call`; the other samplers take the latest as it is.
    pub fn multistep(&self, call: usize) -> Option<Multistep> {
        (self.kind == Kind::Pndm).then(|| Multistep::of(call))
    }

    /// From where in the process the step after call `call` goes: PNDM's second call repeats the first step.
    fn place_of_step(&self, call: usize) -> usize {
        let restarts = self.multistep(call).is_some_and(|multistep| multistep.restarts);
        self.places[if restarts { 0 } else { call }]
    }

    fn reverse(&self, t: usize) -> Reverse {
        Reverse::new(self.process.step(t), t == 0, self.kind, self.variance, self.clip_x0)
    }

    /// What follows call `call` for one sample, given the denoiser's `output` for it: one reverse step, with the noise of
    /// sample `sample` of `seed`. `history` is that of the calls before, empty at first. Part of [`Sampler::sample`].
    pub fn advance(&self, call: usize, x: &mut [f32], output: &[f32], history: &mut History, sample: u64, seed: u64) {
        assert_eq!(output.len(), self.outputs(x.len()), "outputs of the denoiser");
        let reverse = self.reverse(self.place_of_step(call));
        if self.kind == Kind::Pndm {
            let noise = history.combine(call, x, &output[..x.len()]);
            return reverse.step(x, &noise, &[]);
        }
        let mut noise = vec![0.0; if reverse.coefficients.noisy { x.len() } else { 0 }];
        Draws::new(seed, Stream::SampleNoise, call as u64).fill_normal(sample * x.len() as u64, &mut noise);
        reverse.step(x, output, &noise);
    }

    /// One reverse step of one sample with a given `noise`: `x` goes from `x_t` to `x_{t-1}`. It knows no history: of PNDM
    /// it is the step for an `output` that is combined already.
    pub fn step(&self, t: usize, x: &mut [f32], output: &[f32], noise: &[f32]) {
        assert_eq!(output.len(), self.outputs(x.len()), "outputs of the denoiser");
        self.reverse(t).step(x, output, noise);
    }

    /// `p(x_{t-1} | x_t)` of one sample.
    pub fn predict(&self, t: usize, x_t: &[f32], output: &[f32]) -> Prediction {
        assert_eq!(output.len(), self.outputs(x_t.len()), "outputs of the denoiser");
        let reverse = self.reverse(t);
        let (eps, values) = output.split_at(x_t.len());
        let x0: Vec<f32> = x_t.iter().zip(eps).map(|(&x, &e)| reverse.x0(x, e)).collect();
        let mean = x_t.iter().zip(&x0).map(|(&x, &x0)| reverse.mean(x, x0)).collect();
        let log_variance = match self.variance {
            Variance::LearnedRange => values.iter().map(|&v| 2.0 * reverse.log_std(v)).collect(),
            Variance::FixedLarge => vec![2.0 * reverse.log_std(0.0); x_t.len()],
        };
        Prediction { mean, log_variance, x0 }
    }

    /// One step of the deterministic DDIM towards noise: `x` goes from `x_t` to `x_{t+1}`.
    pub fn ddim_reverse(&self, t: usize, x: &mut [f32], output: &[f32]) {
        assert_eq!(output.len(), self.outputs(x.len()), "outputs of the denoiser");
        let reverse = self.reverse(t);
        let next = self.process.step(t).alpha_bar_next;
        let (signal, spread) = (next.sqrt() as f32, (1.0 - next).sqrt() as f32);
        for (x, &e) in x.iter_mut().zip(output) {
            let x0 = reverse.x0(*x, e);
            *x = signal * x0 + spread * reverse.eps(*x, x0);
        }
    }
}

/// Fills `x` `[B, elements]` with the initial noise of the samples `first_sample, ..` of `seed`.
pub fn initial_noise(x: &mut [f32], elements: usize, first_sample: u64, seed: u64) {
    Draws::new(seed, Stream::InitialNoise, 0).fill_normal(first_sample * elements as u64, x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Schedule, Spacing};

    const ELEMENTS: usize = 5;

    /// The exact noise prediction for data `N(mean, std^2)`, variance values `v`.
    struct Gaussian {
        whole: Process,
        mean: f32,
        std: f32,
        v: Option<f32>,
        told: Vec<usize>,
    }

    impl Gaussian {
        fn new(mean: f32, std: f32, v: Option<f32>) -> Self {
            Self { whole: Process::new(Schedule::Cosine, 1000).unwrap(), mean, std, v, told: Vec::new() }
        }
    }

    impl Denoiser for Gaussian {
        type Error = std::convert::Infallible;

        fn denoise(&mut self, x: &[f32], t: usize, out: &mut [f32]) -> Result<(), Self::Error> {
            self.told.push(t);
            let alpha_bar = self.whole.step(t).alpha_bar as f32;
            let gain = (1.0 - alpha_bar).sqrt() / (alpha_bar * self.std * self.std + 1.0 - alpha_bar);
            let width = if self.v.is_some() { 2 * ELEMENTS } else { ELEMENTS };
            for (x, out) in x.chunks(ELEMENTS).zip(out.chunks_mut(width)) {
                let (eps, rest) = out.split_at_mut(ELEMENTS);
                eps.iter_mut().zip(x).for_each(|(e, &x)| *e = gain * (x - alpha_bar.sqrt() * self.mean));
                self.v.iter().for_each(|&v| rest.fill(v));
            }
            Ok(())
        }
    }

    fn sampler(kind: Kind, variance: Variance, spacing: &str) -> Sampler {
        let whole = Process::new(Schedule::Cosine, 1000).unwrap();
        Sampler::new(whole.respaced(&spacing.parse::<Spacing>().unwrap()).unwrap(), kind, variance, false)
    }

    fn draw(sampler: &Sampler, denoiser: &mut Gaussian, first: u64, count: usize) -> Vec<f32> {
        let mut x = vec![0.0; count * ELEMENTS];
        sampler.sample(denoiser, &mut x, ELEMENTS, first, 11, |_| Ok(())).unwrap();
        x
    }

    const MARKOV: [Kind; 3] = [Kind::Ddpm, Kind::Ddim { eta: 0.0 }, Kind::Ddim { eta: 1.0 }];
    const KINDS: [Kind; 4] = [MARKOV[0], MARKOV[1], MARKOV[2], Kind::Pndm];

    #[test]
    fn every_markov_sampler_recovers_the_data() {
        for kind in MARKOV {
            for (variance, v) in [(Variance::LearnedRange, Some(-1.0)), (Variance::FixedLarge, None)] {
                let mut denoiser = Gaussian::new(0.3, 0.5, v);
                let x = draw(&sampler(kind, variance, "250"), &mut denoiser, 0, 2000);
                let n = x.len() as f64;
                let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                let std = (x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
                // Four standard errors, and for the spread the error of 250 steps.
                assert!((mean - 0.3).abs() < 4.0 * 0.5 / n.sqrt(), "{kind:?} {variance:?}: mean {mean}");
                assert!((std - 0.5).abs() < 4.0 * 0.5 / (2.0 * n).sqrt() + 0.012, "{kind:?} {variance:?}: std {std}");
                assert_eq!((denoiser.told[0], *denoiser.told.last().unwrap(), denoiser.told.len()), (999, 0, 250));
            }
        }
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        for kind in KINDS {
            let sampler = sampler(kind, Variance::LearnedRange, "10");
            let mut denoiser = Gaussian::new(0.0, 0.5, Some(0.2));
            let all = draw(&sampler, &mut denoiser, 3, 4);
            for i in 0..4 {
                let alone = draw(&sampler, &mut denoiser, 3 + i as u64, 1);
                assert_eq!(alone, all[i * ELEMENTS..(i + 1) * ELEMENTS], "{kind:?}");
            }
            assert_ne!(all[..ELEMENTS], all[ELEMENTS..2 * ELEMENTS]);
        }
    }

    /// The contract of the draws: initial noise, then the noise of each step counted from the first, by sample and
    /// element. Pinned, since stored samples depend on it.
    #[test]
    fn the_draws_are_those_of_their_streams() {
        let sampler = sampler(Kind::Ddpm, Variance::FixedLarge, "3");
        let noise = |stream, step| {
            let mut values = [0.0; ELEMENTS];
            Draws::new(11, stream, step).fill_normal(7 * ELEMENTS as u64, &mut values);
            values
        };
        let mut denoiser = Gaussian::new(0.0, 0.5, None);
        let (mut x, mut eps) = (noise(Stream::InitialNoise, 0), [0.0; ELEMENTS]);
        for (step, t) in [(0, 2), (1, 1), (2, 0)] {
            denoiser.denoise(&x, sampler.process().step(t).timestep, &mut eps).unwrap();
            sampler.step(t, &mut x, &eps, &noise(Stream::SampleNoise, step));
        }
        assert_eq!(draw(&sampler, &mut denoiser, 7, 1), x);
    }

    /// `eta` 1 and the posterior's variance are the same step.
    #[test]
    fn ddim_with_all_its_noise_is_ddpm_with_the_least_variance() {
        let ddpm = sampler(Kind::Ddpm, Variance::LearnedRange, "100");
        let ddim = sampler(Kind::Ddim { eta: 1.0 }, Variance::LearnedRange, "100");
        let mut denoiser = Gaussian::new(0.2, 0.4, Some(-1.0));
        let (a, b) = (draw(&ddpm, &mut denoiser, 0, 20), draw(&ddim, &mut denoiser, 0, 20));
        let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "{apart}");
    }

    #[test]
    fn towards_noise_and_back() {
        let sampler = sampler(Kind::Ddim { eta: 0.0 }, Variance::FixedLarge, "500");
        let mut denoiser = Gaussian::new(0.1, 0.5, None);
        let start = [0.4, -0.7, 0.1, 0.9, -0.2];
        let (mut x, mut eps) = (start, [0.0; ELEMENTS]);
        let mut at = |x: &mut [f32; ELEMENTS], t: usize, forth: bool| {
            denoiser.denoise(x, sampler.process().step(t).timestep, &mut eps).unwrap();
            if forth { sampler.ddim_reverse(t, x, &eps) } else { sampler.step(t, x, &eps, &[]) }
        };
        (0..400).for_each(|t| at(&mut x, t, true));
        assert!(x.iter().zip(&start).any(|(x, s)| (x - s).abs() > 0.1));
        (1..=400).rev().for_each(|t| at(&mut x, t, false));
        assert!(x.iter().zip(&start).all(|(x, s)| (x - s).abs() < 0.01), "{x:?}");
    }

    #[test]
    fn the_fixed_variance_is_beta_and_at_first_the_posteriors() {
        let sampler = sampler(Kind::Ddpm, Variance::FixedLarge, "50");
        for t in [0, 1, 30, 49] {
            let expected = match t {
                0 => sampler.process().step(1).posterior_variance,
                _ => sampler.process().step(t).beta,
            };
            let found = f64::from(sampler.predict(t, &[0.1], &[0.2]).log_variance[0].exp());
            assert!((found / expected - 1.0).abs() < 1e-5, "t {t}");
        }
    }

    #[test]
    fn the_denoiser_and_the_caller_can_end_it() {
        struct Failing(usize);
        impl Denoiser for Failing {
            type Error = &'static str;
            fn denoise(&mut self, _: &[f32], _: usize, out: &mut [f32]) -> Result<(), Self::Error> {
                out.fill(0.0);
                self.0 += 1;
                if self.0 > 3 { Err("out of memory") } else { Ok(()) }
            }
        }
        let (mut heard, mut x) = (Vec::new(), [0.0; ELEMENTS]);
        let sampler = sampler(Kind::Ddpm, Variance::FixedLarge, "10");
        let mut hear = |call| {
            heard.push(call);
            Ok(())
        };
        assert_eq!(sampler.sample(&mut Failing(0), &mut x, ELEMENTS, 0, 1, &mut hear), Err("out of memory"));
        assert_eq!(heard, [0, 1, 2, 3]);
        let stop = |call| if call == 2 { Err("stopped") } else { Ok(()) };
        let mut denoiser = Failing(0);
        assert_eq!(sampler.sample(&mut denoiser, &mut x, ELEMENTS, 0, 1, stop), Err("stopped"));
        assert_eq!(denoiser.0, 2);
    }

    #[test]
    fn a_value_that_is_not_a_number_stays_so() {
        for kind in KINDS {
            let sampler =
                Sampler::new(sampler(kind, Variance::LearnedRange, "10").process, kind, Variance::LearnedRange, true);
            let mut x = [0.5];
            sampler.step(4, &mut x, &[f32::NAN, 0.0], &[0.0]);
            assert!(x[0].is_nan());
        }
    }
}
