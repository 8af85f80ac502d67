//! The exponential with additions and multiplications only: vectorised, and the same bits on every machine.

/// `e^x` to about 2 units in the last place; `x` is held to [-87, 88]. A value that is not a number stays so.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to an integer, which is then read from the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let series =
        1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = (shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits());
    series * f32::from_bits(power)
}

/// `e^x` in `f64` to about 2 units in the last place; `x` is held to [-700, 700]. A value that is not a number stays so.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    // 1.5 * 2^52, as above.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN_2_HIGH: f64 = 355.0 / 512.0;
    const LN_2_LOW: f64 = -2.121_944_400_546_905_8e-4;
    let x = x.clamp(-700.0, 700.0);
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    // Horner's rule over 1/k!
    let mut series = 1.0;
    for k in (1..=13).rev() {
        series = 1.0 + series * r * (1.0 / f64::from(k));
    }
    let power = (shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits());
    series * f64::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::{exp, exp_f64};

    #[test]
    fn doubles_agree_with_the_standard_library() {
        for i in -69_000..=69_000_i32 {
            let x = f64::from(i) * 1e-2 + 3.3e-4;
            let error = (exp_f64(x) - x.exp()).abs() / x.exp();
            assert!(error < 1e-15, "exp({x}): {error:e}");
        }
        assert_eq!(exp_f64(0.0), 1.0);
        assert!(exp_f64(f64::NAN).is_nan());
        assert!(exp_f64(-1e30) > 0.0 && exp_f64(1e30).is_finite());
    }

    #[test]
    fn agrees_with_the_standard_library() {
        for i in -86_000..=87_000_i32 {
            let x = i as f32 * 1e-3 + 3.3e-4;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3e-7, "exp({x}): {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e30) > 0.0 && exp(1e30).is_finite());
    }
}
