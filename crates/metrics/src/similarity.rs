//! How alike samples are: the statistics of structural bias (Table 5).

use faer::{Mat, MatRef};
use rayon::prelude::*;

use crate::FeatureError;
use crate::gaussian::{finite, whole_rows};
use crate::linear::{add_gram_tile, lower_tiles};

/// Similarity of two samples, in [-1, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Similarity {
    /// Pearson's correlation of their values: the cosine after each sample's own mean is taken off.
    Pearson,
    /// The cosine of the angle between them.
    Cosine,
}

/// Statistics of the similarities of all pairs of different samples: the matrix without its diagonal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairStatistics {
    /// Largest.
    pub max: f64,
    /// Smallest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation, of the population (over the number of pairs).
    pub sd: f64,
}

impl PairStatistics {
    /// Over the row-major `samples` `[n, elements]` (Table 5: 1,000 latents of `4 * 32 * 32`), in `f64`.
    ///
    /// Only tiles of the similarity matrix are held, beside the normalised samples. The bits do not depend on the number of
    /// threads.
    ///
    /// # Errors
    /// Fewer than two samples; values that make no whole rows or are not finite; a sample that is constant (Pearson) or
    /// zero (cosine).
    pub fn of(samples: &[f32], elements: usize, similarity: Similarity) -> Result<Self, FeatureError> {
        whole_rows(samples.len(), elements)?;
        let n = samples.len() / elements;
        if n < 2 {
            return Err(FeatureError::TooFew(n));
        }
        finite("value", samples.iter().map(|&v| f64::from(v)), elements)?;
        let directions: Vec<Vec<f64>> = samples
            .par_chunks_exact(elements)
            .enumerate()
            .map(|(row, values)| direction(row, values, similarity))
            .collect::<Result<_, _>>()?;
        let directions = directions.concat();
        let columns = MatRef::from_column_major_slice(&directions, elements, n);
        let of_tile = |place| {
            let mut tile = Mat::new();
            add_gram_tile(&mut tile, columns, place);
            Pairs::of_tile(&tile, place)
        };
        let tiles: Vec<Pairs> = lower_tiles(n).into_par_iter().map(of_tile).collect();
        let all = tiles.into_iter().fold(Pairs::NONE, Pairs::with);
        Ok(Self { max: all.max, min: all.min, mean: all.mean, sd: (all.squares / all.count).sqrt() })
    }
}

/// A sample as a vector of length 1.
fn direction(row: usize, values: &[f32], similarity: Similarity) -> Result<Vec<f64>, FeatureError> {
    let (offset, what) = match similarity {
        Similarity::Pearson => (values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64, "constant"),
        Similarity::Cosine => (0.0, "zero"),
    };
    // The mean of a constant may be off by its rounding.
    let none = match similarity {
        Similarity::Pearson => values.iter().all(|&v| v == values[0]),
        Similarity::Cosine => values.iter().all(|&v| v == 0.0),
    };
    if none {
        return Err(FeatureError::NoDirection { row, what });
    }
    let centred = values.iter().map(|&v| f64::from(v) - offset);
    let length = centred.clone().map(|v| v * v).sum::<f64>().sqrt();
    Ok(centred.map(|v| v / length).collect())
}

/// Statistics of some pairs; `squares` is the sum of squared deviations from the mean.
struct Pairs {
    count: f64,
    max: f64,
    min: f64,
    mean: f64,
    squares: f64,
}

impl Pairs {
    const NONE: Self = Self { count: 0.0, max: f64::NEG_INFINITY, min: f64::INFINITY, mean: 0.0, squares: 0.0 };

    /// The pairs below the diagonal in the tile at `place`.
    fn of_tile(tile: &Mat<f64>, (row, column): (usize, usize)) -> Self {
        let mut pairs = Self::NONE;
        for j in 0..tile.ncols() {
            for i in (0..tile.nrows()).filter(|i| row + i > column + j) {
                // Of equal samples, rounding makes a little more than 1.
                let value = tile[(i, j)].clamp(-1.0, 1.0);
                pairs = pairs.with(Self { count: 1.0, max: value, min: value, mean: value, squares: 0.0 });
            }
        }
        pairs
    }

    /// Of both (Chan et al. 1979).
    fn with(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return Self::NONE;
        }
        let apart = other.mean - self.mean;
        Self {
            count,
            max: self.max.max(other.max),
            min: self.min.min(other.min),
            mean: self.mean + apart * (other.count / count),
            squares: self.squares + other.squares + apart * apart * (self.count * other.count / count),
        }
    }
}

#[cfg(test)]
mod tests {
    use random::{Draws, Stream};

    use super::*;

    fn latents(n: usize, elements: usize) -> Vec<f32> {
        let mut values = vec![0.0; n * elements];
        Draws::new(8, Stream::Factors, 0).fill_normal(0, &mut values);
        // What all share, so that similarities are not around 0.
        values.iter_mut().enumerate().for_each(|(i, v)| *v += 2.0 + (i % elements) as f32 * 0.1);
        values
    }

