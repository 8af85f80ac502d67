//! A paired difference between two cells, its interval, and the smallest one that could have been seen.

use crate::Summary;
use crate::student::{detectable_effect, t_quantile};

/// What the error of a difference was estimated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Trainings with different seeds: all of the randomness.
    TrainingSeeds,
    /// Samples with different seeds of one training at least: the sampling error of that one.
    SamplingSeeds,
    /// Subsets of the samples of one training: the sampling error, and no more.
    Subsampling,
}

/// A difference `a - b` between two cells that share their random numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The difference.
    pub estimate: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Degrees of freedom of the standard error.
    pub degrees: usize,
    /// Where the standard error comes from.
    pub spread: Spread,
}

impl Difference {
    /// From the values of both cells by training seed, in the same order. `None` for fewer than two seeds: use
    /// [`Difference::over_subsets`]. Panics if the lengths differ.
    pub fn over_seeds(a: &[f64], b: &[f64]) -> Option<Self> {
        let summary = Summary::of(&minus(a, b))?;
        let standard_error = summary.sd? / (summary.count as f64).sqrt();
        let (estimate, degrees) = (summary.mean, summary.count - 1);
        Some(Self { estimate, standard_error, degrees, spread: Spread::TrainingSeeds })
    }

    /// From one training: the difference `a - b` over all samples, and the distances of both cells over the same subsets,
    /// each holding `share` (in (0, 1)) of the samples drawn without replacement. `None` for fewer than two subsets.
    ///
    /// The variance is that of the delete-d jackknife (Shao & Wu 1989): for subsets of `m = n - d` samples, `m / d` times
    /// the variance over subsets; for halves, that variance itself.
    pub fn over_subsets(a: f64, b: f64, subsets_a: &[f64], subsets_b: &[f64], share: f64) -> Option<Self> {
        assert!(share > 0.0 && share < 1.0, "a subset holds a share inside (0, 1), not {share}");
        let summary = Summary::of(&minus(subsets_a, subsets_b))?;
        let standard_error = summary.sd? * (share / (1.0 - share)).sqrt();
        Some(Self { estimate: a - b, standard_error, degrees: summary.count - 1, spread: Spread::Subsampling })
    }

    /// Half the width of the two-sided t interval at `confidence` (0.95 for 95%).
    pub fn half_width(&self, confidence: f64) -> f64 {
        t_quantile(0.5 + 0.5 * confidence, self.degrees) * self.standard_error
    }

