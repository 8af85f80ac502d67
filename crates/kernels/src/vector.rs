//! Loops over rows of `f32`, compiled for the widest vectors that the machine has.
//!
//! Sums run over [`LANES`] partial sums in a fixed order, whatever the vector width: every machine with fused
//! multiply-add gets the same bits.

/// Partial sums of a reduction.
pub(crate) const LANES: usize = 16;

/// Plain loops over their arguments. `run` and all it calls must be `#[inline(always)]`: only what is inlined into the
/// dispatched function is compiled with the machine's vector instructions.
pub(crate) trait Kernel {
    /// What the loops return.
    type Output;

    /// Runs them.
    fn run(self) -> Self::Output;
}

struct Call<K>(K);

impl<K: Kernel> pulp::WithSimd for Call<K> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> K::Output {
        self.0.run()
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

/// Sum of `term(i)` over `0..length`; `term` must be cheap and is inlined.
#[inline(always)]
pub(crate) fn sum_over(length: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, value) in lanes.iter_mut().enumerate() {
            *value += term(start + lane);
        }
    }
    for i in whole..length {
        lanes[i - whole] += term(i);
    }
    fold(lanes, |a, b| a + b)
}

/// Two sums over `0..length` at once.
#[inline(always)]
pub(crate) fn sums_over(length: usize, terms: impl Fn(usize) -> (f32, f32)) -> (f32, f32) {
    let (mut one, mut two) = ([0.0; LANES], [0.0; LANES]);
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            let (a, b) = terms(start + lane);
            one[lane] += a;
            two[lane] += b;
        }
    }
    for i in whole..length {
        let (a, b) = terms(i);
        one[i - whole] += a;
        two[i - whole] += b;
    }
    (fold(one, |a, b| a + b), fold(two, |a, b| a + b))
}

/// `sum_i a_i`.
#[inline(always)]
pub(crate) fn sum(a: &[f32]) -> f32 {
    let (blocks, rest) = a.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += block[i];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += value;
    }
    fold(lanes, |a, b| a + b)
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

/// `sum_i a_i b_i`.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = a.mul_add(*b, *lane);
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
pub(crate) fn add_scaled(y: &mut [f32], w: f32, a: &[f32]) {
    for (y, a) in y.iter_mut().zip(a) {
        *y = w.mul_add(*a, *y);
    }
}

/// `e^x` to about one unit in the last place, held inside the range of normal numbers; NaN stays NaN.
///
/// `e^x = 2^n e^r` with `n` the nearest integer to `x / ln 2` and `|r| <= ln 2 / 2`; `e^r` is the polynomial of the
/// Cephes library (S. Moshier), `ln 2` is taken off in two parts.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const LN2_HIGH: f32 = 355.0 / 512.0; // few bits: its product with n is exact
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let y = (r * r).mul_add(p, r) + 1.0;
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_to_its_last_digits() {
        let mut worst: f64 = 0.0;
        for i in -86_000..88_000 {
            let x = i as f32 / 1000.0;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 1.2e-7, "{worst:e}");
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e30) < 2e-38 && exp(1e30) > 1e38);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn reductions_match_plain_sums_at_every_length() {
        for length in [0, 1, 15, 16, 17, 48, 63, 100] {
            let a: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..length).map(|i| (i as f32 * 0.11).cos()).collect();
            let near = |ours: f32, want: f64| assert!((f64::from(ours) - want).abs() < 1e-5, "{length}");
            near(sum(&a), a.iter().map(|&v| f64::from(v)).sum());
            near(dot(&a, &b), a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum());
            let (one, two) = sums_over(length, |i| (a[i], a[i] * b[i]));
            assert_eq!(one, sum(&a));
            near(two, a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum());
            let mut doubled = a.clone();
            assert_eq!(map_sum(&mut doubled, |v| 2.0 * v), 2.0 * sum(&a));
            assert!(doubled.iter().zip(&a).all(|(d, a)| *d == 2.0 * a));
            near(sum_over(length, |i| a[i] * a[i]), a.iter().map(|&v| f64::from(v) * f64::from(v)).sum());
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
