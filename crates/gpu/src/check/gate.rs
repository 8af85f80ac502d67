//! The gate against its formulas in double precision.

use super::Bench;
use crate::array::{Array, Plain};
use crate::gate::{Extent, Gate, Gating, Importance, Selection};
use crate::machine::{Error, Machine};

/// The gates that there are: the paper's, the released code's, one for all blocks, and those of the highest prompts.
pub(super) const GATES: [(Gating, Importance); 5] = [
    (gating(true, false, false, Selection::Soft), Importance { coefficient: 0.7, together: false }),
    (gating(true, true, true, Selection::Soft), Importance { coefficient: 1.3, together: true }),
    (gating(false, false, true, Selection::Soft), Importance { coefficient: 0.5, together: false }),
    (
        gating(true, false, false, Selection::Highest { kept: 27, ones: true }),
        Importance { coefficient: 0.7, together: false },
    ),
    (
        gating(false, true, true, Selection::Highest { kept: 9, ones: false }),
        Importance { coefficient: 1.3, together: true },
    ),
];

const fn gating(per_block: bool, with_label: bool, noisy: bool, selection: Selection) -> Gating {
    Gating { per_block, with_label, noisy, selection }
}

/// A gate's values and what it is given, on the CPU.
pub(super) struct Oracle<'a> {
    pub(super) gating: Gating,
    pub(super) importance: Importance,
    pub(super) extent: Extent,
    pub(super) values: &'a [f32],
    /// `[R, D]`.
    pub(super) embedding: &'a [f32],
    /// `[L, R, N]`; empty where there is no noise.
    pub(super) draws: &'a [f32],
}

