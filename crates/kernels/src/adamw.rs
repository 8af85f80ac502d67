//! AdamW over one flat buffer, and the running average of weights.

use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use crate::vector::{Kernel, vectorize};

/// Elements of one parallel task.
const PIECE: usize = 16_384;

/// A range of the buffer with its own learning rate and weight decay.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Place in the flat buffer.
    pub range: Range<usize>,
    /// Learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019), in PyTorch's order of operations:
/// `p *= 1 - lr wd`, `m += (1 - b1)(g - m)`, `v = b2 v + (1 - b2) g^2`,
/// `p -= lr / (1 - b1^k) m / (sqrt(v) / sqrt(1 - b2^k) + eps)`, with betas 0.9 and 0.999 and eps 1e-8.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    steps: u64,
    first: Vec<f32>,
    second: Vec<f32>,
}

const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f32 = 1e-8;

/// One step's factors.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    step: f32,
    root_correction: f32,
}

/// The same piece of parameters, moments and gradient.
struct Update<'a> {
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
    factors: Factors,
}

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (rate1, beta2, rate2) = ((1.0 - BETAS.0) as f32, BETAS.1 as f32, (1.0 - BETAS.1) as f32);
        let (n, f) = (self.p.len(), self.factors);
        let (p, m, v, g) = (self.p, &mut self.m[..n], &mut self.v[..n], &self.g[..n]);
        for i in 0..n {
            m[i] += rate1 * (g[i] - m[i]);
            v[i] = v[i] * beta2 + rate2 * g[i] * g[i];
            p[i] = p[i] * f.keep - f.step * (m[i] / (v[i].sqrt() / f.root_correction + EPSILON));
        }
    }
}

/// A piece of a running average and of what it follows.
struct Average<'a> {
    average: &'a mut [f32],
    values: &'a [f32],
    decay: f64,
}

impl Kernel for Average<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (decay, rate) = (self.decay as f32, (1.0 - self.decay) as f32);
        for (average, value) in self.average.iter_mut().zip(self.values) {
            *average = *average * decay + rate * value;
        }
    }
}

impl AdamW {
    /// Fresh state for a buffer of `length` values.
    pub fn new(length: usize) -> Self {
        Self { steps: 0, first: vec![0.0; length], second: vec![0.0; length] }
    }

    /// State read back from a checkpoint.
    ///
    /// # Panics
    /// If the two moments differ in length.
    pub fn from_state(steps: u64, first: Vec<f32>, second: Vec<f32>) -> Self {
        assert_eq!(first.len(), second.len(), "both moments have the buffer's length");
        Self { steps, first, second }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// First and second moments, for a checkpoint.
    pub fn moments(&self) -> (&[f32], &[f32]) {
        (&self.first, &self.second)
    }

    /// One step. Values outside every group stay as they are.
    ///
    /// # Panics
    /// If the lengths differ from the state's, or a group lies outside.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32], groups: &[Group]) {
        let length = self.first.len();
        assert_eq!((parameters.len(), gradient.len()), (length, length), "parameters and gradient fit the state");
        self.steps += 1;
        let corrections = (1.0 - BETAS.0.powf(self.steps as f64), 1.0 - BETAS.1.powf(self.steps as f64));
        for group in groups {
            let factors = Factors {
                keep: (1.0 - group.learning_rate * group.weight_decay) as f32,
                step: (group.learning_rate / corrections.0) as f32,
                root_correction: corrections.1.sqrt() as f32,
            };
            let range = || group.range.clone();
            let p = parameters[range()].par_chunks_mut(PIECE);
            let m = self.first[range()].par_chunks_mut(PIECE);
            let v = self.second[range()].par_chunks_mut(PIECE);
            let g = gradient[range()].par_chunks(PIECE);
            p.zip(m).zip(v).zip(g).for_each(|(((p, m), v), g)| vectorize(Update { p, m, v, g, factors }));
        }
    }
}

/// Moves a running average of weights: `average = decay average + (1 - decay) values`.
///
/// # Panics
/// If the lengths differ.
pub fn average(average: &mut [f32], values: &[f32], decay: f64) {
    assert_eq!(average.len(), values.len(), "the average has the weights' length");
    let pieces = average.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE));
    pieces.for_each(|(average, values)| vectorize(Average { average, values, decay }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goldens_adamw_follows_the_reference() {
        for file in ["train_dmp_random", "train_pt", "train_dmp_topk"] {
            let golden = goldens::Golden::open(file);
            let setting = |key: &str| golden.config()[key].as_f64().unwrap();
            for (name, start) in golden.group("init.") {
                if golden.find(&format!("step0.grad.{name}")).is_none() {
                    continue;
                }
                let learning_rate = setting("lr") * if name == "prompt_embeddings" { 1.0 } else { 10.0 };
                let mut p = start.f32();
                let groups = [Group { range: 0..p.len(), learning_rate, weight_decay: setting("wd") }];
                let mut adamw = AdamW::new(p.len());
                for step in 0..setting("steps") as usize {
                    let gradient = golden.get(&format!("step{step}.grad.{name}"));
                    adamw.step(&mut p, &gradient.f32(), &groups);
                    let after = golden.get(&format!("step{step}.after.{name}"));
                    goldens::assert_close(&format!("{file} {name} after step {step}"), &p, &after, 2e-6);
                }
            }
        }
    }

    #[test]
    fn groups_have_their_own_rates_and_the_rest_stays() {
        let mut p = vec![1.0; 6];
        let group = |range, learning_rate, weight_decay| Group { range, learning_rate, weight_decay };
        let groups = [group(0..2, 0.1, 0.0), group(2..4, 0.2, 0.5)];
        AdamW::new(6).step(&mut p, &[3.0; 6], &groups);
        // the first step moves by the learning rate whatever the gradient's size
        assert!((p[0] - 0.9).abs() < 1e-6 && (p[2] - (1.0 - 0.1 - 0.2)).abs() < 1e-6);
        assert_eq!(p[4..], [1.0, 1.0]);
    }

    #[test]
    fn a_restored_state_continues_to_the_bit() {
        let gradient: Vec<f32> = (0..40_000).map(|i| (i as f32).sin()).collect();
        let groups = [Group { range: 0..gradient.len(), learning_rate: 1e-3, weight_decay: 0.01 }];
        let (mut one, mut two) = (vec![0.5; gradient.len()], vec![0.5; gradient.len()]);
        let mut whole = AdamW::new(gradient.len());
        let mut part = AdamW::new(gradient.len());
        part.step(&mut two, &gradient, &groups);
        let (first, second) = part.moments();
        let mut restored = AdamW::from_state(part.steps(), first.to_vec(), second.to_vec());
        restored.step(&mut two, &gradient, &groups);
        whole.step(&mut one, &gradient, &groups);
        whole.step(&mut one, &gradient, &groups);
        assert_eq!(one, two);
        assert_eq!(whole, restored);
    }

    #[test]
    fn average_moves_towards_the_values() {
        let mut ours = vec![1.0, 2.0];
        average(&mut ours, &[2.0, 0.0], 0.75);
        assert_eq!(ours, [1.25, 1.5]);
    }
}
