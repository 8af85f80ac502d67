//! Student's t distribution, for whole degrees of freedom.

use std::f64::consts::FRAC_PI_2;

/// `P(|T| < sqrt(degrees) tan(angle))`: a finite sum over powers of the cosine (Abramowitz & Stegun 26.7.3 and 26.7.4).
fn central_probability(angle: f64, degrees: usize) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let odd = degrees % 2 == 1;
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    // Odd: cos + 2/3 cos^3 + (2 4)/(3 5) cos^5 ..; even: 1 + 1/2 cos^2 + (1 3)/(2 4) cos^4 ..; up to cos^(degrees - 2).
    let mut power = usize::from(odd);
    while power + 2 <= degrees {
        sum += term;
        power += 2;
        term *= cos * cos * (power - 1) as f64 / power as f64;
    }
    if odd { (angle + sin * sum) / FRAC_PI_2 } else { sin * sum }
}

/// The value that Student's t with `degrees` degrees of freedom stays below with `probability`, in (0, 1).
///
/// Panics on `degrees` 0 or a probability outside (0, 1).
pub fn t_quantile(probability: f64, degrees: usize) -> f64 {
    assert!(degrees > 0, "no degrees of freedom");
    assert!(probability > 0.0 && probability < 1.0, "{probability} is no probability inside (0, 1)");
    let central = (2.0 * probability - 1.0).abs();
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if central_probability(middle, degrees) < central { low = middle } else { high = middle }
    }
    (degrees as f64).sqrt() * low.tan() * (probability - 0.5).signum()
}

/// The true effect, in standard errors, that a two-sided t test at level `alpha` finds with probability `power`: the
/// test's statistic is then noncentral t. `P(|Z + effect| > t s)` is integrated over `s`, the root of a chi-squared over
/// its `degrees`.
pub(crate) fn detectable_effect(alpha: f64, power: f64, degrees: usize) -> f64 {
    const POINTS: usize = 1000;
    let (critical, nu) = (t_quantile(1.0 - 0.5 * alpha, degrees), degrees as f64);
    let stride = (1.0 + 8.0 / nu.sqrt()) / POINTS as f64;
    let density = |s: f64| ((nu - 1.0) * s.ln() + 0.5 * nu * (1.0 - s * s)).exp();
    let points = (0..POINTS).map(|i| (i as f64 + 0.5) * stride).map(|s| (critical * s, density(s)));
    let points: Vec<(f64, f64)> = points.collect();
    let total: f64 = points.iter().map(|(_, weight)| weight).sum();
    let found = |effect: f64| {
        let outside = |limit: f64| normal_cdf(effect - limit) + normal_cdf(-effect - limit);
        points.iter().map(|&(limit, weight)| weight * outside(limit)).sum::<f64>() / total
    };
    // A power of nearly 1 at two seeds needs some hundred times the critical value.
    let (mut low, mut high) = (0.0, 1000.0 * critical);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if found(middle) < power { low = middle } else { high = middle }
    }
    low
}

/// The standard normal distribution function, to 1e-7 (Abramowitz & Stegun 7.1.26).
fn normal_cdf(z: f64) -> f64 {
    let u = 1.0 / (1.0 + 0.327_591_1 * z.abs() / std::f64::consts::SQRT_2);
    let series =
        u * (0.254_829_592 + u * (-0.284_496_736 + u * (1.421_413_741 + u * (-1.453_152_027 + u * 1.061_405_429))));
    let tail = 0.5 * series * (-0.5 * z * z).exp();
    if z < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published table values (two-sided 95%, one-sided 80%, 99.5%).
    #[test]
    fn quantiles_are_those_of_the_tables() {
        let table = [
            (0.975, 1, 12.7062),
            (0.975, 2, 4.30265),
            (0.975, 3, 3.18245),
            (0.975, 4, 2.77645),
            (0.975, 9, 2.26216),
            (0.975, 10, 2.22814),
            (0.975, 30, 2.04227),
            (0.975, 120, 1.97993),
            (0.8, 1, 1.37638),
            (0.8, 2, 1.06066),
            (0.8, 5, 0.91954),
            (0.995, 2, 9.92484),
            (0.995, 7, 3.49948),
            (0.995, 29, 2.75639),
        ];
        for (probability, degrees, expected) in table {
            let found = t_quantile(probability, degrees);
            assert!((found / expected - 1.0).abs() < 5e-6, "{probability} {degrees}: {found}");
            assert!((t_quantile(1.0 - probability, degrees) / -expected - 1.0).abs() < 5e-6);
        }
        assert!((t_quantile(0.975, 1_000_000) - 1.959_966).abs() < 5e-6, "the normal's");
        assert_eq!(t_quantile(0.5, 3).abs(), 0.0);
    }

    #[test]
    fn the_normal_is_that_of_the_tables() {
        for (z, expected) in [(0.0, 0.5), (1.0, 0.841_344_75), (1.959_964, 0.975), (3.0, 0.998_650_1)] {
            assert!((normal_cdf(z) - expected).abs() < 2e-7 && (normal_cdf(-z) - (1.0 - expected)).abs() < 2e-7);
        }
    }

    /// With many degrees of freedom the test is that of a known deviation: `z(0.975) + z(0.8)`.
    #[test]
    fn the_detectable_effect_has_the_normals_limit() {
        assert!((detectable_effect(0.05, 0.8, 100_000) - (1.959_964 + 0.841_621)).abs() < 1e-3);
        assert!(detectable_effect(0.05, 0.8, 2) > detectable_effect(0.05, 0.8, 3));
        assert!(detectable_effect(0.05, 0.05, 4) < 1e-3, "a power of alpha takes no effect");
    }
}
