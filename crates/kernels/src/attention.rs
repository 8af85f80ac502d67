//! Softmax attention of one sample, head by head: `O = softmax(Q K^T / sqrt(D/H)) V`.
//!
//! A head's scores fit in the second-level cache and are never stored: the forward pass keeps each row's maximum
//! and reciprocal sum, from which the backward pass makes the probabilities again.

use crate::matrix::{Matrix, MatrixMut, multiply, product};
use crate::vector::{Kernel, dot, exp, map_sum, max, vectorize};

/// What is kept of a softmax row: `p_j = e^(s_j - maximum) * inverse_sum`.
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
    fn hidden(&self) -> usize {
        self.heads * self.width
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Query (0), key (1) or value (2) of `head` in a `[tokens, 3 D]` buffer.
    fn part<'a>(&self, qkv: &'a [f32], part: usize, head: usize) -> Matrix<'a> {
        let start = part * self.hidden() + head * self.width;
        Matrix::strided(&qkv[start..], self.tokens, self.width, 3 * self.hidden())
    }

    fn part_mut<'a>(&self, qkv: &'a mut [f32], part: usize, head: usize) -> MatrixMut<'a> {
        let start = part * self.hidden() + head * self.width;
        MatrixMut::strided(&mut qkv[start..], self.tokens, self.width, 3 * self.hidden())
    }

    fn square<'a>(&self, scores: &'a [f32]) -> Matrix<'a> {
        Matrix::new(scores, self.tokens, self.tokens)
    }

    fn square_mut<'a>(&self, scores: &'a mut [f32]) -> MatrixMut<'a> {
        MatrixMut::new(scores, self.tokens, self.tokens)
    }

    /// `qkv [tokens, 3 D]` to `out [tokens, D]`; `rows [H, tokens]` keeps the softmax rows;
    /// `scores` is scratch of `tokens^2`.
    pub(crate) fn forward(&self, qkv: &[f32], out: &mut [f32], rows: &mut [SoftmaxRow], scores: &mut [f32]) {
        let (t, d) = (self.tokens, self.hidden());
        let scores = &mut scores[..t * t];
        for head in 0..self.heads {
            let (q, k, v) = (self.part(qkv, 0, head), self.part(qkv, 1, head), self.part(qkv, 2, head));
            let rows = &mut rows[head * t..(head + 1) * t];
            multiply(self.square_mut(scores), q, k.t(), self.scale(), false);
            vectorize(Softmax { scores: &mut *scores, rows: &mut *rows });
            let start = head * self.width;
            product(MatrixMut::strided(&mut out[start..], t, self.width, d), self.square(scores), v);
            vectorize(Normalise { out: &mut out[start..], stride: d, width: self.width, rows });
        }
    }

    /// Gradients of `qkv` from `d_out [tokens, D]`, given `qkv`, `out` and `rows` of the forward pass.
    /// `scores` is scratch of `2 tokens^2`.
    pub(crate) fn backward(
        &self,
        qkv: &[f32],
        out: &[f32],
        rows: &[SoftmaxRow],
        d_out: &[f32],
        d_qkv: &mut [f32],
        scores: &mut [f32],
    ) {
        let (t, d) = (self.tokens, self.hidden());
        let (p, dp) = scores[..2 * t * t].split_at_mut(t * t);
        for head in 0..self.heads {
            let (q, k, v) = (self.part(qkv, 0, head), self.part(qkv, 1, head), self.part(qkv, 2, head));
            let start = head * self.width;
            let d_head = Matrix::strided(&d_out[start..], t, self.width, d);
            multiply(self.square_mut(p), q, k.t(), self.scale(), false);
            product(self.square_mut(dp), d_head, v.t());
            vectorize(SoftmaxBackward {
                p: &mut *p,
                dp: &mut *dp,
                rows: &rows[head * t..(head + 1) * t],
                out: &out[start..],
                d_out: &d_out[start..],
                stride: d,
                width: self.width,
                scale: self.scale(),
            });
            product(self.part_mut(d_qkv, 2, head), self.square(p).t(), d_head);
            product(self.part_mut(d_qkv, 0, head), self.square(dp), k);
            product(self.part_mut(d_qkv, 1, head), self.square(dp).t(), q);
        }
    }
}

/// Each row of scores becomes `e^(s - max)`; the division by the sum is left to [`Normalise`], on narrower rows.
struct Softmax<'a> {
    scores: &'a mut [f32],
    rows: &'a mut [SoftmaxRow],
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let tokens = self.rows.len();
        for (scores, row) in self.scores.chunks_exact_mut(tokens).zip(self.rows) {
            let maximum = max(scores);
            let total = map_sum(scores, |s| exp(s - maximum));
            *row = SoftmaxRow { maximum, inverse_sum: 1.0 / total };
        }
    }
}

/// Divides one head's outputs, rows `stride` apart, by their softmax sums.
struct Normalise<'a> {
    out: &'a mut [f32],
    stride: usize,
    width: usize,
    rows: &'a [SoftmaxRow],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (t, row) in self.rows.iter().enumerate() {
            for value in &mut self.out[t * self.stride..t * self.stride + self.width] {
                *value *= row.inverse_sum;
            }
        }
    }
}

/// Scores become probabilities `P`; `dP` becomes the scores' gradient `P (dP - rowsum(dO O)) / sqrt(D/H)`.
struct SoftmaxBackward<'a> {
    p: &'a mut [f32],
    dp: &'a mut [f32],
    rows: &'a [SoftmaxRow],
    out: &'a [f32],
    d_out: &'a [f32],
    stride: usize,
    width: usize,
    scale: f32,
}

impl Kernel for SoftmaxBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (tokens, scale) = (self.rows.len(), self.scale);
        let scores = self.p.chunks_exact_mut(tokens).zip(self.dp.chunks_exact_mut(tokens));
        for (t, (row, (p, dp))) in self.rows.iter().zip(scores).enumerate() {
            let head = t * self.stride..t * self.stride + self.width;
            let mean = dot(&self.out[head.clone()], &self.d_out[head]);
            for (p, dp) in p.iter_mut().zip(dp) {
                *p = exp(*p - row.maximum) * row.inverse_sum;
                *dp = *p * (*dp - mean) * scale;
            }
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
            let mut scores = vec![0.0; 2 * t * t];
            heads.forward(&qkv, &mut out, &mut rows, &mut scores);
            let wide: Vec<f64> = qkv.iter().map(|&v| f64::from(v)).collect();
            let ours: f64 = out.iter().zip(&w).map(|(o, w)| f64::from(*o) * f64::from(*w)).sum();
            assert!((ours - loss(heads, &wide, &w)).abs() < 2e-5);

            let mut d_qkv = vec![f32::NAN; qkv.len()];
            heads.backward(&qkv, &out, &rows, &w, &mut d_qkv, &mut scores);
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
