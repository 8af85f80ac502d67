//! Matrix products in registers, for matrices so small that packing them (as the library `gemm` does) costs about as
//! much as multiplying them: a head's attention, and the linear layers of narrow trunks.
//!
//! A tile of rows and vectors of the result is summed in registers over the whole inner index, one fused multiply-add
//! after the other: an entry's bits depend neither on where in the result it lies nor on the width of the vectors.

use pulp::{MemMask, Simd};

use crate::matrix::{Matrix, MatrixMut};
use crate::vector::LANES;

/// Most rows of a tile. With four vectors of 32 registers, or two of 16, the sums leave room for `b` and one of `a`.
pub(crate) const ROWS: usize = 6;

/// Pointers of a product, strides in elements.
#[derive(Clone, Copy)]
struct Place {
    depth: usize,
    a: *const f32,
    a_row: usize,
    a_step: usize,
    b: *const f32,
    b_step: usize,
    out: *mut f32,
    out_row: usize,
    start: Option<*const f32>,
}

/// `out[i, j] = scale(i) (start[j] + sum_l a[i, l] b[l, j])`, or `out[i, j] += ..` with `ADD`. Columns of `b` must be
/// adjacent; without `start` it is 0.
#[inline(always)]
pub(crate) fn product<S: Simd, const ADD: bool>(
    simd: S,
    out: MatrixMut,
    a: Matrix,
    b: Matrix,
    start: Option<&[f32]>,
    scale: impl Fn(usize) -> f32,
) {
    let (m, n, depth) = (a.rows, b.columns, a.columns);
    assert!(out.rows == m && out.columns == n && b.rows == depth, "matrix product: shapes do not fit");
    assert_eq!(b.column_stride, 1, "the right factor's columns are adjacent");
    assert!(a.row_stride == 1 || a.column_stride == 1, "the left factor is adjacent one way");
    assert!(start.is_none_or(|start| start.len() == n), "one start per column");
    let place = Place {
        depth,
        a: a.data.as_ptr(),
        a_row: a.row_stride,
        a_step: a.column_stride,
        b: b.data.as_ptr(),
        b_step: b.row_stride,
        out: out.data.as_mut_ptr(),
        out_row: out.row_stride,
        start: start.map(<[f32]>::as_ptr),
    };
    // SAFETY: every view was checked to lie inside its slice when it was made, and `out` is borrowed mutably. The two
    // cases say the same: a stride known to be 1 makes the addresses simpler.
    unsafe {
        if a.row_stride == 1 {
            panels::<S, ADD>(simd, Place { a_row: 1, ..place }, m, n, &scale);
        } else {
            panels::<S, ADD>(simd, Place { a_step: 1, ..place }, m, n, &scale);
        }
    }
}

/// The transpose of a row-major `from`, written to `out`: in squares of vectors.
#[inline(always)]
pub(crate) fn transpose<'a, S: Simd>(simd: S, from: Matrix, out: &'a mut [f32]) -> Matrix<'a> {
    let (m, n, square) = (from.rows, from.columns, |length: usize| length / S::F32_LANES * S::F32_LANES);
    assert_eq!(from.column_stride, 1, "columns are adjacent");
    for i in (0..square(m)).step_by(S::F32_LANES) {
        for j in (0..square(n)).step_by(S::F32_LANES) {
            transpose_square(simd, &from.data[i * from.row_stride + j..], from.row_stride, &mut out[j * m + i..], m);
        }
    }
    for i in 0..m {
        let done = if i < square(m) { square(n) } else { 0 };
        for j in done..n {
            out[j * m + i] = from.data[i * from.row_stride + j];
        }
    }
    Matrix::new(&out[..m * n], n, m)
}

