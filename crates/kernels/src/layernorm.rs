//! LayerNorm without affine weights followed by adaLN's modulation, one row at a time.
//!
//! `x^ = (x - mean) / sqrt(var + 1e-6)`, `n = x^ (1 + scale) + shift` (DiT, Peebles & Xie 2023, Section 3.2).
//! The functions are inlined into the passes of [`crate::residual`]; a row stays in the innermost cache between its two reads.

use pulp::Simd;

use crate::vector::{each, sums_over};

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
    pub(crate) fn of<S: Simd>(simd: S, x: &[f32]) -> Self {
        let count = x.len() as f32;
        let mean = sums_over(
            simd,
            x.len(),
            #[inline(always)]
            |at| [at.load(x)],
        )[0] / count;
        let middle = simd.splat_f32s(mean);
        let [squares] = sums_over(
            simd,
            x.len(),
            #[inline(always)]
            |at| {
                let apart = simd.sub_f32s(at.load(x), middle);
                [simd.mul_f32s(apart, apart)]
            },
        );
        Self { mean, inverse_deviation: 1.0 / (squares / count + EPSILON).sqrt() }
    }

    /// `x^` of the part of a row that a vector holds.
    #[inline(always)]
    fn normal<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        simd.mul_f32s(simd.sub_f32s(x, simd.splat_f32s(self.mean)), simd.splat_f32s(self.inverse_deviation))
    }
}

/// Writes `n` for row `x` and returns the row's statistics.
#[inline(always)]
pub(crate) fn forward<S: Simd>(simd: S, x: &[f32], shift: &[f32], scale: &[f32], n: &mut [f32]) -> RowStatistics {
    let statistics = RowStatistics::of(simd, x);
    modulate(simd, x, statistics, shift, scale, n);
    statistics
}

/// Writes `n` for row `x` whose statistics are known.
#[inline(always)]
pub(crate) fn modulate<S: Simd>(
    simd: S,
    x: &[f32],
    statistics: RowStatistics,
    shift: &[f32],
    scale: &[f32],
    n: &mut [f32],
) {
    let (d, one) = (x.len(), simd.splat_f32s(1.0));
    let (shift, scale, n) = (&shift[..d], &scale[..d], &mut n[..d]);
    each(
        simd,
        d,
        #[inline(always)]
        |at, _| {
            let (normal, scale) = (statistics.normal(simd, at.load(x)), simd.add_f32s(one, at.load(scale)));
            at.store(simd.mul_add_e_f32s(normal, scale, at.load(shift)), n);
        },
    );
}

/// Adds to `dx` what `dn`, the gradient of `n`, sends back through modulation and LayerNorm.
///
/// With `g = dn (1 + scale)`: `dx += (g - mean(g) - x^ mean(g x^)) / sqrt(var + eps)`.
#[inline(always)]
pub(crate) fn backward<S: Simd>(
    simd: S,
    x: &[f32],
    statistics: RowStatistics,
    scale: &[f32],
    dn: &[f32],
    dx: &mut [f32],
) {
    let (d, one) = (x.len(), simd.splat_f32s(1.0));
    let (scale, dn, dx) = (&scale[..d], &dn[..d], &mut dx[..d]);
    let [sum_g, sum_gx] = sums_over(
        simd,
        d,
        #[inline(always)]
        |at| {
            let g = simd.mul_f32s(at.load(dn), simd.add_f32s(one, at.load(scale)));
            [g, simd.mul_f32s(g, statistics.normal(simd, at.load(x)))]
        },
    );
    let (mean_g, mean_gx) = (simd.splat_f32s(sum_g / d as f32), simd.splat_f32s(sum_gx / d as f32));
    let inverse_deviation = simd.splat_f32s(statistics.inverse_deviation);
    each(
        simd,
        d,
        #[inline(always)]
        |at, _| {
            let g = simd.mul_f32s(at.load(dn), simd.add_f32s(one, at.load(scale)));
            let along = simd.mul_f32s(statistics.normal(simd, at.load(x)), mean_gx);
            let change = simd.mul_f32s(inverse_deviation, simd.sub_f32s(simd.sub_f32s(g, mean_g), along));
            at.store(simd.add_f32s(at.load(dx), change), dx);
        },
    );
}

/// Adds `dn` to the shift's gradient and `dn x^` to the scale's.
#[inline(always)]
pub(crate) fn modulation_backward<S: Simd>(
    simd: S,
    x: &[f32],
    statistics: RowStatistics,
    dn: &[f32],
    d_shift: &mut [f32],
    d_scale: &mut [f32],
) {
    let d = x.len();
    let (dn, d_shift, d_scale) = (&dn[..d], &mut d_shift[..d], &mut d_scale[..d]);
    each(
        simd,
        d,
        #[inline(always)]
        |at, _| {
            let (normal, dn) = (statistics.normal(simd, at.load(x)), at.load(dn));
            at.store(simd.add_f32s(at.load(d_shift), dn), d_shift);
            at.store(simd.mul_add_e_f32s(dn, normal, at.load(d_scale)), d_scale);
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::{Kernel, vectorize};

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

    /// One row there and back.
    struct There<'a> {
        x: &'a [f32],
        shift: &'a [f32],
        scale: &'a [f32],
        n: &'a mut [f32],
        w: &'a [f32],
        dx: &'a mut [f32],
    }

    impl Kernel for There<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let statistics = forward(simd, self.x, self.shift, self.scale, self.n);
            backward(simd, self.x, statistics, self.scale, self.w, self.dx);
        }
    }

    #[test]
    fn forward_and_backward_match_double_precision_differences() {
        let (x, shift, scale, w) = (row(0.0), row(1.0), row(2.0), row(3.0));
        let (mut n, mut dx) = (vec![0.0; x.len()], vec![1.0; x.len()]);
        vectorize(There { x: &x, shift: &shift, scale: &scale, n: &mut n, w: &w, dx: &mut dx });
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let ours: f64 = n.iter().zip(&w).map(|(n, w)| f64::from(*n) * f64::from(*w)).sum();
        assert!((ours - loss(&wide, &shift, &scale, &w)).abs() < 1e-4);

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
