//! Symmetric matrices to tridiagonal form, which has the same eigenvalues.
//!
//! A reflection needs the product of the matrix with a vector: memory is what bounds it. As in LAPACK's `dsytrd`
//! (Dongarra, Hammarling & Sorensen 1989) the columns of a panel are reflected against the matrix as it was before the
//! panel: each reads the lower half of what is left once and writes nothing, and the panel's reflections enter the rest
//! in one product. faer's reduction reads and writes that half at every column, on one thread (measured at 2048 columns:
//! 1.8 times the processor time).

use std::ops::Range;

use faer::linalg::householder::make_householder_in_place;
use faer::linalg::matmul::matmul;
use faer::{Accum, ColMut, ColRef, Mat, Par};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Columns of a panel.
const PANEL: usize = 16;

/// Columns that one task brings up to date.
const TILE: usize = 64;

/// Pieces of a product with a vector. They are fixed, as their sums are added up in order: the bits do not depend on
/// the number of threads.
const PIECES: usize = 4;

/// A product with fewer columns is one piece: to share it would take longer.
const LEAST_SHARED: usize = 256;

/// Diagonal and subdiagonal of a tridiagonal matrix.
pub(crate) struct Tridiagonal {
    pub(crate) diagonal: Vec<f64>,
    /// As long as the diagonal; its last value is 0.
    pub(crate) beside: Vec<f64>,
}

/// `Q^T A Q` for an orthogonal `Q`. Of `a` the lower half is read.
pub(crate) fn tridiagonal(mut a: Mat<f64>) -> Tridiagonal {
    let n = a.nrows();
    let mut out = Tridiagonal { diagonal: vec![0.0; n], beside: vec![0.0; n] };
    let mut partial = vec![vec![0.0; n]; PIECES];
    for start in (0..n).step_by(PANEL) {
        let (m, width) = (n - start, PANEL.min(n - start));
        // the matrix is `A - X Y^T`: a reflection `v` with its `w` stands in X as `v w`, in Y as `w v`
        let (mut x, mut y) = (Mat::zeros(m, 2 * width), Mat::zeros(m, 2 * width));
        for j in 0..width {
            let known = 2 * j;
            let column = &mut a.col_as_slice_mut(start + j)[start + j..];
            let (left, row) = (x.submatrix(j, 0, m - j, known), y.submatrix(j, 0, 1, known));
            let into = ColMut::from_slice_mut(column).as_mat_mut();
            matmul(into, Accum::Add, left, row.transpose(), -1.0, Par::Seq);
            out.diagonal[start + j] = column[0];
            let Some((head, tail)) = column[1..].split_first_mut() else { break };
            let scale = make_householder_in_place(head, ColMut::from_slice_mut(tail)).tau.recip();
            out.beside[start + j] = *head;

            let mut v = vec![1.0; m - j - 1];
            v[1..].copy_from_slice(tail);
            let mut w = times(&a, start + j + 1, &v, &mut partial);
            let (left, right) = (x.submatrix(j + 1, 0, v.len(), known), y.submatrix(j + 1, 0, v.len(), known));
            let inner = right.transpose() * ColRef::from_slice(&v);
            let into = ColMut::from_slice_mut(&mut w).as_mat_mut();
            matmul(into, Accum::Add, left, inner.as_mat(), -1.0, Par::Seq);
            let along: f64 = w.iter().zip(&v).map(|(w, v)| w * v).sum();
            let along = 0.5 * scale * scale * along;
            w.iter_mut().zip(&v).for_each(|(w, v)| *w = scale * *w - along * v);
            for (matrix, pair) in [(&mut x, [&v, &w]), (&mut y, [&w, &v])] {
                for (place, values) in pair.into_iter().enumerate() {
                    matrix.col_as_slice_mut(known + place)[j + 1..].copy_from_slice(values);
                }
            }
        }
        let rest = m - width;
        let (x, y) = (x.subrows(width, rest), y.subrows(width, rest));
        let tiles = a.submatrix_mut(start + width, start + width, rest, rest).par_col_chunks_mut(TILE);
        tiles.enumerate().with_max_len(1).for_each(|(tile, out)| {
            let (top, columns) = (tile * TILE, out.ncols());
            let right = y.subrows(top, columns).transpose();
            matmul(out.subrows_mut(top, rest - top), Accum::Add, x.subrows(top, rest - top), right, -1.0, Par::Seq);
        });
    }
    out
}

/// `A v` for the part of a symmetric `a` from row and column `first` on.
fn times(a: &Mat<f64>, first: usize, v: &[f64], partial: &mut [Vec<f64>]) -> Vec<f64> {
    let n = v.len();
    let pieces = if n < LEAST_SHARED { 1 } else { PIECES };
    // of equal areas of the lower half
    let column = |piece: usize| n - (n as f64 * (1.0 - piece as f64 / pieces as f64).sqrt()) as usize;
    partial[..pieces].par_iter_mut().enumerate().with_max_len(1).for_each(|(piece, sum)| {
        let columns = column(piece)..column(piece + 1);
        sum[columns.start..n].fill(0.0);
        Arch::new().dispatch(Lower { a, first, v, columns, sum: &mut sum[..n] });
    });
    let mut total = partial[0][..n].to_vec();
    for (piece, sum) in partial[..pieces].iter().enumerate().skip(1) {
        let from = column(piece);
        total[from..].iter_mut().zip(&sum[from..n]).for_each(|(total, sum)| *total += sum);
    }
    total
}

