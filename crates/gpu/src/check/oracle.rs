//! The gate's formulas in double precision.

use super::mixture::Mixed;
use crate::gate::{Architecture, Balance, Extent, Gating, Selection};

/// A gate's values and what it is given, on the CPU.
pub(super) struct Oracle<'a> {
    pub(super) gating: Gating,
    pub(super) balance: Balance,
    pub(super) extent: Extent,
    pub(super) values: &'a [f32],
    /// `[L, N, D]`.
    pub(super) prompts: &'a [f32],
    /// `[R, D]`.
    pub(super) embedding: &'a [f32],
    /// `[L, R, N]`; empty where there is no noise.
    pub(super) draws: &'a [f32],
}

/// What a gate learns from.
pub(super) struct Gradients {
    /// Of its values.
    pub(super) values: Vec<f32>,
    /// What is added to that of the prompts.
    pub(super) prompts: Vec<f32>,
    pub(super) importance: f64,
    pub(super) load: f64,
}

impl Oracle<'_> {
    fn inputs(&self) -> usize {
        self.extent.width + usize::from(self.gating.per_block)
    }

    /// First values of its two tensors, and of the noise's scale.
    fn places(&self) -> [usize; 3] {
        let (n, d, inputs) = (self.extent.prompts, self.extent.width, self.inputs());
        match self.gating.architecture {
            Architecture::Linear => [0, n * inputs, n * (inputs + 1)],
            Architecture::AttentionOverPrompts => [0, d * d, d * (d + inputs)],
            Architecture::AttentionLiteral => [0, d * inputs, d * (d + inputs)],
        }
    }

    fn value(&self, place: usize) -> f64 {
        f64::from(self.values[place])
    }

    /// `[R, C]` products of the embedding with `columns` of `weight(input, column)`.
    fn product(&self, columns: usize, weight: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let Extent { width, rows, .. } = self.extent;
        let dot =
            |row: usize, c: usize| (0..width).map(|d| f64::from(self.embedding[row * width + d]) * weight(d, c)).sum();
        (0..rows * columns).map(|i| dot(i / columns, i % columns)).collect()
    }

    /// `[L, R, C]` of a layer `[C, inputs]` whose values begin at `first`.
    fn layer(&self, first: usize, columns: usize) -> Vec<f64> {
        let (Extent { blocks, width, .. }, inputs) = (self.extent, self.inputs());
        let base = self.product(columns, |d, c| self.value(first + c * inputs + d));
        let index = |block: usize, c: usize| match self.gating.per_block {
            true => block as f64 * self.value(first + c * inputs + width),
            false => 0.0,
        };
        let each = base.len();
        (0..blocks * each).map(|i| base[i % each] + index(i / each, i % columns)).collect()
    }

    /// Adds to `gradient` what `d_out [L, R, C]` of [`Oracle::layer`] leaves.
    fn layer_backward(&self, gradient: &mut [f64], first: usize, columns: usize, d_out: &[f64]) {
        let (Extent { rows, width, .. }, inputs) = (self.extent, self.inputs());
        for (i, d) in d_out.iter().enumerate() {
            let (block, row, at) = (i / columns / rows, i / columns % rows, first + i % columns * inputs);
            for e in 0..width {
                gradient[at + e] += d * f64::from(self.embedding[row * width + e]);
            }
            if self.gating.per_block {
                gradient[at + width] += d * block as f64;
            }
        }
    }

    /// `[R, N]` of the noise before softplus.
    fn scale(&self) -> Vec<f64> {
        let (first, n) = (self.places()[2], self.extent.prompts);
        self.product(n, |d, c| self.value(first + d * n + c))
    }

    fn noisy(&self) -> bool {
        !self.draws.is_empty()
    }

    /// Standard deviation of the noise and its draw at a place of `[L, R, N]`.
    fn noise(&self, scale: &[f64], at: usize) -> (f64, f64) {
        let each = scale.len();
        let draw = if self.gating.per_block { at } else { at % each };
        (scale[at % each].exp().ln_1p() + 0.01, f64::from(self.draws[draw]))
    }

    /// Queries `[L, N, D]`.
    fn queries(&self) -> Vec<f64> {
        let d = self.extent.width;
        let dot = |prompt: usize, o: usize| {
            (0..d).map(|e| f64::from(self.prompts[prompt * d + e]) * self.value(o * d + e)).sum()
        };
        (0..self.prompts.len()).map(|i| dot(i / d, i % d)).collect()
    }

    /// Logits without noise, `[L, R, N]`.
    fn clean(&self) -> Vec<f64> {
        let (Extent { blocks, prompts: n, width: d, rows, .. }, [first, second, _]) = (self.extent, self.places());
        match self.gating.architecture {
            Architecture::AttentionOverPrompts => {
                let (keys, queries, root) = (self.layer(second, d), self.queries(), (d as f64).sqrt());
                let dot = |i: usize| {
                    let (row, prompt) = (i / n, i / n / rows * n + i % n);
                    (0..d).map(|o| keys[row * d + o] * queries[prompt * d + o]).sum::<f64>() / root
                };
                (0..blocks * rows * n).map(dot).collect()
            }
            _ => self.layer(first, n).iter().enumerate().map(|(i, v)| v + self.value(second + i % n)).collect(),
        }
    }

    /// The same with noise.
    fn logits(&self) -> Vec<f64> {
        let clean = self.clean();
        if !self.noisy() {
            return clean;
        }
        let scale = self.scale();
        let noisy = |(at, v): (usize, f64)| {
            let (deviation, draw) = self.noise(&scale, at);
            v + draw * deviation
        };
        clean.into_iter().enumerate().map(noisy).collect()
    }

    /// Softmax over the prompts that `used` picks of a row's ranks, `[L, R, N]`.
    fn softmax(&self, used: impl Fn(usize) -> bool) -> Vec<f64> {
        let row = |logits: &[f64]| {
            let ranks = ranks(logits);
            let e: Vec<f64> =
                logits.iter().zip(ranks).map(|(v, rank)| if used(rank) { v.exp() } else { 0.0 }).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(move |e| e / sum)
        };
        self.logits().chunks_exact(self.extent.prompts).flat_map(row).collect()
    }

    /// `[L, R, N]`.
    fn weights(&self) -> Vec<f64> {
        match self.gating.selection {
            Selection::Soft => self.softmax(|_| true),
            Selection::Highest { kept, ones } => {
                let weights = self.softmax(|rank| rank < kept);
                if ones { weights.iter().map(|w| f64::from(*w > 0.0)).collect() } else { weights }
            }
        }
    }

    /// `W_o W_v [embedding; block]`, `[L, R, D]`.
    fn vectors(&self) -> Vec<f64> {
        let (d, [first, second, _]) = (self.extent.width, self.places());
        let values = self.layer(first, d);
        let dot = |i: usize| (0..d).map(|e| values[i / d * d + e] * self.value(second + i % d * d + e)).sum();
        (0..values.len()).map(dot).collect()
    }

    /// What it gives the trunk.
    pub(super) fn mixed(&self) -> Mixed {
        let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        match self.gating.architecture {
            Architecture::AttentionLiteral => Mixed::Vectors(narrow(self.vectors())),
            _ => Mixed::Weights(narrow(self.weights())),
        }
    }

    /// What the logits' gradient goes through, `[L, R, N]`.
    fn soft(&self) -> Vec<f64> {
        match self.gating.selection {
            Selection::Highest { ones: true, .. } => self.softmax(|_| true),
            _ => self.weights(),
        }
    }

    /// The importance loss, and its derivative by the weights summed over blocks, `[R, N]`.
    fn importance(&self, weights: &[f64]) -> (f64, Vec<f64>) {
        let (Extent { blocks, prompts, rows, .. }, together) = (self.extent, self.balance.importance.together);
        let each = rows * prompts;
        let sums: Vec<f64> = (0..each).map(|i| (0..blocks).map(|l| weights[l * each + i]).sum()).collect();
        let (size, bessel, epsilon) = if together { (each, 1.0, 1e-10) } else { (prompts, 0.0, 1e-5) };
        let (mut loss, mut slopes) = (0.0, Vec::new());
        for part in sums.chunks_exact(size) {
            let (n, share) = (size as f64, part.len() as f64 / each as f64);
            let mean = part.iter().sum::<f64>() / n;
            let variance = part.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - bessel);
            let divisor = mean * mean + epsilon;
            loss += share * variance / divisor;
            slopes.extend(part.iter().map(|s| {
                share * (2.0 * (s - mean) / (n - bessel) / divisor - variance * 2.0 * mean / n / divisor.powi(2))
            }));
        }
        (loss, slopes)
    }

    /// Adds the smooth load loss to the gradients of the clean logits and of the noise's deviation, `[L, R, N]` each; returns it.
    fn load(&self, kept: usize, coefficient: f64, d_clean: &mut [f64], d_deviation: &mut [f64]) -> f64 {
        let Extent { blocks, prompts: n, .. } = self.extent;
        let (clean, logits, scale) = (self.clean(), self.logits(), self.scale());
        let mut load = 0.0;
        for (row, own) in logits.chunks_exact(n).enumerate() {
            let ranks = ranks(own);
            let of_rank = |wanted: usize| ranks.iter().position(|rank| *rank == wanted).expect("a rank");
            let [last_kept, first_left] = [of_rank(kept - 1), of_rank(kept)];
            for i in 0..n {
                let hurdle = if own[i] > own[first_left] { first_left } else { last_kept };
                let (deviation, _) = self.noise(&scale, row * n + i);
                let x = (clean[row * n + i] - own[hurdle]) / deviation;
                load += normal(x) / blocks as f64;
                let slope = coefficient / blocks as f64 * density(x) / deviation;
                d_clean[row * n + i] += slope;
                d_deviation[row * n + i] -= slope * x;
                d_clean[row * n + hurdle] -= slope;
                d_deviation[row * n + hurdle] -= slope * self.noise(&scale, row * n + hurdle).1;
            }
        }
        load
    }

    /// From the gradient of what it gave.
    pub(super) fn backward(&self, d_given: &[f32]) -> Gradients {
        match self.gating.architecture {
            Architecture::AttentionLiteral => self.vectors_backward(d_given),
            _ => self.weights_backward(d_given),
        }
    }

    fn vectors_backward(&self, d_vectors: &[f32]) -> Gradients {
        let (d, [first, second, noise]) = (self.extent.width, self.places());
        let (values, mut gradient, mut d_values) = (self.layer(first, d), vec![0.0; noise], vec![0.0; d_vectors.len()]);
        for (i, d_vector) in d_vectors.iter().map(|d| f64::from(*d)).enumerate() {
            for e in 0..d {
                gradient[second + i % d * d + e] += d_vector * values[i / d * d + e];
                d_values[i / d * d + e] += d_vector * self.value(second + i % d * d + e);
            }
        }
        self.layer_backward(&mut gradient, first, d, &d_values);
        let (values, prompts) = (gradient.into_iter().map(|v| v as f32).collect(), vec![0.0; self.prompts.len()]);
        Gradients { values, prompts, importance: 0.0, load: 0.0 }
    }

    fn weights_backward(&self, d_weights: &[f32]) -> Gradients {
        let (Extent { prompts: n, width: d, rows, .. }, [first, second, noise]) = (self.extent, self.places());
        let (soft, (importance, slopes)) = (self.soft(), self.importance(&self.weights()));
        let mut d_logits = vec![0.0; soft.len()];
        for (row, own) in soft.chunks_exact(n).enumerate() {
            let slope = |i: usize| {
                let balance = self.balance.importance.coefficient * slopes[row % rows * n + i];
                f64::from(d_weights[row * n + i]) + balance
            };
            let dot: f64 = (0..n).map(|i| own[i] * slope(i)).sum();
            (0..n).for_each(|i| d_logits[row * n + i] = own[i] * (slope(i) - dot));
        }
        let mut gradient = vec![0.0; self.gating.len(n, d)];
        let mut load = 0.0;
        if self.noisy() {
            let scale = self.scale();
            let mut d_deviation: Vec<f64> =
                d_logits.iter().enumerate().map(|(at, d)| d * self.noise(&scale, at).1).collect();
            if let (Some(coefficient), Selection::Highest { kept, .. }) = (self.balance.load, self.gating.selection) {
                load = self.load(kept, coefficient, &mut d_logits, &mut d_deviation);
            }
            for (at, d_deviation) in d_deviation.iter().enumerate() {
                let place = at % scale.len();
                let d_scale = d_deviation / (1.0 + (-scale[place]).exp());
                for e in 0..d {
                    gradient[noise + e * n + at % n] += d_scale * f64::from(self.embedding[place / n * d + e]);
                }
            }
        }
        let mut d_prompts = vec![0.0; self.prompts.len()];
        match self.gating.architecture {
            Architecture::AttentionOverPrompts => {
                let (keys, queries, root) = (self.layer(second, d), self.queries(), (d as f64).sqrt());
                let (mut d_keys, mut d_queries) = (vec![0.0; keys.len()], vec![0.0; queries.len()]);
                for (i, d_logit) in d_logits.iter().enumerate() {
                    let (row, prompt) = (i / n * d, (i / n / rows * n + i % n) * d);
                    for o in 0..d {
                        d_keys[row + o] += d_logit * queries[prompt + o] / root;
                        d_queries[prompt + o] += d_logit * keys[row + o] / root;
                    }
                }
                self.layer_backward(&mut gradient, second, d, &d_keys);
                for (i, d_query) in d_queries.iter().enumerate() {
                    for e in 0..d {
                        gradient[first + i % d * d + e] += d_query * f64::from(self.prompts[i / d * d + e]);
                        d_prompts[i / d * d + e] += d_query * self.value(first + i % d * d + e);
                    }
                }
            }
            _ => {
                self.layer_backward(&mut gradient, first, n, &d_logits);
                d_logits.iter().enumerate().for_each(|(i, d)| gradient[second + i % n] += d);
            }
        }
        let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        Gradients { values: narrow(gradient), prompts: narrow(d_prompts), importance, load }
    }
}

/// How many are before each: higher, or as high and earlier.
fn ranks(values: &[f64]) -> Vec<usize> {
    let before = |n: usize, m: usize| values[m] > values[n] || (values[m] == values[n] && m < n);
    (0..values.len()).map(|n| (0..values.len()).filter(|&m| before(n, m)).count()).collect()
}

fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The standard normal distribution, by Marsaglia's series ("Evaluating the normal distribution", 2004).
fn normal(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return f64::from(x > 0.0);
    }
    let (mut sum, mut term, mut odd) = (x, x, 1.0);
    while sum + term != sum {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * density(x)
}
