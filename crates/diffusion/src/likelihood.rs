//! Divergences and likelihoods of Gaussians, in nats.
//!
//! Generic over the float: the losses compute in `f64`. In `f32` the arithmetic is that of the reference code, where
//! the difference of two distribution functions drowns in the tails.

use std::f64::consts::FRAC_2_PI;

use num_traits::Float;

/// Half the width of a bin of 8-bit data scaled to [-1, 1].
const HALF_BIN: f64 = 1.0 / 255.0;
/// Beyond this, a value belongs to the outermost bin, which reaches to infinity.
const EDGE: f64 = 0.999;
/// Probabilities are held above this before their logarithm.
const FLOOR: f64 = 1e-12;
/// Weight of the cube in the tanh approximation of the normal distribution function.
const CUBE: f64 = 0.044_715;

fn constant<F: Float>(value: f64) -> F {
    F::from(value).expect("a constant of moderate size")
}

/// `KL(N(mean1, e^logvar1) || N(mean2, e^logvar2))`.
pub fn normal_kl<F: Float>(mean1: F, logvar1: F, mean2: F, logvar2: F) -> F {
    let apart = mean1 - mean2;
    let sum = logvar2 - logvar1 - F::one() + (logvar1 - logvar2).exp() + apart * apart * (-logvar2).exp();
    constant::<F>(0.5) * sum
}

/// Standard normal distribution function by its tanh approximation, `(1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2`,
/// and its derivative.
fn normal_cdf<F: Float>(z: F) -> (F, F) {
    let (half, scale, cube): (F, F, F) = (constant(0.5), constant(FRAC_2_PI.sqrt()), constant(CUBE));
    let tanh = (scale * (z + cube * (z * z * z))).tanh();
    let inner = scale * (F::one() + constant::<F>(3.0) * cube * z * z);
    (half * (F::one() + tanh), half * (F::one() - tanh * tanh) * inner)
}

/// Log probability of the 8-bit bin around `x` (data in [-1, 1]) under `N(mean, e^(2 log_scale))`, and its derivative
/// with respect to `log_scale`: `ln(cdf(x + 1/255) - cdf(x - 1/255))`, the outermost bins open, at least `ln 1e-12`
/// (Ho et al. 2020, Eq. 13).
pub fn discretised_gaussian<F: Float>(x: F, mean: F, log_scale: F) -> (F, F) {
    let (inverse, apart) = ((-log_scale).exp(), x - mean);
    let (upper, lower) = (inverse * (apart + constant(HALF_BIN)), inverse * (apart - constant(HALF_BIN)));
    let ((above, d_above), (below, d_below)) = (normal_cdf(upper), normal_cdf(lower));
    // d z / d log_scale = -z.
    let (probability, slope) = if x < constant(-EDGE) {
        (above, -d_above * upper)
    } else if x > constant(EDGE) {
        (F::one() - below, d_below * lower)
    } else {
        (above - below, d_below * lower - d_above * upper)
    };
    let floor = constant(FLOOR);
    if probability < floor { (floor.ln(), F::zero()) } else { (probability.ln(), slope / probability) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The integral definition, on a fine grid.
    #[test]
    fn the_divergence_is_the_integral_of_its_definition() {
        let (m1, v1, m2, v2) = (0.3_f64, -0.4_f64, -0.5_f64, 0.7_f64);
        let log_density = |x: f64, m: f64, v: f64| -0.5 * ((x - m).powi(2) / v.exp() + v + std::f64::consts::TAU.ln());
        let (step, mut sum) = (1e-3, 0.0);
        for i in -12_000..=12_000 {
            let x = f64::from(i) * step;
            sum += log_density(x, m1, v1).exp() * (log_density(x, m1, v1) - log_density(x, m2, v2)) * step;
        }
        assert!((normal_kl(m1, v1, m2, v2) - sum).abs() < 1e-9);
        assert_eq!(normal_kl(m1, v1, m1, v1), 0.0);
    }

    #[test]
    fn the_bins_cover_the_line_once() {
        for (mean, log_scale) in [(0.0, -1.0), (0.7, -3.0), (-1.3, -2.0), (0.2, -5.5), (3.0, 0.5)] {
            let bins = (0..256).map(|i| f64::from(i) / 127.5 - 1.0);
            let total: f64 = bins.map(|x| discretised_gaussian(x, mean, log_scale).0.exp()).sum();
            assert!((total - 1.0).abs() < 1e-9, "mean {mean}: {total}");
        }
    }

    #[test]
    fn the_slope_is_the_finite_difference() {
        for x in [-1.0, -0.9995, -0.5, 0.02, 0.9985, 1.0] {
            for (mean, log_scale) in [(x + 0.01, -4.0), (x - 0.2, -1.5), (0.0, 0.3)] {
                let f = |s: f64| discretised_gaussian(x, mean, s).0;
                let difference = (f(log_scale + 1e-5) - f(log_scale - 1e-5)) / 2e-5;
                let slope = discretised_gaussian(x, mean, log_scale).1;
                assert!((slope - difference).abs() < 1e-6 * slope.abs().max(1.0), "{x}: {slope} {difference}");
            }
        }
        let (value, slope) = discretised_gaussian(0.5, -0.5, -5.0);
        assert_eq!((value, slope), (1e-12_f64.ln(), 0.0), "the floor has no slope");
    }
}
