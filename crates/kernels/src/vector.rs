//! Loops over rows of `f32`, compiled for the widest vectors that the machine has.
//!
//! The compiler finds the vectors of plain loops whose elements do not depend on each other. Reductions over rows name
//! them ([`At`]), since it made one number after the other of them; closures in them must be `#[inline(always)]` too.
//! Sums run over [`LANES`] partial sums in a fixed order, whatever the vector width: every machine with fused
//! multiply-add gets the same bits.

use std::f32::consts::LOG2_E;

use pulp::Simd;

/// Partial sums of a reduction.
pub(crate) const LANES: usize = 16;

/// Plain loops over their arguments. `run` and all it calls must be `#[inline(always)]`: only what is inlined into the
/// dispatched function is compiled with the machine's vector instructions.
pub(crate) trait Kernel {
    /// What the loops return.
    type Output;

    /// Runs them.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

struct Call<K>(K);

impl<K: Kernel> pulp::WithSimd for Call<K> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        self.0.run(simd)
    }
}

/// Runs `kernel` compiled with the machine's vector instructions.
pub(crate) fn vectorize<K: Kernel>(kernel: K) -> K::Output {
    pulp::Arch::new().dispatch(Call(kernel))
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = join(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The values of a row that one vector holds.
#[derive(Clone, Copy)]
pub(crate) struct At<S> {
    simd: S,
    start: usize,
    count: usize,
}

impl<S: Simd> At<S> {
    /// Those of row `a`; 0 beyond its end.
    #[inline(always)]
    pub(crate) fn load(self, a: &[f32]) -> S::f32s {
        let part = &a[self.start..self.start + self.count];
        if part.len() < S::F32_LANES {
            return self.simd.partial_load_f32s(part);
        }
        // SAFETY: the part is at least as long as a vector.
        unsafe { part.as_ptr().cast::<S::f32s>().read_unaligned() }
    }

    /// Puts `values` in their place in row `a`.
    #[inline(always)]
    pub(crate) fn store(self, values: S::f32s, a: &mut [f32]) {
        let part = &mut a[self.start..self.start + self.count];
        if part.len() < S::F32_LANES {
            return self.simd.partial_store_f32s(part, values);
        }
        // SAFETY: the part is at least as long as a vector.
        unsafe { part.as_mut_ptr().cast::<S::f32s>().write_unaligned(values) }
    }

    /// 0 beyond the end of the row.
    #[inline(always)]
    fn within(self, values: S::f32s) -> S::f32s {
        if self.count == S::F32_LANES {
            return values;
        }
        let inside = self.simd.mask_between_m32s(0, self.count as u32).mask();
        self.simd.select_f32s(inside, values, self.simd.splat_f32s(0.0))
    }
}

/// Every vector of a row of `length` values, and its number within its block of [`LANES`].
#[inline(always)]
pub(crate) fn each<S: Simd>(simd: S, length: usize, mut work: impl FnMut(At<S>, usize)) {
    let lanes = S::F32_LANES;
    let whole = length / LANES * LANES;
    for block in (0..whole).step_by(LANES) {
        for number in 0..LANES / lanes {
            work(At { simd, start: block + number * lanes, count: lanes }, number);
        }
    }
    for number in 0..LANES / lanes {
        let start = whole + number * lanes;
        if start < length {
            work(At { simd, start, count: lanes.min(length - start) }, number);
        }
    }
}

/// `N` sums over a row of `length` values at once.
#[inline(always)]
pub(crate) fn sums_over<S: Simd, const N: usize>(
    simd: S,
    length: usize,
    mut terms: impl FnMut(At<S>) -> [S::f32s; N],
) -> [f32; N] {
    let mut sums = [[simd.splat_f32s(0.0); LANES]; N];
    each(
        simd,
        length,
        #[inline(always)]
        |at, number| {
            let terms = terms(at);
            for n in 0..N {
                sums[n][number] = simd.add_f32s(sums[n][number], at.within(terms[n]));
            }
        },
    );
    let mut totals = [0.0; N];
    for n in 0..N {
        totals[n] = total(simd, sums[n]);
    }
    totals
}

/// Sum of [`LANES`] partial sums, each half onto the other.
#[inline(always)]
fn total<S: Simd>(simd: S, mut sums: [S::f32s; LANES]) -> f32 {
    let mut half = LANES / S::F32_LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] = simd.add_f32s(sums[i], sums[i + half]);
        }
        half /= 2;
    }
    simd.reduce_sum_f32s(sums[0])
}

/// `sum_i a_i b_i`.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [simd.splat_f32s(0.0); LANES];
    each(
        simd,
        a.len(),
        #[inline(always)]
        |at, number| sums[number] = simd.mul_add_e_f32s(at.load(a), at.load(b), sums[number]),
    );
    total(simd, sums)
}

