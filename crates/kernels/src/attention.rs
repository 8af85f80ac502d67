//! Softmax attention of one sample, head by head: `O = softmax(Q K^T / sqrt(D/H)) V`.
//!
//! Scores are worked on in strips of a few queries that stay in the innermost cache, from the product with the keys to
//! that with the values, and are never stored: the forward pass keeps each row's maximum and reciprocal sum, from which
//! the backward pass makes the probabilities again.

use std::f32::consts::LOG2_E;

use pulp::{Arch, Simd, WithSimd};

use crate::matrix::{Matrix, MatrixMut};
use crate::tile;
use crate::vector::{dot, exp2_at_most_one, map_sum, max};

/// Queries of a strip: a multiple of [`tile::ROWS`].
const STRIP: usize = 12;

/// What is kept of a softmax row: `p_j = 2^(s_j - maximum) * inverse_sum`, the scores `s` in units of `ln 2`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SoftmaxRow {
    maximum: f32,
    inverse_sum: f32,
}

/// Shape of the attention of one sample.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Tokens of the sequence.
    pub(crate) tokens: usize,
    /// Number of heads `H`.
    pub(crate) heads: usize,
    /// Width of a head `D / H`.
    pub(crate) width: usize,
}

impl Heads {
    /// Values of the scratch that both passes need.
    pub(crate) fn scratch(&self) -> usize {
        2 * self.tokens * (self.tokens + self.width)
    }

    fn hidden(&self) -> usize {
        self.heads * self.width
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// The same for scores that are exponents of 2.
    fn binary_scale(&self) -> f32 {
        LOG2_E * self.scale()
    }

    /// Of a `[tokens, stride]` buffer the `width` columns from `start` on, rows `first..first + rows`.
    #[inline(always)]
    fn view<'a>(&self, buffer: &'a [f32], stride: usize, start: usize, first: usize, rows: usize) -> Matrix<'a> {
        Matrix::strided(&buffer[first * stride + start..], rows, self.width, stride)
    }

    #[inline(always)]
    fn view_mut<'a>(
        &self,
        buffer: &'a mut [f32],
        stride: usize,
        start: usize,
        first: usize,
        rows: usize,
    ) -> MatrixMut<'a> {
        MatrixMut::strided(&mut buffer[first * stride + start..], rows, self.width, stride)
    }

    /// First queries and numbers of queries of the strips.
    #[inline(always)]
    fn strips(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let tokens = self.tokens;
        (0..tokens).step_by(STRIP).map(move |first| (first, STRIP.min(tokens - first)))
    }
}

/// `qkv [tokens, 3 D]` to `out [tokens, D]`; `rows [H, tokens]` keeps the softmax rows; `scratch` holds
/// [`Heads::scratch`] values.
pub(crate) struct Forward<'a> {
    pub(crate) heads: Heads,
    pub(crate) qkv: &'a [f32],
    pub(crate) out: &'a mut [f32],
    pub(crate) rows: &'a mut [SoftmaxRow],
    pub(crate) scratch: &'a mut [f32],
}

impl Forward<'_> {
    pub(crate) fn run(self) {
        Arch::new().dispatch(self);
    }
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.heads {
            Heads { tokens: 64, heads, width: 16 } => self.each(simd, Heads { tokens: 64, heads, width: 16 }),
            heads => self.each(simd, heads),
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn each<S: Simd>(self, simd: S, h: Heads) {
        let Self { qkv, out, rows, scratch, .. } = self;
        let (t, d, scale) = (h.tokens, h.hidden(), h.binary_scale());
        let (keys, scores) = scratch.split_at_mut(h.width * t);
        for head in 0..h.heads {
            let start = head * h.width;
            let keys = tile::transpose(simd, h.view(qkv, 3 * d, d + start, 0, t), keys);
            let values = h.view(qkv, 3 * d, 2 * d + start, 0, t);
            for (first, count) in h.strips() {
                let scores = &mut scores[..count * t];
                let rows = &mut rows[head * t + first..][..count];
                let queries = h.view(qkv, 3 * d, start, first, count);
                tile::product::<S, false>(simd, MatrixMut::new(scores, count, t), queries, keys, None, |_| scale);
                for (scores, row) in scores.chunks_exact_mut(t).zip(&mut *rows) {
                    let maximum = max(scores);
                    let total = map_sum(scores, |s| exp2_at_most_one(s - maximum));
                    *row = SoftmaxRow { maximum, inverse_sum: 1.0 / total };
                }
                // the division by the sum is done on the head's output, which is narrower than the scores
                let into = h.view_mut(out, d, start, first, count);
                let scores = Matrix::new(scores, count, t);
                tile::product::<S, false>(simd, into, scores, values, None, |i| rows[i].inverse_sum);
            }
        }
    }
}

/// Gradients of `qkv` from `d_out [tokens, D]`, given `qkv`, `out` and `rows` of the forward pass: with
/// `P = softmax(S)`, `dV = P^T dO`, `dP = dO V^T`, `dS = P (dP - rowsum(dO O))`, `dQ = dS K / sqrt(D/H)`,
/// `dK = dS^T Q / sqrt(D/H)`.
pub(crate) struct Backward<'a> {
    pub(crate) heads: Heads,
    pub(crate) qkv: &'a [f32],
    pub(crate) out: &'a [f32],
    pub(crate) rows: &'a [SoftmaxRow],
    pub(crate) d_out: &'a [f32],
    pub(crate) d_qkv: &'a mut [f32],
    pub(crate) scratch: &'a mut [f32],
}

