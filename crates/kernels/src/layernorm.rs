//! LayerNorm without affine weights followed by adaLN's modulation, one row at a time.
//!
//! `x^ = (x - mean) / sqrt(var + 1e-6)`, `n = x^ (1 + scale) + shift` (DiT, Peebles & Xie 2023, Section 3.2).
//! The functions are inlined into the passes of [`crate::residual`]; a row stays in the innermost cache between its two reads.

use crate::vector::{sum, sum_over, sums_over};

/// LayerNorm's epsilon in DiT.
const EPSILON: f32 = 1e-6;

/// Mean and reciprocal standard deviation of a row: what the backward pass needs beside the row itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowStatistics {
    pub(crate) mean: f32,
    pub(crate) inverse_deviation: f32,
}

impl RowStatistics {
    /// Population mean and variance, in two passes.
    #[inline(always)]
    pub(crate) fn of(x: &[f32]) -> Self {
        let count = x.len() as f32;
        let mean = sum(x) / count;
        let square = |i: usize| (x[i] - mean) * (x[i] - mean);
        let variance = sum_over(x.len(), square) / count;
        Self { mean, inverse_deviation: 1.0 / (variance + EPSILON).sqrt() }
    }
}

/// Writes `n` for row `x` and returns the row's statistics.
#[inline(always)]
pub(crate) fn forward(x: &[f32], shift: &[f32], scale: &[f32], n: &mut [f32]) -> RowStatistics {
    let statistics = RowStatistics::of(x);
    modulate(x, statistics, shift, scale, n);
    statistics
}

/// Writes `n` for row `x` whose statistics are known.
#[inline(always)]
pub(crate) fn modulate(x: &[f32], statistics: RowStatistics, shift: &[f32], scale: &[f32], n: &mut [f32]) {
    let RowStatistics { mean, inverse_deviation } = statistics;
    let d = x.len();
    let (shift, scale, n) = (&shift[..d], &scale[..d], &mut n[..d]);
    for i in 0..d {
        n[i] = ((x[i] - mean) * inverse_deviation).mul_add(1.0 + scale[i], shift[i]);
    }
}

/// Adds to `dx` what `dn`, the gradient of `n`, sends back through modulation and LayerNorm.
///
/// With `g = dn (1 + scale)`: `dx += (g - mean(g) - x^ mean(g x^)) / sqrt(var + eps)`.
#[inline(always)]
pub(crate) fn backward(x: &[f32], statistics: RowStatistics, scale: &[f32], dn: &[f32], dx: &mut [f32]) {
    let RowStatistics { mean, inverse_deviation } = statistics;
    let d = x.len();
    let (scale, dn, dx) = (&scale[..d], &dn[..d], &mut dx[..d]);
    let count = d as f32;
    let (sum_g, sum_gx) = sums_over(d, |i| {
        let g = dn[i] * (1.0 + scale[i]);
        (g, g * ((x[i] - mean) * inverse_deviation))
    });
    let (mean_g, mean_gx) = (sum_g / count, sum_gx / count);
    for i in 0..d {
        let normal = (x[i] - mean) * inverse_deviation;
        let g = dn[i] * (1.0 + scale[i]);
        dx[i] += inverse_deviation * (g - mean_g - normal * mean_gx);
    }
}

/// Adds `dn` to the shift's gradient and `dn x^` to the scale's.
#[inline(always)]
pub(crate) fn modulation_backward(
    x: &[f32],
    statistics: RowStatistics,
    dn: &[f32],
    d_shift: &mut [f32],
    d_scale: &mut [f32],
) {
    let RowStatistics { mean, inverse_deviation } = statistics;
    let d = x.len();
    let (dn, d_shift, d_scale) = (&dn[..d], &mut d_shift[..d], &mut d_scale[..d]);
    for i in 0..d {
        d_shift[i] += dn[i];
        d_scale[i] = dn[i].mul_add((x[i] - mean) * inverse_deviation, d_scale[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seed: f32) -> Vec<f32> {
        (0..40).map(|i| (i as f32 * 0.7 + seed).sin() * 2.0 + 0.5).collect()
    }

    /// `sum(w n)` in double precision.
    fn loss(x: &[f64], shift: &[f32], scale: &[f32], w: &[f32]) -> f64 {
        let count = x.len() as f64;
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let term = |i: usize| {
            let normal = (x[i] - mean) / (variance + 1e-6).sqrt();
            f64::from(w[i]) * (normal * (1.0 + f64::from(scale[i])) + f64::from(shift[i]))
        };
        (0..x.len()).map(term).sum()
    }

    #[test]
    fn forward_and_backward_match_double_precision_differences() {
        let (x, shift, scale, w) = (row(0.0), row(1.0), row(2.0), row(3.0));
        let mut n = vec![0.0; x.len()];
        let statistics = forward(&x, &shift, &scale, &mut n);
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let ours: f64 = n.iter().zip(&w).map(|(n, w)| f64::from(*n) * f64::from(*w)).sum();
        assert!((ours - loss(&wide, &shift, &scale, &w)).abs() < 1e-4);

        let mut dx = vec![1.0; x.len()];
        backward(&x, statistics, &scale, &w, &mut dx);
        for i in 0..x.len() {
            let at = |h: f64| {
                let mut moved = wide.clone();
                moved[i] += h;
                loss(&moved, &shift, &scale, &w)
            };
            let want = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((f64::from(dx[i] - 1.0) - want).abs() < 2e-5, "{i}: {} {want}", dx[i] - 1.0);
        }
    }
}