/// Adds to `sum` what some columns of the lower half, and the rows of the upper half that mirror them, make of `v`.
struct Lower<'a> {
    a: &'a Mat<f64>,
    first: usize,
    v: &'a [f64],
    columns: Range<usize>,
    sum: &'a mut [f64],
}

impl WithSimd for Lower<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut column = self.columns.start;
        while column + 4 <= self.columns.end {
            self.together::<S, 4>(simd, column);
            column += 4;
        }
        while column < self.columns.end {
            self.together::<S, 1>(simd, column);
            column += 1;
        }
    }
}

impl Lower<'_> {
    /// `C` columns at once: `v` and `sum` are read once for all of them.
    #[inline(always)]
    fn together<S: Simd, const C: usize>(&mut self, simd: S, column: usize) {
        let (n, below) = (self.v.len(), column + C);
        let mut columns: [&[f64]; C] = [&[]; C];
        for (c, values) in columns.iter_mut().enumerate() {
            *values = &self.a.col_as_slice(self.first + column + c)[self.first..self.first + n];
        }
        let mut dots = [0.0; C];
        for (c, (dot, values)) in dots.iter_mut().zip(columns).enumerate() {
            let own = self.v[column + c];
            self.sum[column + c] += values[column + c] * own;
            let rows = column + c + 1..below;
            for (row, a) in rows.clone().zip(&values[rows]) {
                self.sum[row] += a * own;
                *dot += a * self.v[row];
            }
        }
        let whole = below + (n - below) / S::F64_LANES * S::F64_LANES;
        let mut sums = [simd.splat_f64s(0.0); C];
        let mut own = [simd.splat_f64s(0.0); C];
        for (c, own) in own.iter_mut().enumerate() {
            *own = simd.splat_f64s(self.v[column + c]);
        }
        for row in (below..whole).step_by(S::F64_LANES) {
            let part = row..row + S::F64_LANES;
            let v = simd.partial_load_f64s(&self.v[part.clone()]);
            let mut sum = simd.partial_load_f64s(&self.sum[part.clone()]);
            for c in 0..C {
                let a = simd.partial_load_f64s(&columns[c][part.clone()]);
                sum = simd.mul_add_e_f64s(a, own[c], sum);
                sums[c] = simd.mul_add_e_f64s(a, v, sums[c]);
            }
            simd.partial_store_f64s(&mut self.sum[part], sum);
        }
        for (c, (dot, values)) in dots.iter_mut().zip(columns).enumerate() {
            for (row, a) in (whole..n).zip(&values[whole..]) {
                self.sum[row] += a * self.v[column + c];
                *dot += a * self.v[row];
            }
        }
        for c in 0..C {
            self.sum[column + c] += dots[c] + simd.reduce_sum_f64s(sums[c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes across the limits of panels, tiles and pieces: the sums of the eigenvalues, of their squares and of their
    /// cubes stay (traces of powers), and the eigenvalues are those of faer's own reduction.
    #[test]
    fn eigenvalues_stay() {
        for n in [1, 2, 3, 15, 16, 17, 33, 64, 100, 300, 431] {
            let at = |i: usize, j: usize| ((i.max(j) * 7919 + i.min(j) * 104_729) % 2003) as f64 / 1001.5 - 1.0;
            let full = Mat::from_fn(n, n, at);
            let lower = Mat::from_fn(n, n, |i, j| if i >= j { at(i, j) } else { f64::NAN });
            let reduced = tridiagonal(lower);
            assert_eq!(reduced.beside[n - 1], 0.0);
            let entry = |i: usize, j: usize| match i.abs_diff(j) {
                0 => reduced.diagonal[i],
                1 => reduced.beside[i.min(j)],
                _ => 0.0,
            };
            let ours = Mat::from_fn(n, n, entry).self_adjoint_eigenvalues(faer::Side::Lower).unwrap();
            let want = full.self_adjoint_eigenvalues(faer::Side::Lower).unwrap();
            for (ours, want) in ours.iter().zip(&want) {
                assert!((ours - want).abs() < 1e-13 * (n as f64).max(10.0), "{n}: {ours} {want}");
            }
        }
    }

    /// A column that needs no reflection has none: zeros, a diagonal matrix, a multiple of one vector.
    #[test]
    fn matrices_without_rank_stay_finite() {
        let n = 40;
        for matrix in [Mat::zeros(n, n), Mat::identity(n, n), Mat::full(n, n, 2.0)] {
            let trace = (0..n).map(|i| matrix[(i, i)]).sum::<f64>();
            let reduced = tridiagonal(matrix);
            assert!(reduced.beside.iter().all(|value| value.is_finite()));
            assert!((reduced.diagonal.iter().sum::<f64>() - trace).abs() < 1e-12);
        }
    }
}