    /// The definition: the whole matrix, by covariance over deviations, without its diagonal.
    #[test]
    fn statistics_are_those_of_the_whole_matrix() {
        for (n, d) in [(2, 5), (300, 12), (520, 7)] {
            let values = latents(n, d);
            let row = |i: usize| values[i * d..(i + 1) * d].iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            let pearson = |a: &[f64], b: &[f64]| {
                let mean = |a: &[f64]| a.iter().sum::<f64>() / d as f64;
                let covariance = |a: &[f64], b: &[f64]| dot(a, b) / d as f64 - mean(a) * mean(b);
                covariance(a, b) / (covariance(a, a) * covariance(b, b)).sqrt()
            };
            type Measure<'a> = &'a dyn Fn(&[f64], &[f64]) -> f64;
            let cases: [(Similarity, Measure<'_>); 2] =
                [(Similarity::Pearson, &pearson), (Similarity::Cosine, &cosine)];
            for (similarity, by_definition) in cases {
                let found = PairStatistics::of(&values, d, similarity).unwrap();
                let rows: Vec<Vec<f64>> = (0..n).map(row).collect();
                let pairs = (0..n).flat_map(|i| (0..n).filter(move |&j| i != j).map(move |j| (i, j)));
                let all: Vec<f64> = pairs.map(|(i, j)| by_definition(&rows[i], &rows[j])).collect();
                let mean = all.iter().sum::<f64>() / all.len() as f64;
                let sd = (all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
                let max = all.iter().copied().fold(f64::MIN, f64::max);
                let min = all.iter().copied().fold(f64::MAX, f64::min);
                for (what, a, b) in
                    [("max", found.max, max), ("min", found.min, min), ("mean", found.mean, mean), ("sd", found.sd, sd)]
                {
                    assert!((a - b).abs() < 1e-9, "{n} x {d} {similarity:?} {what}: {a} {b}");
                }
            }
        }
    }

    /// Scaling a sample changes neither; moving it changes the cosine only.
    #[test]
    fn what_each_does_not_see() {
        let values = latents(40, 30);
        let changed: Vec<f32> = values.iter().enumerate().map(|(i, v)| v * 2.0_f32.powi((i / 30 % 3) as i32)).collect();
        let moved: Vec<f32> = values.iter().enumerate().map(|(i, v)| v - 3.0 * (i / 30 % 2) as f32).collect();
        let of = |values: &[f32], similarity| PairStatistics::of(values, 30, similarity).unwrap();
        for similarity in [Similarity::Pearson, Similarity::Cosine] {
            assert!((of(&values, similarity).sd - of(&changed, similarity).sd).abs() < 1e-12);
        }
        assert!((of(&values, Similarity::Pearson).mean - of(&moved, Similarity::Pearson).mean).abs() < 1e-6);
        assert!((of(&values, Similarity::Cosine).mean - of(&moved, Similarity::Cosine).mean).abs() > 0.01);
    }

    #[test]
    fn equal_and_opposite_samples() {
        let pair = [1.0, -2.0, 0.7, -1.0, 2.0, -0.7];
        let opposite = PairStatistics::of(&pair, 3, Similarity::Cosine).unwrap();
        assert!((opposite.max + 1.0).abs() < 1e-15 && opposite.sd == 0.0 && opposite.min >= -1.0);
        let equal = PairStatistics::of(&[0.1, 0.7, 0.3].repeat(50), 3, Similarity::Pearson).unwrap();
        assert!((equal.min - 1.0).abs() < 1e-15 && equal.max <= 1.0 && equal.sd < 1e-15);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let values = latents(700, 64);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| PairStatistics::of(&values, 64, Similarity::Pearson).unwrap());
            [found.max, found.min, found.mean, found.sd].map(f64::to_bits)
        };
        let one = on(1);
        assert_eq!((one, one), (on(2), on(5)));
    }

    #[test]
    fn unusable_samples_are_refused() {
        let error = |values: &[f32], d, similarity| PairStatistics::of(values, d, similarity).unwrap_err();
        let flat = [1.0, 2.0, 0.1, 0.1, 0.0, 0.0];
        assert_eq!(error(&flat, 2, Similarity::Pearson), FeatureError::NoDirection { row: 1, what: "constant" });
        assert_eq!(error(&flat, 2, Similarity::Cosine), FeatureError::NoDirection { row: 2, what: "zero" });
        assert_eq!(error(&flat[..2], 2, Similarity::Cosine), FeatureError::TooFew(1));
        assert_eq!(error(&[], 2, Similarity::Cosine), FeatureError::TooFew(0));
        assert!(matches!(error(&flat, 4, Similarity::Cosine), FeatureError::Ragged { .. }));
        assert!(matches!(error(&[1.0, f32::INFINITY], 1, Similarity::Cosine), FeatureError::NotFinite { row: 1, .. }));
    }
}