impl Oracle<'_> {
    fn inputs(&self) -> usize {
        self.extent.width + usize::from(self.gating.per_block)
    }

    /// `[R, N]` products of the embedding with `outputs` of `weight(input, output)`.
    fn product(&self, weight: impl Fn(usize, usize) -> f32) -> Vec<f64> {
        let Extent { prompts, width, rows, .. } = self.extent;
        let dot = |row: usize, n: usize| {
            (0..width).map(|d| f64::from(self.embedding[row * width + d]) * f64::from(weight(d, n))).sum()
        };
        (0..rows * prompts).map(|i| dot(i / prompts, i % prompts)).collect()
    }

    /// The noise before softplus, `[R, N]`.
    fn scale(&self) -> Vec<f64> {
        let Extent { prompts, .. } = self.extent;
        let first = prompts * (self.inputs() + 1);
        self.product(|d, n| self.values[first + d * prompts + n])
    }

    fn noisy(&self) -> bool {
        !self.draws.is_empty()
    }

    /// The rows of logits, `L R` of `N`.
    fn logits(&self) -> Vec<Vec<f64>> {
        let Extent { blocks, prompts, rows, .. } = self.extent;
        let inputs = self.inputs();
        let base = self.product(|d, n| self.values[n * inputs + d]);
        let scale = if self.noisy() { self.scale() } else { Vec::new() };
        let logit = |block: usize, row: usize, n: usize| {
            let (group, at) = (if self.gating.per_block { block } else { 0 }, row * prompts + n);
            let mut logit = base[at] + f64::from(self.values[prompts * inputs + n]);
            if self.gating.per_block {
                logit += group as f64 * f64::from(self.values[n * inputs + inputs - 1]);
            }
            if self.noisy() {
                let draw = f64::from(self.draws[(group * rows + row) * prompts + n]);
                logit += draw * (scale[at].exp().ln_1p() + 0.01);
            }
            logit
        };
        let row = |i: usize| (0..prompts).map(|n| logit(i / rows, i % rows, n)).collect();
        (0..blocks * rows).map(row).collect()
    }

    /// Softmax over the prompts that `used` picks of a row's ranks, `[L, R, N]`.
    fn softmax(&self, used: impl Fn(usize) -> bool) -> Vec<f64> {
        let row = |logits: Vec<f64>| {
            let before = |n: usize, m: usize| logits[m] > logits[n] || (logits[m] == logits[n] && m < n);
            let rank = |n: usize| (0..logits.len()).filter(|&m| before(n, m)).count();
            let e: Vec<f64> = (0..logits.len()).map(|n| if used(rank(n)) { logits[n].exp() } else { 0.0 }).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(move |e| e / sum)
        };
        self.logits().into_iter().flat_map(row).collect()
    }

    /// `[L, R, N]`.
    pub(super) fn weights(&self) -> Vec<f64> {
        match self.gating.selection {
            Selection::Soft => self.softmax(|_| true),
            Selection::Highest { kept, ones } => {
                let weights = self.softmax(|rank| rank < kept);
                if ones { weights.iter().map(|w| f64::from(*w > 0.0)).collect() } else { weights }
            }
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
    fn balance(&self, weights: &[f64]) -> (f64, Vec<f64>) {
        let Extent { blocks, prompts, rows, .. } = self.extent;
        let each = rows * prompts;
        let sums: Vec<f64> = (0..each).map(|i| (0..blocks).map(|l| weights[l * each + i]).sum()).collect();
        let (size, bessel, epsilon) = if self.importance.together { (each, 1.0, 1e-10) } else { (prompts, 0.0, 1e-5) };
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

    /// The gradient of the gate's values for `d_weights [L, R, N]`, and the importance loss.
    pub(super) fn backward(&self, d_weights: &[f32]) -> (Vec<f32>, f64) {
        let Extent { blocks, prompts, width, rows, .. } = self.extent;
        let (inputs, weights) = (self.inputs(), self.weights());
        let ((loss, balance), soft) = (self.balance(&weights), self.soft());
        let (bias, noise) = (prompts * inputs, prompts * (inputs + 1));
        let mut gradient = vec![0.0_f64; self.gating.len(prompts, width)];
        let scale = if self.noisy() { self.scale() } else { Vec::new() };
        for block in 0..blocks {
            let group = if self.gating.per_block { block } else { 0 };
            for row in 0..rows {
                let first = (block * rows + row) * prompts;
                let d: Vec<f64> = (0..prompts)
                    .map(|n| f64::from(d_weights[first + n]) + self.importance.coefficient * balance[row * prompts + n])
                    .collect();
                let own = &soft[first..first + prompts];
                let dot: f64 = own.iter().zip(&d).map(|(w, d)| w * d).sum();
                for n in 0..prompts {
                    let d_logit = own[n] * (d[n] - dot);
                    gradient[bias + n] += d_logit;
                    if self.gating.per_block {
                        gradient[n * inputs + width] += group as f64 * d_logit;
                    }
                    for e in 0..width {
                        let embedding = f64::from(self.embedding[row * width + e]);
                        gradient[n * inputs + e] += d_logit * embedding;
                        if self.noisy() {
                            let draw = f64::from(self.draws[(group * rows + row) * prompts + n]);
                            let slope = 1.0 / (1.0 + (-scale[row * prompts + n]).exp());
                            gradient[noise + e * prompts + n] += d_logit * draw * slope * embedding;
                        }
                    }
                }
            }
        }
        (gradient.into_iter().map(|v| v as f32).collect(), loss)
    }
}

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    for (gating, importance) in GATES {
        gate(bench, gating, importance, Extent { blocks: 3, prompts: 36, width: 32, rows: 5, all: 5 })?;
    }
    let (gating, importance) = GATES[0];
    gate(bench, gating, importance, Extent { blocks: 2, prompts: 300, width: 40, rows: 9, all: 9 })
}

fn gate<M: Machine>(bench: &mut Bench<M>, gating: Gating, importance: Importance, extent: Extent) -> Result<(), Error> {
    let (l, machine) = (bench.launcher, bench.launcher.machine);
    let Extent { blocks, prompts, width, rows, .. } = extent;
    let values = bench.numbers(gating.len(prompts, width), 0.3);
    let embedding = bench.numbers(rows * width, 1.0);
    let draws = if gating.noisy { bench.numbers(blocks * rows * prompts, 1.0) } else { Vec::new() };
    let d_weights = bench.numbers(blocks * rows * prompts, 1.0);
    let mut ours = Gate::new(machine, gating, extent, Some(importance))?;
    ours.values_mut().write(machine, &values)?;
    ours.draws_mut(machine, &draws)?;
    let (on_embedding, on_d) = (bench.put(&embedding)?, bench.put_wide(&d_weights)?);
    let (weights, losses): (Array<M>, _) = (bench.room_wide(d_weights.len())?, Plain::new(machine, 8 * rows)?);
    // SAFETY: all arrays are as large as the extent says.
    unsafe {
        ours.forward(l, [on_embedding.start(); 2], weights.start(), 0)?;
        ours.backward(l, [weights.start(), on_d.start()], losses.start(), 0)?;
    }
    let oracle = Oracle { gating, importance, extent, values: &values, embedding: &embedding, draws: &draws };
    let want: Vec<f32> = oracle.weights().iter().map(|w| *w as f32).collect();
    let name = format!("gate of {prompts} prompts, {gating:?}, {importance:?}");
    // the gate is f32 whatever the precision
    bench.find(&format!("{name}: weights"), &weights.read(machine)?, &want, 1e-5);
    let (want, loss) = oracle.backward(&d_weights);
    bench.find(&format!("{name}: gradient"), &ours.gradient().read(machine)?, &want, 2e-5);
    let mean = losses.doubles(machine, rows)?.iter().sum::<f64>() / rows as f64;
    bench.find(&format!("{name}: loss"), &[mean as f32], &[loss as f32], 1e-5);
    Ok(())
}