/// As many rows as a vector has values, `stride` apart: row `i` is turned right by `i`, so that each value lies in the lane
/// of its sum of indices; lane `j` of all rows is moved down by `j` rows, one bit of `j` after the other; and row `i` is
/// turned back by `i`. The compiler makes single moves of the plain loops (measured: four times as long).
#[inline(always)]
fn transpose_square<S: Simd>(simd: S, from: &[f32], stride: usize, out: &mut [f32], out_stride: usize) {
    const { assert!(S::F32_LANES <= LANES) };
    let lanes = S::F32_LANES;
    let mut rows = [simd.splat_f32s(0.0); LANES];
    for i in 0..lanes {
        let row = &from[i * stride..][..lanes];
        // SAFETY: the row is as long as a vector.
        let row = unsafe { row.as_ptr().cast::<S::f32s>().read_unaligned() };
        rows[(lanes - i) % lanes] = simd.rotate_right_f32s(row, i);
    }
    let mut bit = 1;
    while bit < lanes {
        let mut moved = [0.0; LANES];
        for (lane, moved) in moved.iter_mut().enumerate() {
            *moved = (lane & bit) as f32;
        }
        // SAFETY: there are at least as many values as a vector has.
        let moved = unsafe { moved.as_ptr().cast::<S::f32s>().read_unaligned() };
        let moved = simd.greater_than_f32s(moved, simd.splat_f32s(0.0));
        let before = rows;
        for i in 0..lanes {
            rows[i] = simd.select_f32s(moved, before[(i + lanes - bit) % lanes], before[i]);
        }
        bit *= 2;
    }
    for i in 0..lanes {
        let row = &mut out[i * out_stride..][..lanes];
        // SAFETY: the row is as long as a vector.
        unsafe { row.as_mut_ptr().cast::<S::f32s>().write_unaligned(simd.rotate_left_f32s(rows[i], i)) }
    }
}

/// All columns, as many vectors at once as the registers allow.
#[inline(always)]
unsafe fn panels<S: Simd, const ADD: bool>(simd: S, p: Place, m: usize, n: usize, scale: &impl Fn(usize) -> f32) {
    let lanes = S::F32_LANES;
    let mut j = 0;
    while j < n {
        // SAFETY: the panel's columns lie inside the product.
        unsafe {
            let start = p.start.map(|start| start.add(j));
            let p = Place { b: p.b.add(j), out: p.out.add(j), start, ..p };
            let left = (n - j) / lanes;
            j += if left >= 4 && S::REGISTER_COUNT >= 32 {
                rows::<S, ADD, 4>(simd, p, m, None, scale);
                4 * lanes
            } else if left >= 2 {
                rows::<S, ADD, 2>(simd, p, m, None, scale);
                2 * lanes
            } else if left == 1 {
                rows::<S, ADD, 1>(simd, p, m, None, scale);
                lanes
            } else {
                rows::<S, ADD, 1>(simd, p, m, Some(n - j), scale);
                n - j
            };
        }
    }
}

/// All rows of a panel of `V` vectors; of its one vector the first `some` columns, if given.
#[inline(always)]
unsafe fn rows<S: Simd, const ADD: bool, const V: usize>(
    simd: S,
    p: Place,
    m: usize,
    some: Option<usize>,
    scale: &impl Fn(usize) -> f32,
) {
    let mut i = 0;
    // SAFETY: the tiles' rows lie inside the product.
    unsafe {
        while m - i >= ROWS {
            tile::<S, ADD, ROWS, V>(simd, p, i, some, scale);
            i += ROWS;
        }
        if m - i >= 4 {
            tile::<S, ADD, 4, V>(simd, p, i, some, scale);
            i += 4;
        }
        if m - i >= 2 {
            tile::<S, ADD, 2, V>(simd, p, i, some, scale);
            i += 2;
        }
        if m - i == 1 {
            tile::<S, ADD, 1, V>(simd, p, i, some, scale);
        }
    }
}

/// The vector at `from`, or those of its values that are behind the mask.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, mask: Option<MemMask<S::m32s>>, from: *const f32) -> S::f32s {
    // SAFETY: the caller's vector, or the masked part of it, lies inside its matrix.
    unsafe {
        match mask {
            Some(mask) => simd.mask_load_ptr_f32s(mask, from),
            None => from.cast::<S::f32s>().read_unaligned(),
        }
    }
}

