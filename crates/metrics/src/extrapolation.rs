//! The Frechet distance at infinitely many samples (Chong & Forsyth 2020).

/// A line through distances over `1 / samples`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extrapolation {
    /// Its value at `1 / samples = 0`.
    pub at_infinity: f64,
    /// Its slope: the bias of `N` samples is about `slope / N`.
    pub slope: f64,
}

/// The least-squares line through `(samples, distance)`; `None` for fewer than two different sample counts.
pub fn extrapolate(distances: &[(usize, f64)]) -> Option<Extrapolation> {
    let n = distances.len() as f64;
    let points = || distances.iter().map(|&(samples, distance)| (1.0 / samples as f64, distance));
    let (x, y) = points().fold((0.0, 0.0), |(x, y), (a, b)| (x + a / n, y + b / n));
    let (xx, xy) = points().fold((0.0, 0.0), |(xx, xy), (a, b)| (xx + (a - x).powi(2), xy + (a - x) * (b - y)));
    let different = distances.iter().any(|&(samples, _)| samples != distances[0].0);
    let slope = xy / xx;
    different.then_some(Extrapolation { at_infinity: y - slope * x, slope })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_noise_averaged() {
        let line = |n: usize| (n, 3.0 + 500.0 / n as f64);
        let exact = extrapolate(&[line(500), line(1000), line(4000)]).unwrap();
        assert!((exact.at_infinity - 3.0).abs() < 1e-12 && (exact.slope - 500.0).abs() < 1e-8);
        let noisy = extrapolate(&[(500, 4.1), (500, 3.9), (1000, 3.6), (1000, 3.4)]).unwrap();
        assert!((noisy.at_infinity - 3.0).abs() < 1e-12);
        assert_eq!(extrapolate(&[(500, 1.0), (500, 2.0)]), None);
        assert_eq!(extrapolate(&[]), None);
    }

    /// The bias itself: distances between finite samples of one distribution.
    #[test]
    fn the_bias_of_few_samples_goes() {
        use crate::{Gaussian, Reference};
        use random::{Draws, Stream};
        let d = 8;
        let features = |step, n: usize| {
            let mut values = vec![0.0; n * d];
            Draws::new(4, Stream::Factors, step).fill_normal(0, &mut values);
            Gaussian::from_features(&values, d).unwrap()
        };
        let identity: Vec<f64> = (0..d * d).map(|i| f64::from(u8::from(i / d == i % d))).collect();
        let truth = Reference::new(Gaussian::from_moments(vec![0.0; d], &identity).unwrap()).unwrap();
        let at = |n: usize| (0..20).map(move |k| (n, k)).map(|(n, k)| (n, truth.distance(&features(k, n)).unwrap()));
        let points: Vec<(usize, f64)> = [100, 200, 400, 800].into_iter().flat_map(at).collect();
        let line = extrapolate(&points).unwrap();
        assert!(points[0].1 > 0.15 && line.at_infinity.abs() < 0.01, "{line:?}");
    }
}