impl Backward<'_> {
    pub(crate) fn run(self) {
        Arch::new().dispatch(self);
    }
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.heads {
            Heads { tokens: 64, heads, width: 16 } => self.each(simd, Heads { tokens: 64, heads, width: 16 }),
            heads => self.each(simd, heads),
        }
    }
}

impl Backward<'_> {
    #[inline(always)]
    fn each<S: Simd>(self, simd: S, h: Heads) {
        let Self { qkv, out, rows, d_out, d_qkv, scratch, .. } = self;
        let (t, d, scale, binary) = (h.tokens, h.hidden(), h.scale(), h.binary_scale());
        let (keys, scratch) = scratch.split_at_mut(h.width * t);
        let (values, scratch) = scratch.split_at_mut(h.width * t);
        let (p, ds) = scratch[..2 * t * t].split_at_mut(t * t);
        for head in 0..h.heads {
            let start = head * h.width;
            let keys_t = tile::transpose(simd, h.view(qkv, 3 * d, d + start, 0, t), keys);
            let values_t = tile::transpose(simd, h.view(qkv, 3 * d, 2 * d + start, 0, t), values);
            for (first, count) in h.strips() {
                let queries = h.view(qkv, 3 * d, start, first, count);
                let d_head = h.view(d_out, d, start, first, count);
                let (p, ds) = (&mut p[first * t..][..count * t], &mut ds[first * t..][..count * t]);
                tile::product::<S, false>(simd, MatrixMut::new(p, count, t), queries, keys_t, None, |_| binary);
                tile::product::<S, false>(simd, MatrixMut::new(ds, count, t), d_head, values_t, None, |_| 1.0);
                let rows = &rows[head * t + first..][..count];
                for (i, (p, ds)) in p.chunks_exact_mut(t).zip(ds.chunks_exact_mut(t)).enumerate() {
                    let (row, at) = (rows[i], (first + i) * d + start);
                    let mean = dot(simd, &out[at..at + h.width], &d_out[at..at + h.width]);
                    for (p, ds) in p.iter_mut().zip(ds) {
                        *p = exp2_at_most_one(*p - row.maximum) * row.inverse_sum;
                        *ds = *p * (*ds - mean);
                    }
                }
                let into = h.view_mut(d_qkv, 3 * d, start, first, count);
                let keys = h.view(qkv, 3 * d, d + start, 0, t);
                tile::product::<S, false>(simd, into, Matrix::new(ds, count, t), keys, None, |_| scale);
            }
            let into = h.view_mut(d_qkv, 3 * d, d + start, 0, t);
            let queries = h.view(qkv, 3 * d, start, 0, t);
            tile::product::<S, false>(simd, into, Matrix::new(ds, t, t).t(), queries, None, |_| scale);
            let into = h.view_mut(d_qkv, 3 * d, 2 * d + start, 0, t);
            let d_head = h.view(d_out, d, start, 0, t);
            tile::product::<S, false>(simd, into, Matrix::new(p, t, t).t(), d_head, None, |_| 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.37 + seed).sin() * 1.5).collect()
    }

    /// `sum(w O)` in double precision.
    fn loss(heads: Heads, qkv: &[f64], w: &[f32]) -> f64 {
        let (t, d) = (heads.tokens, heads.heads * heads.width);
        let at = |token: usize, part: usize, channel: usize| qkv[token * 3 * d + part * d + channel];
        let mut total = 0.0;
        for head in 0..heads.heads {
            let channels = head * heads.width..(head + 1) * heads.width;
            for i in 0..t {
                let score = |j| channels.clone().map(|c| at(i, 0, c) * at(j, 1, c)).sum::<f64>();
                let raw: Vec<f64> = (0..t).map(|j| (score(j) / (heads.width as f64).sqrt()).exp()).collect();
                let sum: f64 = raw.iter().sum();
                for c in channels.clone() {
                    let o: f64 = (0..t).map(|j| raw[j] / sum * at(j, 2, c)).sum();
                    total += o * f64::from(w[i * d + c]);
                }
            }
        }
        total
    }

    #[test]
    fn forward_and_backward_match_double_precision_differences() {
        for heads in [Heads { tokens: 7, heads: 2, width: 3 }, Heads { tokens: 20, heads: 1, width: 8 }] {
            let (t, d) = (heads.tokens, heads.heads * heads.width);
            let (qkv, w) = (numbers(t * 3 * d, 0.1), numbers(t * d, 0.7));
            let mut out = vec![0.0; t * d];
            let mut rows = vec![SoftmaxRow::default(); heads.heads * t];
            let mut scratch = vec![0.0; heads.scratch()];
            Forward { heads, qkv: &qkv, out: &mut out, rows: &mut rows, scratch: &mut scratch }.run();
            let wide: Vec<f64> = qkv.iter().map(|&v| f64::from(v)).collect();
            let ours: f64 = out.iter().zip(&w).map(|(o, w)| f64::from(*o) * f64::from(*w)).sum();
            assert!((ours - loss(heads, &wide, &w)).abs() < 2e-5);

            let mut d_qkv = vec![f32::NAN; qkv.len()];
            let (qkv, rows, d_qkv_out) = (&qkv[..], &rows[..], &mut d_qkv[..]);
            let scratch = &mut scratch[..];
            Backward { heads, qkv, out: &out, rows, d_out: &w, d_qkv: d_qkv_out, scratch }.run();
            for i in 0..qkv.len() {
                let at = |h: f64| {
                    let mut moved = wide.clone();
                    moved[i] += h;
                    loss(heads, &moved, &w)
                };
                let want = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((f64::from(d_qkv[i]) - want).abs() < 5e-6, "{i}: {} {want}", d_qkv[i]);
            }
        }
    }
}