    /// The two-sided t interval at `confidence`.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let half_width = self.half_width(confidence);
        (self.estimate - half_width, self.estimate + half_width)
    }

    /// The smallest true difference that this protocol finds with probability `power` in a two-sided t test at level
    /// `alpha`, if its standard error is the true one.
    pub fn detectable(&self, alpha: f64, power: f64) -> f64 {
        detectable_effect(alpha, power, self.degrees) * self.standard_error
    }
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "pairs have two sides");
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use random::{Draws, Stream};

    use super::*;
    use crate::subsets;

    #[test]
    fn the_interval_by_hand() {
        // Differences 1, 2, 3: mean 2, sd 1, standard error 1/sqrt(3), t(2) 4.30265.
        let difference = Difference::over_seeds(&[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0]).unwrap();
        let (low, high) = difference.interval(0.95);
        assert!((low - (2.0 - 2.484_138)).abs() < 1e-5 && (high - 4.484_138).abs() < 1e-5);
        assert_eq!(Difference::over_seeds(&[1.0], &[2.0]), None);
        assert_eq!(Difference::over_seeds(&[], &[]), None);
        assert_eq!(Difference::over_seeds(&[1.0, 2.0], &[1.0, 2.0]).unwrap().interval(0.95), (0.0, 0.0));
    }

    /// Draws of both cells: shared noise that pairing removes, and noise of their own.
    fn trial(number: u64, seeds: usize, effect: f64) -> Difference {
        let draws = Draws::new(1, Stream::Factors, number);
        let normal = |i: usize| f64::from(draws.normal(i as u64));
        let a: Vec<f64> = (0..seeds).map(|i| 50.0 + 20.0 * normal(3 * i) + normal(3 * i + 1) + effect).collect();
        let b: Vec<f64> = (0..seeds).map(|i| 50.0 + 20.0 * normal(3 * i) + normal(3 * i + 2)).collect();
        Difference::over_seeds(&a, &b).unwrap()
    }

    #[test]
    fn the_interval_covers_as_often_as_it_says() {
        for seeds in [2, 3, 5] {
            for confidence in [0.8, 0.95] {
                let covered = (0..4000).filter(|&i| {
                    let (low, high) = trial(i, seeds, 1.5).interval(confidence);
                    low <= 1.5 && 1.5 <= high
                });
                let share = covered.count() as f64 / 4000.0;
                // Four standard errors of a share of 4000.
                let error = 4.0 * (confidence * (1.0 - confidence) / 4000.0).sqrt();
                assert!((share - confidence).abs() < error, "{seeds} seeds: {share} of {confidence}");
            }
        }
    }

    #[test]
    fn a_detectable_difference_is_detected_as_often_as_it_says() {
        for seeds in [3, 5, 10] {
            // The true standard error, of two independent unit normals' difference.
            let standard_error = (2.0 / seeds as f64).sqrt();
            let ideal = Difference { estimate: 0.0, standard_error, degrees: seeds - 1, spread: Spread::TrainingSeeds };
            let effect = ideal.detectable(0.05, 0.8);
            let found = (0..4000).filter(|&i| trial(i, seeds, effect).interval(0.95).0 > 0.0).count();
            let power = found as f64 / 4000.0;
            assert!((power - 0.8).abs() < 4.0 * (0.8 * 0.2 / 4000.0_f64).sqrt(), "{seeds} seeds: power {power}");
        }
    }

    /// For a mean, the jackknife must find `sd / sqrt(n)` of the paired differences.
    #[test]
    fn subsampling_finds_the_standard_error_of_a_mean() {
        let (n, share) = (400_usize, 0.5);
        let draws = Draws::new(2, Stream::Factors, 0);
        let value = |cell: u64, i: u32| {
            let shared = 10.0 * draws.normal(u64::from(i));
            f64::from(shared + draws.normal(1000 + 1000 * cell + u64::from(i)))
        };
        let mean = |cell, of: &[u32]| of.iter().map(|&i| value(cell, i)).sum::<f64>() / of.len() as f64;
        let all: Vec<u32> = (0..n as u32).collect();
        let halves = subsets::halves(n, 400, 3);
        let over = |cell| halves.iter().map(|half| mean(cell, half)).collect::<Vec<_>>();
        let difference = Difference::over_subsets(mean(0, &all), mean(1, &all), &over(0), &over(1), share).unwrap();
        let each: Vec<f64> = all.iter().map(|&i| value(0, i) - value(1, i)).collect();
        let expected = Summary::of(&each).unwrap().sd.unwrap() / (n as f64).sqrt();
        // 400 subsets know a deviation to 3.5%.
        assert!((difference.standard_error / expected - 1.0).abs() < 0.12, "{} {expected}", difference.standard_error);
        assert_eq!((difference.degrees, difference.spread), (399, Spread::Subsampling));
        let quarters: Vec<Vec<u32>> = (0..400).map(|k| subsets::subset(n, n / 4, k, 3)).collect();
        let over = |cell| quarters.iter().map(|part| mean(cell, part)).collect::<Vec<_>>();
        let quarter = Difference::over_subsets(0.0, 0.0, &over(0), &over(1), 0.25).unwrap();
        assert!((quarter.standard_error / expected - 1.0).abs() < 0.12, "{} {expected}", quarter.standard_error);
        assert_eq!(Difference::over_subsets(1.0, 0.0, &[1.0], &[0.0], 0.5), None);
    }
}
