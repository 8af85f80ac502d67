//! Bits to uniform and normal numbers, in f32 with additions and multiplications only, so that every machine gets the same bits.

use std::f32::consts::{LN_2, SQRT_2, TAU};

/// Uniform in [0, 1), a multiple of 2^-24.
#[inline(always)]
pub(crate) fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Two normals from two words: `sqrt(-2 ln u) (cos, sin)(2 pi v)`.
#[inline(always)]
pub(crate) fn box_muller(a: u32, b: u32) -> (f32, f32) {
    // u in (0, 1]: its logarithm is finite.
    let u = (a as f32 + 0.5) * (1.0 / 4_294_967_296.0);
    let radius = (-2.0 * ln(u)).max(0.0).sqrt();
    let (sin, cos) = sin_cos_turns(unit(b));
    (radius * cos, radius * sin)
}

/// Natural logarithm of a normal positive number: mantissa in [sqrt(1/2), sqrt(2)), then the odd series of
/// `2 artanh(s)`, `s = (m - 1) / (m + 1)`, whose sixth term is below 1e-9.
#[inline(always)]
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let raised = bits.wrapping_sub((SQRT_2 / 2.0).to_bits());
    let exponent = (raised as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = 1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0)))));
    exponent as f32 * LN_2 + 2.0 * s * series
}

/// Sine and cosine of `turns` full turns, `turns` in [0, 1): the nearest quarter is split off exactly, the rest
/// (at most an eighth of a turn) goes through the Taylor series.
#[inline(always)]
fn sin_cos_turns(turns: f32) -> (f32, f32) {
    let quarter = (turns * 4.0 + 0.5) as u32;
    let a = (turns - quarter as f32 * 0.25) * TAU;
    let z = a * a;
    let sin = a * (1.0 + z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362_880.0)))));
    let cos =
        1.0 + z * (-1.0 / 2.0 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40_320.0 - z * (1.0 / 3_628_800.0)))));
    // (sin, cos), (cos, -sin), (-sin, -cos), (-cos, sin), without a branch so that the compiler can use vectors
    let odd = quarter & 1 == 1;
    let negated = |x: f32, by: u32| f32::from_bits(x.to_bits() ^ ((by & 2) << 30));
    (negated(if odd { cos } else { sin }, quarter), negated(if odd { sin } else { cos }, quarter + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_and_circle_agree_with_the_standard_library() {
        for i in 0..200_000_u32 {
            let u = (f64::from(i) + 0.5) / 200_000.0;
            let error = f64::from(ln(u as f32)) - f64::from(u as f32).ln();
            assert!(error.abs() < 2e-6, "ln {u}: {error:e}");
            let turns = u as f32;
            if turns < 1.0 {
                let (sin, cos) = sin_cos_turns(turns);
                let (s, c) = (f64::from(turns) * std::f64::consts::TAU).sin_cos();
                assert!((f64::from(sin) - s).abs() < 3e-7 && (f64::from(cos) - c).abs() < 3e-7, "{turns}");
            }
        }
        assert!((f64::from(ln(1.164_153_2e-10)) - 1.164_153_2e-10_f64.ln()).abs() < 3e-6);
    }
}
