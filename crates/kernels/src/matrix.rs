//! Matrix products over strided views, on one thread: in registers ([`crate::tile`]) where the right factor is small,
//! else by the library `gemm`, which packs both factors first. Of a small factor whose rows are adjacent, as those of
//! `W^T` are, a panel of columns at a time is copied.
//!
//! An entry of a product is summed in the order of the inner index whatever the number of rows and columns, so a
//! sample's result does not depend on the samples beside it; see `products_do_not_depend_on_their_neighbours`.

use std::cell::Cell;

use crate::tile;

/// Most entries of a right factor that is read where it lies: a larger one leaves the second-level cache (measured:
/// 1.02 to 1.4 times the library's speed below, 0.7 to 1 times above).
const SMALL_FACTOR: usize = 1 << 20;

/// Columns of a panel: four of the widest vectors.
const PANEL: usize = 64;

thread_local! {
    /// Room for a panel, kept from one product to the next.
    static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A matrix that is read: entry `(i, j)` lies at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

/// A matrix that is written.
pub(crate) struct MatrixMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, without gaps.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Row-major, rows `row_stride` apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, row_stride), "a matrix must lie inside its slice");
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// The `count` columns from `first` on.
    #[inline(always)]
    fn columns(self, first: usize, count: usize) -> Self {
        Self { data: &self.data[first * self.column_stride..], columns: count, ..self }
    }
}

impl<'a> MatrixMut<'a> {
    /// Row-major, without gaps.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Row-major, rows `row_stride` apart.
    pub(crate) fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, row_stride), "a matrix must lie inside its slice");
        assert!(columns <= row_stride, "rows that are written must not overlap");
        Self { data, rows, columns, row_stride }
    }
}

fn fits(length: usize, rows: usize, columns: usize, row_stride: usize) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= length
}

/// `out = a b`.
pub(crate) fn product(out: MatrixMut, a: Matrix, b: Matrix) {
    multiply(out, a, b, 1.0, false);
}

/// `out = a b + bias` in every row.
pub(crate) fn linear(out: MatrixMut, a: Matrix, b: Matrix, bias: &[f32]) {
    if is_small(b) {
        return in_registers(out, a, b, Some(bias), 1.0, false);
    }
    let MatrixMut { rows, columns, row_stride, .. } = out;
    for row in out.data.chunks_mut(row_stride).take(rows) {
        row[..columns].copy_from_slice(bias);
    }
    add_product(out, a, b);
}

/// Whether `b` is read where it lies, or panel by panel.
fn is_small(b: Matrix) -> bool {
    (b.column_stride == 1 || b.row_stride == 1) && b.rows * b.columns <= SMALL_FACTOR
}

fn in_registers(out: MatrixMut, a: Matrix, b: Matrix, start: Option<&[f32]>, scale: f32, accumulate: bool) {
    let mut room = ROOM.take();
    if b.column_stride != 1 {
        room.resize(room.len().max(PANEL * b.rows), 0.0);
    }
    pulp::Arch::new().dispatch(InRegisters { out, a, b, start, scale, accumulate, room: &mut room });
    ROOM.set(room);
}

/// `out += a b`.
pub(crate) fn add_product(out: MatrixMut, a: Matrix, b: Matrix) {
    multiply(out, a, b, 1.0, true);
}

/// `out = scale a b`, or `out += scale a b`.
pub(crate) fn multiply(out: MatrixMut, a: Matrix, b: Matrix, scale: f32, accumulate: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert!(out.rows == m && out.columns == n && b.rows == k, "matrix product: shapes do not fit");
    if is_small(b) {
        return in_registers(out, a, b, None, scale, accumulate);
    }
    // SAFETY: every view was checked to lie inside its slice when it was made, and `out` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// A product for [`crate::tile`].
struct InRegisters<'a> {
    out: MatrixMut<'a>,
    a: Matrix<'a>,
    b: Matrix<'a>,
    start: Option<&'a [f32]>,
    scale: f32,
    accumulate: bool,
    /// At least one panel, where the columns of `b` are not adjacent.
    room: &'a mut [f32],
}

