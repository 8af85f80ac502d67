//! GELU in its tanh form, with the bias of the layer before it.
//!
//! `gelu(u) = u/2 (1 + tanh(z)) = u s`, `s = sigmoid(2 z)`, `z = sqrt(2/pi) (u + 0.044715 u^3)`
//! (Hendrycks & Gimpel 2016). The sigmoid loses no digits for negative `u`.

use std::f32::consts::LOG2_E;

use pulp::Simd;

use crate::vector::{Kernel, exp2};

const TWICE_ROOT: f32 = 1.595_769; // 2 sqrt(2/pi), as near as f32 comes
const CUBIC: f32 = 0.044_715;

/// `e = exp(-2 z)`: then `s = 1 / (1 + e)` and `1 - s = e s`.
#[inline(always)]
fn opposite(u: f32) -> f32 {
    const LINEAR: f32 = -TWICE_ROOT * LOG2_E;
    exp2(u * (LINEAR * CUBIC).mul_add(u * u, LINEAR))
}

#[inline(always)]
fn value(u: f32) -> f32 {
    u * (1.0 / (1.0 + opposite(u)))
}

/// `gelu(u)` and its derivative `s + 2 u s (1 - s) z'`.
#[inline(always)]
fn with_derivative(u: f32) -> (f32, f32) {
    let e = opposite(u);
    let s = 1.0 / (1.0 + e);
    let slope = (3.0 * CUBIC * TWICE_ROOT).mul_add(u * u, TWICE_ROOT);
    let value = u * s;
    (value, (value * (e * s)).mul_add(slope, s))
}

/// `h = gelu(u + bias)`, row by row.
pub(crate) struct Forward<'a> {
    pub(crate) u: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) h: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let width = self.bias.len();
        for (u, h) in self.u.chunks_exact(width).zip(self.h.chunks_exact_mut(width)) {
            for i in 0..width {
                h[i] = value(u[i] + self.bias[i]);
            }
        }
    }
}

/// `u = gelu(u + bias)` in place.
pub(crate) struct ForwardInPlace<'a> {
    pub(crate) u: &'a mut [f32],
    pub(crate) bias: &'a [f32],
}

impl Kernel for ForwardInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let width = self.bias.len();
        for u in self.u.chunks_exact_mut(width) {
            for (u, bias) in u.iter_mut().zip(self.bias) {
                *u = value(*u + bias);
            }
        }
    }
}

/// `dh = dh gelu'(u + bias)` in place: the gradient of `h` becomes that of `u`.
pub(crate) struct Backward<'a> {
    pub(crate) u: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) dh: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let width = self.bias.len();
        for (u, dh) in self.u.chunks_exact(width).zip(self.dh.chunks_exact_mut(width)) {
            for i in 0..width {
                dh[i] *= with_derivative(u[i] + self.bias[i]).1;
            }
        }
    }
}

/// The same, and `h = gelu(u + bias)` again for the weights' gradient, and the bias's gradient added to `d_bias`.
pub(crate) struct BackwardFull<'a> {
    pub(crate) u: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) dh: &'a mut [f32],
    pub(crate) h: &'a mut [f32],
    pub(crate) d_bias: &'a mut [f32],
}

impl Kernel for BackwardFull<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let width = self.bias.len();
        let d_bias = &mut self.d_bias[..width];
        let rows = self.u.chunks_exact(width).zip(self.dh.chunks_exact_mut(width));
        for ((u, dh), h) in rows.zip(self.h.chunks_exact_mut(width)) {
            for i in 0..width {
                let (value, derivative) = with_derivative(u[i] + self.bias[i]);
                h[i] = value;
                dh[i] *= derivative;
                d_bias[i] += dh[i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::vectorize;

    fn exact(u: f64) -> f64 {
        0.5 * u * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (u + 0.044_715 * u.powi(3))).tanh())
    }

    #[test]
    fn value_and_derivative_match_double_precision() {
        let u: Vec<f32> = (-4000..4000).map(|i| i as f32 / 400.0).collect();
        let bias = vec![0.25; u.len()];
        let (mut h, mut dh) = (vec![0.0; u.len()], vec![2.0; u.len()]);
        vectorize(Forward { u: &u, bias: &bias, h: &mut h });
        vectorize(Backward { u: &u, bias: &bias, dh: &mut dh });
        for i in 0..u.len() {
            let v = f64::from(u[i]) + 0.25;
            assert!((f64::from(h[i]) - exact(v)).abs() <= 2e-7 * v.abs().max(1.0), "{v}");
            let slope = (exact(v + 1e-5) - exact(v - 1e-5)) / 2e-5;
            assert!((f64::from(dh[i]) - 2.0 * slope).abs() < 2e-6, "{v}: {} {}", dh[i], 2.0 * slope);
        }
        let mut inside = u.clone();
        vectorize(ForwardInPlace { u: &mut inside, bias: &bias });
        assert_eq!(inside, h);
        let (mut again, mut h_again, mut d_bias) = (vec![2.0; u.len()], vec![0.0; u.len()], vec![1.0; u.len()]);
        vectorize(BackwardFull { u: &u, bias: &bias, dh: &mut again, h: &mut h_again, d_bias: &mut d_bias });
        assert_eq!((&again, &h_again), (&dh, &h));
        assert!(d_bias.iter().zip(&dh).all(|(bias, dh)| *bias == 1.0 + dh));
    }
}