/// `R` rows from row `i` on, `V` vectors wide.
#[inline(always)]
unsafe fn tile<S: Simd, const ADD: bool, const R: usize, const V: usize>(
    simd: S,
    p: Place,
    i: usize,
    some: Option<usize>,
    scale: &impl Fn(usize) -> f32,
) {
    let mask = some.map(|columns| simd.mask_between_m32s(0, columns as u32));
    // SAFETY: the caller's tile lies inside the product; what a mask leaves out is not touched.
    unsafe {
        let a = p.a.add(i * p.a_row);
        let mut start = [simd.splat_f32s(0.0); V];
        if let Some(from) = p.start {
            for (v, start) in start.iter_mut().enumerate() {
                *start = load(simd, mask, from.add(v * S::F32_LANES));
            }
        }
        let mut sums = [start; R];
        for l in 0..p.depth {
            // not `from_fn`: what the compiler leaves as a call is compiled without the vectors
            let mut b = [simd.splat_f32s(0.0); V];
            for (v, b) in b.iter_mut().enumerate() {
                *b = load(simd, mask, p.b.add(l * p.b_step + v * S::F32_LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = simd.splat_f32s(*a.add(r * p.a_row + l * p.a_step));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = simd.mul_add_e_f32s(a, b, *sum);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let scale = simd.splat_f32s(scale(i + r));
            for (v, sum) in sums.into_iter().enumerate() {
                let to = p.out.add((i + r) * p.out_row + v * S::F32_LANES);
                let value = simd.mul_f32s(sum, scale);
                let value = if ADD { simd.add_f32s(load(simd, mask, to), value) } else { value };
                match mask {
                    Some(mask) => simd.mask_store_ptr_f32s(mask, to, value),
                    None => to.cast::<S::f32s>().write_unaligned(value),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;

    /// `out += scale(i) (start + a b)`, `b` with a gap between its rows.
    struct Case {
        sizes: (usize, usize, usize),
        transposed: bool,
        a: Vec<f32>,
        b: Vec<f32>,
        start: Vec<f32>,
    }

    struct Into<'a>(&'a Case, &'a mut [f32]);

    fn scale(i: usize) -> f32 {
        1.0 + i as f32
    }

    impl WithSimd for Into<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self(case, out) = self;
            let (m, n, k) = case.sizes;
            let a = if case.transposed { Matrix::new(&case.a, k, m).t() } else { Matrix::new(&case.a, m, k) };
            let b = Matrix::strided(&case.b, k, n, n + 3);
            product::<S, true>(simd, MatrixMut::strided(out, m, n, n + 1), a, b, Some(&case.start), scale);
        }
    }

    struct Turn<'a>(Matrix<'a>, &'a mut [f32]);

    impl WithSimd for Turn<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            transpose(simd, self.0, self.1);
        }
    }

    #[test]
    fn transposes_of_every_size_and_every_width_of_vectors() {
        for (m, n, stride) in [(1, 1, 1), (3, 20, 20), (16, 16, 19), (20, 33, 40), (64, 384, 384)] {
            let from: Vec<f32> = (0..m * stride).map(|at| at as f32).collect();
            let matrix = Matrix::strided(&from, m, n, stride);
            let check = |turn: &dyn Fn(Turn)| {
                let mut out = vec![-1.0; m * n];
                turn(Turn(matrix, &mut out));
                assert!((0..m * n).all(|at| out[at] == from[at % m * stride + at / m]), "{m} x {n}");
            };
            check(&|turn| pulp::Arch::new().dispatch(turn));
            check(&|turn| turn.with_simd(pulp::Scalar::new()));
            #[cfg(target_arch = "x86_64")]
            if let Some(narrow) = pulp::x86::V3::try_new() {
                check(&|turn| Simd::vectorize(narrow, turn));
            }
        }
    }

    #[test]
    fn every_size_and_every_width_of_vectors() {
        let numbers = |count: usize, seed: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * seed).sin()).collect() };
        for (m, n, k) in [(1, 1, 1), (3, 5, 4), (7, 16, 9), (8, 31, 2), (13, 48, 5), (6, 64, 16), (11, 131, 3)] {
            for transposed in [false, true] {
                let (a, b, start) = (numbers(m * k, 0.7), numbers(k * (n + 3), 0.3), numbers(n, 0.9));
                let case = Case { sizes: (m, n, k), transposed, a, b, start };
                let mut out = vec![1.0; m * (n + 1)];
                pulp::Arch::new().dispatch(Into(&case, &mut out));
                let Case { a, b, start, .. } = &case;
                for i in 0..m {
                    for j in 0..n {
                        let a = |l: usize| f64::from(if transposed { a[l * m + i] } else { a[i * k + l] });
                        let sum: f64 = (0..k).map(|l| a(l) * f64::from(b[l * (n + 3) + j])).sum();
                        let want = 1.0 + f64::from(scale(i)) * (f64::from(start[j]) + sum);
                        assert!((f64::from(out[i * (n + 1) + j]) - want).abs() < 2e-5, "{m} x {n} x {k}");
                    }
                    assert_eq!(out[i * (n + 1) + n], 1.0, "the gap between rows is left alone");
                }
                #[cfg(target_arch = "x86_64")]
                if let (Some(narrow), Some(_)) = (pulp::x86::V3::try_new(), pulp::x86::V4::try_new()) {
                    let mut other = vec![1.0; m * (n + 1)];
                    Simd::vectorize(narrow, Into(&case, &mut other));
                    assert_eq!(out, other, "vectors of 8 and of 16");
                }
            }
        }
    }
}