/// `a_i = map(a_i)`; returns the sum of the new values.
#[inline(always)]
pub(crate) fn map_sum(a: &mut [f32], map: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = a.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for i in 0..LANES {
            block[i] = map(block[i]);
            lanes[i] += block[i];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *value = map(*value);
        *lane += *value;
    }
    fold(lanes, |a, b| a + b)
}

/// The largest `a_i`.
#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let (blocks, rest) = a.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = greater(lanes[i], block[i]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = greater(*lane, *value);
    }
    fold(lanes, greater)
}

/// `y += a`.
#[inline(always)]
pub(crate) fn add(y: &mut [f32], a: &[f32]) {
    for (y, a) in y.iter_mut().zip(a) {
        *y += a;
    }
}

/// `y += w a`.
#[inline(always)]
pub(crate) fn add_scaled<S: Simd>(simd: S, y: &mut [f32], w: f32, a: &[f32]) {
    let w = simd.splat_f32s(w);
    each(
        simd,
        a.len(),
        #[inline(always)]
        |at, _| at.store(simd.mul_add_e_f32s(w, at.load(a), at.load(y)), y),
    );
}

/// `2^x` to about one unit in the last place, `x` at least -126 and at most 126; NaN stays NaN.
///
/// `2^x = 2^n 2^r` with `n` the nearest integer and `|r| <= 1/2`; `2^r` is the polynomial with the least largest error
/// (2e-9) among those with the value 1 at 0. Arguments that are natural logarithms are multiplied by `log2 e` where
/// they are scaled anyway.
#[inline(always)]
fn exp2_within(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let p = 1.535_327_5e-4_f32;
    let p = p.mul_add(r, 1.339_889_4e-3);
    let p = p.mul_add(r, 9.618_438e-3);
    let p = p.mul_add(r, 5.550_332_4e-2);
    let p = p.mul_add(r, 2.402_264_8e-1);
    let p = p.mul_add(r, 6.931_472e-1);
    let p = p.mul_add(r, 1.0);
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// `2^x`, held inside the range of normal numbers; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    let x = if x < -126.0 { -126.0 } else { x };
    exp2_within(if x > 126.0 { 126.0 } else { x })
}

/// `2^x` of an `x` that is not above 0.
#[inline(always)]
pub(crate) fn exp2_at_most_one(x: f32) -> f32 {
    exp2_within(if x < -126.0 { -126.0 } else { x })
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp2(-LOG2_E * x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_accurate_to_their_last_digits() {
        let mut worst: f64 = 0.0;
        for i in -125_990..126_000 {
            let x = i as f32 / 1000.0;
            let want = f64::from(x).exp2();
            worst = worst.max((f64::from(exp2(x)) - want).abs() / want);
            assert!(x > 0.0 || exp2(x) == exp2_at_most_one(x));
        }
        assert!(worst < 1.2e-7, "{worst:e}");
        assert!(exp2(f32::NAN).is_nan() && exp2_at_most_one(f32::NAN).is_nan());
        assert!(exp2(-1e30) < 2e-38 && exp2_at_most_one(-1e30) < 2e-38 && exp2(1e30) > 8e37);
        assert_eq!((exp2(0.0), exp2(3.0), exp2(-2.0)), (1.0, 8.0, 0.25));
    }

    /// Every reduction of two rows.
    struct Reduce<'a>(&'a [f32], &'a [f32]);

    impl Kernel for Reduce<'_> {
        type Output = [f32; 3];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [f32; 3] {
            let Self(a, b) = self;
            let one = simd.splat_f32s(1.0);
            let [sum, more] = sums_over(
                simd,
                a.len(),
                #[inline(always)]
                |at| [at.load(a), simd.add_f32s(one, at.load(b))],
            );
            [sum, more, dot(simd, a, b)]
        }
    }

    #[test]
    fn reductions_match_plain_sums_at_every_length() {
        for length in [0, 1, 7, 15, 16, 17, 27, 48, 63, 100] {
            let a: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..length).map(|i| (i as f32 * 0.11).cos()).collect();
            let near = |ours: f32, want: f64| assert!((f64::from(ours) - want).abs() < 1e-5, "{length}");
            let ours = vectorize(Reduce(&a, &b));
            near(ours[0], a.iter().map(|&v| f64::from(v)).sum());
            near(ours[1], b.iter().map(|&v| 1.0 + f64::from(v)).sum());
            near(ours[2], a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum());
            #[cfg(target_arch = "x86_64")]
            if let Some(narrow) = pulp::x86::V3::try_new() {
                assert_eq!(ours, Simd::vectorize(narrow, Call(Reduce(&a, &b))), "vectors of 8 and of 16");
            }
            let mut doubled = a.clone();
            near(map_sum(&mut doubled, |v| 2.0 * v), a.iter().map(|&v| 2.0 * f64::from(v)).sum());
            assert!(doubled.iter().zip(&a).all(|(d, a)| *d == 2.0 * a));
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
