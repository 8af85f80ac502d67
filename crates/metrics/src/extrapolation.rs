//! The Frechet distance at infinitely many samples (Chong & Forsyth 2020).
//!
//! The distance of `N` samples to a reference has a bias of about `slope / N`, whose slope depends on the model. As
//! published: distances of 15 random parts of the samples, their sizes evenly spaced from 5,000 to all, and the
//! least-squares line over `1 / N`, read at 0.

use crate::{FeatureError, Gaussian, Reference, subsets};

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

/// `points` part sizes, evenly spaced from `smallest` to `samples`, rounded down (published: 15 from 5,000). Panics for
/// fewer than two points.
pub fn part_sizes(samples: usize, smallest: usize, points: usize) -> Vec<usize> {
    assert!(points > 1, "a line has two points at least");
    let span = samples as f64 - smallest as f64;
    (0..points).map(|i| (smallest as f64 + span * i as f64 / (points - 1) as f64) as usize).collect()
}

/// The line through the distances of parts of `features` `[n, dimensions]` to `reference`; part `i` holds `sizes[i]` rows,
/// drawn without replacement, a function of `i` and `seed`. `None` for fewer than two different sizes.
///
/// # Errors
/// A size is below 2 or above `n`; those of [`Gaussian::from_features`] and [`Reference::distance`].
pub fn extrapolate_parts(
    reference: &Reference,
    features: &[f32],
    dimensions: usize,
    sizes: &[usize],
    seed: u64,
) -> Result<Option<Extrapolation>, FeatureError> {
    crate::gaussian::whole_rows(features.len(), dimensions)?;
    let samples = features.len() / dimensions;
    let mut distances = Vec::with_capacity(sizes.len());
    // One after the other: a part of 50,000 samples is 400 MB, and the distance itself runs on all threads.
    for (number, &size) in (0..).zip(sizes) {
        if size > samples {
            return Err(FeatureError::Part { size, samples });
        }
        let part = subsets::subset(samples, size, number, seed);
        let gaussian = Gaussian::from_subset(features, dimensions, &part)?;
        distances.push((size, reference.distance(&gaussian)?));
    }
    Ok(extrapolate(&distances))
}

#[cfg(test)]
mod tests {
    use random::{Draws, Stream};

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

    /// Ordinary least squares over `1 / N` by the normal equations, on the published sizes.
    #[test]
    fn the_line_is_that_of_least_squares() {
        let sizes = part_sizes(50_000, 5_000, 15);
        assert_eq!((sizes[0], sizes[1], sizes[7], sizes[14]), (5_000, 8_214, 27_500, 50_000));
        let points: Vec<(usize, f64)> =
            sizes.iter().enumerate().map(|(i, &n)| (n, 6.0 + 9e3 / n as f64 + 0.01 * (1.7 * i as f64).sin())).collect();
        let x: Vec<f64> = points.iter().map(|p| 1.0 / p.0 as f64).collect();
        let (mut sx, mut sy, mut sxx, mut sxy) = (0.0, 0.0, 0.0, 0.0);
        for (x, (_, y)) in x.iter().zip(&points) {
            (sx, sy, sxx, sxy) = (sx + x, sy + y, sxx + x * x, sxy + x * y);
        }
        let slope = (15.0 * sxy - sx * sy) / (15.0 * sxx - sx * sx);
        let line = extrapolate(&points).unwrap();
        assert!((line.slope / slope - 1.0).abs() < 1e-9, "{} {slope}", line.slope);
        assert!((line.at_infinity - (sy - slope * sx) / 15.0).abs() < 1e-9);
        assert_eq!(part_sizes(10, 10, 2), [10, 10]);
    }

    const DIMENSIONS: usize = 8;

    fn normals(step: u64, n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n * DIMENSIONS];
        Draws::new(4, Stream::Factors, step).fill_normal(0, &mut values);
        values
    }

    /// The unit normal itself.
    fn truth() -> Reference {
        let d = DIMENSIONS;
        let identity: Vec<f64> = (0..d * d).map(|i| f64::from(u8::from(i / d == i % d))).collect();
        Reference::new(Gaussian::from_moments(vec![0.0; d], &identity).unwrap()).unwrap()
    }

    /// The bias itself, for samples of the reference: `d / N` from the mean, and from the covariance, whose deviations from
    /// the identity have variance `1 / N` (twice that on the diagonal), `tr E^2 / 4 = (d^2 + d) / (4 N)` to second order.
    #[test]
    fn the_bias_of_few_samples_goes() {
        let (truth, d) = (truth(), DIMENSIONS as f64);
        let distance = |k, n| truth.distance(&Gaussian::from_features(&normals(k, n), DIMENSIONS).unwrap()).unwrap();
        let points: Vec<(usize, f64)> = [400, 800, 1600, 3200]
            .into_iter()
            .flat_map(|n| (0..200).map(move |k| (n, k)))
            .map(|(n, k)| (n, distance(k, n)))
            .collect();
        let line = extrapolate(&points).unwrap();
        assert!(points[0].1 > 0.03 && line.at_infinity.abs() < 2e-3, "{line:?}");
        let expected = d + (d * d + d) / 4.0;
        assert!((line.slope / expected - 1.0).abs() < 0.12, "{} {expected}", line.slope);
    }

    #[test]
    fn parts_of_one_set_extrapolate() {
        let (n, truth) = (3000, truth());
        let features = normals(0, n);
        let sizes = part_sizes(n, 300, 15).repeat(8);
        let line = extrapolate_parts(&truth, &features, DIMENSIONS, &sizes, 7).unwrap().unwrap();
        let all = truth.distance(&Gaussian::from_features(&features, DIMENSIONS).unwrap()).unwrap();
        assert!(line.at_infinity.abs() < 0.75 * all && (15.0..40.0).contains(&line.slope), "{line:?} {all}");
        let again = extrapolate_parts(&truth, &features, DIMENSIONS, &sizes, 7).unwrap().unwrap();
        assert_eq!(again, line);
        assert_ne!(extrapolate_parts(&truth, &features, DIMENSIONS, &sizes, 8).unwrap().unwrap(), line);
        assert_eq!(extrapolate_parts(&truth, &features, DIMENSIONS, &[n, n], 7).unwrap(), None);
        assert_eq!(extrapolate_parts(&truth, &features, DIMENSIONS, &[], 7).unwrap(), None);
        let error = |sizes: &[usize]| extrapolate_parts(&truth, &features, DIMENSIONS, sizes, 7).unwrap_err();
        assert_eq!(error(&[1, n]), FeatureError::TooFew(1));
        assert_eq!(error(&[5, n + 1]), FeatureError::Part { size: n + 1, samples: n });
    }
}