impl pulp::WithSimd for InRegisters<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { out: MatrixMut { data, rows, columns, row_stride }, a, b, start, scale, accumulate, room } = self;
        assert_eq!(columns, b.columns, "matrix product: shapes do not fit");
        let adjacent = b.column_stride == 1;
        let width = if adjacent { b.columns.max(1) } else { PANEL };
        for first in (0..b.columns).step_by(width) {
            let count = width.min(b.columns - first);
            let part = b.columns(first, count);
            let part = if adjacent { part } else { tile::transpose(simd, part.t(), room) };
            let start = start.map(|start| &start[first..first + count]);
            let out = MatrixMut::strided(&mut data[first..], rows, count, row_stride);
            if accumulate {
                tile::product::<S, true>(simd, out, a, part, start, |_| scale);
            } else {
                tile::product::<S, false>(simd, out, a, part, start, |_| scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    #[test]
    fn product_of_strided_and_transposed_views() {
        let (m, k, n) = (5, 7, 3);
        let (a, b) = (numbers(m * 10, 1), numbers(n * k, 2));
        let mut out = vec![1.0; m * 4];
        let into = MatrixMut::strided(&mut out, m, n, 4);
        multiply(into, Matrix::strided(&a, m, k, 10), Matrix::new(&b, n, k).t(), 0.5, true);
        for i in 0..m {
            for j in 0..n {
                let want: f64 = (0..k).map(|l| f64::from(a[i * 10 + l]) * f64::from(b[j * k + l])).sum();
                assert!((f64::from(out[i * 4 + j]) - (1.0 + 0.5 * want)).abs() < 1e-6);
            }
            assert_eq!(out[i * 4 + 3], 1.0, "the gap between rows is left alone");
        }
    }

    #[test]
    fn products_do_not_depend_on_their_neighbours() {
        // The last two are read where they lie: DiT-B/2 has them.
        for (k, n) in [(64, 192), (256, 64), (384, 1152), (1536, 384), (768, 2304), (3072, 768)] {
            assert_eq!(k * n > SMALL_FACTOR, k * n > 384 * 1536);
            let (a, b) = (numbers(320 * k, 3), numbers(n * k, 4));
            let rows = |count: usize, b_t: bool| {
                let mut out = vec![0.0; count * n];
                let b = if b_t { Matrix::new(&b, n, k).t() } else { Matrix::new(&b, k, n) };
                product(MatrixMut::new(&mut out, count, n), Matrix::new(&a[..count * k], count, k), b);
                out
            };
            for b_t in [true, false] {
                let all = rows(320, b_t);
                for count in [16, 64, 80, 128, 256] {
                    assert_eq!(rows(count, b_t), all[..count * n], "{count} rows of {k} x {n}");
                }
            }
        }
    }

    #[test]
    fn a_factor_gives_the_same_bits_whichever_way_it_lies() {
        for (m, k, n) in [(1, 1, 1), (7, 20, 33), (13, 64, 64), (30, 65, 200)] {
            let (a, w, bias) = (numbers(m * k, 5), numbers(n * k, 6), numbers(n, 7));
            let across: Vec<f32> = (0..k * n).map(|at| w[at % n * k + at / n]).collect();
            let with = |b: Matrix| {
                let mut out = vec![0.5; 2 * m * n];
                linear(MatrixMut::strided(&mut out, m, n, 2 * n), Matrix::new(&a, m, k), b, &bias);
                multiply(MatrixMut::strided(&mut out[n..], m, n, 2 * n), Matrix::new(&a, m, k), b, 0.3, true);
                out
            };
            assert_eq!(with(Matrix::new(&w, n, k).t()), with(Matrix::new(&across, k, n)), "{m} x {k} x {n}");
        }
    }

    #[test]
    #[should_panic(expected = "shapes do not fit")]
    fn unequal_inner_sizes_are_refused() {
        let (a, b, mut out) = ([0.0; 6], [0.0; 6], [0.0; 4]);
        product(MatrixMut::new(&mut out, 2, 2), Matrix::new(&a, 2, 3), Matrix::new(&b, 2, 2));
    }
}
