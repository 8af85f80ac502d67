//! The few operations on dense `f64` matrices that the distance needs.
//!
//! Every call of faer is sequential, and work is split over threads in tiles of fixed size only: the bits do not depend
//! on the number of threads.

use faer::diag::{Diag, DiagRef};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::evd::{
    ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch, tridiagonal_self_adjoint_evd,
};
use faer::linalg::matmul::matmul;
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::linalg::temp_mat_scratch;
use faer::prelude::{ReborrowMut, default};
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use crate::tridiagonal::{Tridiagonal, tridiagonal};

/// Columns of a tile.
const TILE: usize = 256;

/// `A B`.
pub(crate) fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    let tiles = out.par_col_chunks_mut(TILE).zip(b.par_col_chunks(TILE));
    tiles.for_each(|(out, b)| matmul(out, Accum::Replace, a, b, 1.0, Par::Seq));
    out
}

/// `F S F^T`, its lower half only. What is zero at the beginning of `F`'s rows is left out: half of a triangular factor.
pub(crate) fn sandwich(factor: MatRef<'_, f64>, middle: MatRef<'_, f64>) -> Mat<f64> {
    let (k, d) = (factor.nrows(), factor.ncols());
    // the first column, rows and columns of each tile of rows that is not zero
    let tiles: Vec<(usize, usize, usize)> = (0..k)
        .step_by(TILE)
        .map(|row| {
            let rows = TILE.min(k - row);
            let is_zero = |column: &usize| factor.col(*column).subrows(row, rows).iter().all(|value| *value == 0.0);
            (row, rows, (0..d).take_while(is_zero).count())
        })
        .collect();
    let mut left = Mat::zeros(k, d);
    left.par_col_chunks_mut(TILE).zip(middle.par_col_chunks(TILE)).for_each(|(mut left, middle)| {
        for &(row, rows, start) in &tiles {
            let (a, b) = (factor.submatrix(row, start, rows, d - start), middle.subrows(start, d - start));
            matmul(left.rb_mut().subrows_mut(row, rows), Accum::Replace, a, b, 1.0, Par::Seq);
        }
    });
    let mut out = Mat::zeros(k, k);
    out.par_col_chunks_mut(TILE).zip(&tiles).with_max_len(1).for_each(|(out, &(row, rows, start))| {
        let (a, b) = (left.submatrix(row, start, k - row, d - start), factor.submatrix(row, start, rows, d - start));
        matmul(out.subrows_mut(row, k - row), Accum::Replace, a, b.transpose(), 1.0, Par::Seq);
    });
    out
}

/// The places `(row, column)` of the tiles of a symmetric matrix's lower half.
pub(crate) fn lower_tiles(dimensions: usize) -> Vec<(usize, usize)> {
    let starts = || (0..dimensions).step_by(TILE);
    starts().flat_map(|row| starts().take_while(move |&c| c <= row).map(move |column| (row, column))).collect()
}

/// `tile += X_r^T X_c` for the columns of `X` from `row` and from `column` on.
pub(crate) fn add_gram_tile(tile: &mut Mat<f64>, x: MatRef<'_, f64>, (row, column): (usize, usize)) {
    let part = |start: usize| x.subcols(start, TILE.min(x.ncols() - start));
    if tile.nrows() == 0 {
        *tile = Mat::zeros(part(row).ncols(), part(column).ncols());
    }
    matmul(tile.as_mut(), Accum::Add, part(row).transpose(), part(column), 1.0, Par::Seq);
}

/// `F` with `A = F^T F` for a positive semi-definite `A`: the Cholesky factor, or, where `A` is singular, the
/// eigenvectors of its positive eigenvalues times their roots. `None` if the eigenvalues do not converge.
pub(crate) fn factor(a: MatRef<'_, f64>) -> Option<Mat<f64>> {
    cholesky(a).or_else(|| eigen_factor(a))
}

fn cholesky(a: MatRef<'_, f64>) -> Option<Mat<f64>> {
    let n = a.nrows();
    let mut lower = a.to_owned();
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, Par::Seq, default()));
    let stack = MemStack::new(&mut memory);
    cholesky_in_place(lower.as_mut(), default(), Par::Seq, stack, default()).ok()?;
    Some(Mat::from_fn(n, n, |i, j| if i <= j { lower[(j, i)] } else { 0.0 }))
}

fn eigen_factor(a: MatRef<'_, f64>) -> Option<Mat<f64>> {
    let n = a.nrows();
    let (mut values, mut vectors) = (Diag::zeros(n), Mat::zeros(n, n));
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    self_adjoint_evd(a, values.as_mut(), Some(vectors.as_mut()), Par::Seq, stack, default()).ok()?;
    let kept: Vec<(usize, f64)> =
        (0..n).map(|i| (i, values.column_vector()[i])).filter(|&(_, value)| value > 0.0).collect();
    Some(Mat::from_fn(kept.len(), n, |i, j| vectors[(j, kept[i].0)] * kept[i].1.sqrt()))
}

/// `sum sqrt(eigenvalue)` of a positive semi-definite matrix, of which the lower half is read; eigenvalues that rounding
/// made negative count as 0.
pub(crate) fn trace_of_root(a: Mat<f64>) -> Option<f64> {
    let n = a.nrows();
    let Tridiagonal { diagonal, beside } = tridiagonal(a);
    let mut values = Diag::zeros(n);
    let mut memory = MemBuffer::new(temp_mat_scratch::<f64>(n, 1).array(2));
    let (diagonal, beside) = (DiagRef::from_slice(&diagonal), DiagRef::from_slice(&beside));
    let stack = MemStack::new(&mut memory);
    tridiagonal_self_adjoint_evd(diagonal, beside, values.as_mut(), None, Par::Seq, stack, default()).ok()?;
    Some(values.column_vector().iter().map(|value| value.max(0.0).sqrt()).sum())
}

/// Sum of the singular values.
pub(crate) fn nuclear_norm(a: MatRef<'_, f64>) -> Option<f64> {
    let (m, n) = (a.nrows(), a.ncols());
    let mut values = Diag::zeros(m.min(n));
    let none = ComputeSvdVectors::No;
    let mut memory = MemBuffer::new(svd_scratch::<f64>(m, n, none, none, Par::Seq, default()));
    svd(a, values.as_mut(), None, None, Par::Seq, MemStack::new(&mut memory), default()).ok()?;
    Some(values.column_vector().iter().sum())
}
