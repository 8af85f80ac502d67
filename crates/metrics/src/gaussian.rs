//! The normal distribution that features are summarised by.

use faer::{Mat, MatRef};
use rayon::prelude::*;

use crate::linear::{add_gram_tile, lower_tiles};

/// Rows taken at once: fixed, so that sums have one order.
const ROWS: usize = 1024;

/// Why features or moments cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FeatureError {
    /// The values do not make whole rows.
    #[error("{values} values are no rows of {dimensions} features: check the extractor that wrote them")]
    Ragged {
        /// Values given.
        values: usize,
        /// Features of a row.
        dimensions: usize,
    },
    /// A spread needs two rows.
    #[error("{0} samples have no covariance: use at least 2")]
    TooFew(usize),
    /// No rows at all.
    #[error("there are no samples")]
    Empty,
    /// A part larger than the whole.
    #[error("a part of {size} samples cannot be drawn from {samples}")]
    Part {
        /// Samples asked for.
        size: usize,
        /// Samples there.
        samples: usize,
    },
    /// A neighbour that is not there.
    #[error(
        "{samples} samples have no neighbour number {neighbours}: use more samples than neighbours, and 1 neighbour at least"
    )]
    Neighbours {
        /// Samples given.
        samples: usize,
        /// Number of the neighbour.
        neighbours: usize,
    },
    /// A row that is no probability distribution.
    #[error("row {row} is no probability distribution (its sum is {sum}): give softmax outputs, not logits")]
    NotProbabilities {
        /// Row.
        row: usize,
        /// Its sum.
        sum: f64,
    },
    /// A row without a direction.
    #[error("row {row} is {what}: its similarity to others is not defined")]
    NoDirection {
        /// Row.
        row: usize,
        /// Constant, or zero.
        what: &'static str,
    },
    /// A value is not finite.
    #[error("{what} at row {row}, column {column} is {value}: the samples or the extractor diverged")]
    NotFinite {
        /// Feature, mean or covariance.
        what: &'static str,
        /// Row.
        row: usize,
        /// Column.
        column: usize,
        /// The value.
        value: f64,
    },
    /// Two distributions of different dimensions.
    #[error("features of {ours} and of {theirs} dimensions cannot be compared: they come from different extractors")]
    Dimensions {
        /// Of the reference.
        ours: usize,
        /// Of the other.
        theirs: usize,
    },
    /// Eigenvalues or singular values did not converge.
    #[error("the eigenvalues of the covariances did not converge: check the features for extreme values")]
    NoConvergence,
}

/// Mean and covariance (with `n - 1`) of features.
#[derive(Clone, Debug)]
pub struct Gaussian {
    mean: Vec<f64>,
    covariance: Covariance,
}

/// A covariance, in its cheaper form.
#[derive(Clone, Debug)]
pub(crate) enum Covariance {
    /// All of it.
    Full(Mat<f64>),
    /// `F` with covariance `F^T F`: the centred rows over `sqrt(n - 1)`, where they are fewer than their features.
    Thin(Mat<f64>),
}

impl Gaussian {
    /// Of row-major `features` `[n, dimensions]`, computed in `f64`.
    pub fn from_features(features: &[f32], dimensions: usize) -> Result<Self, FeatureError> {
        whole_rows(features.len(), dimensions)?;
        let samples = features.len() / dimensions;
        if samples < 2 {
            return Err(FeatureError::TooFew(samples));
        }
        finite("feature", features.iter().map(|&v| f64::from(v)), dimensions)?;
        let mean = mean(features, dimensions);
        let scale = 1.0 / (samples as f64 - 1.0);
        let covariance = if samples < dimensions {
            let centred = |i, j| (f64::from(features[i * dimensions + j]) - mean[j]) * scale.sqrt();
            Covariance::Thin(Mat::from_fn(samples, dimensions, centred))
        } else {
            Covariance::Full(full_covariance(features, &mean, scale))
        };
        Ok(Self { mean, covariance })
    }

    /// Of the rows `chosen` from `features` `[n, dimensions]`. Panics on a row that is not there.
    pub fn from_subset(features: &[f32], dimensions: usize, chosen: &[u32]) -> Result<Self, FeatureError> {
        let row = |&i: &u32| &features[i as usize * dimensions..][..dimensions];
        let gathered: Vec<f32> = chosen.iter().flat_map(row).copied().collect();
        Self::from_features(&gathered, dimensions)
    }

    /// Of a stored mean `[D]` and row-major covariance `[D, D]`, which is made symmetric.
    pub fn from_moments(mean: Vec<f64>, covariance: &[f64]) -> Result<Self, FeatureError> {
        let d = mean.len();
        if d == 0 || covariance.len() != d * d {
            return Err(FeatureError::Ragged { values: covariance.len(), dimensions: d });
        }
        finite("mean", mean.iter().copied(), d)?;
        finite("covariance", covariance.iter().copied(), d)?;
        let symmetric = |i: usize, j: usize| 0.5 * (covariance[i * d + j] + covariance[j * d + i]);
        Ok(Self { mean, covariance: Covariance::Full(Mat::from_fn(d, d, symmetric)) })
    }

    /// The same with its covariance as a factor of few rows.
    pub(crate) fn with_thin(self, factor: Mat<f64>) -> Self {
        Self { covariance: Covariance::Thin(factor), ..self }
    }

    /// Number of features `D`.
    pub fn dimensions(&self) -> usize {
        self.mean.len()
    }

    /// The mean `[D]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The covariance, row-major `[D, D]`.
    pub fn covariance(&self) -> Vec<f64> {
        let d = self.dimensions();
        let full = match &self.covariance {
            Covariance::Full(full) => full,
            Covariance::Thin(factor) => &crate::linear::product(factor.transpose(), factor.as_ref()),
        };
        (0..d * d).map(|i| full[(i / d, i % d)]).collect()
    }

    /// Sum of the variances.
    pub fn total_variance(&self) -> f64 {
        match &self.covariance {
            Covariance::Full(full) => full.diagonal().column_vector().iter().sum(),
            Covariance::Thin(factor) => factor.squared_norm_l2(),
        }
    }

    pub(crate) fn spread(&self) -> &Covariance {
        &self.covariance
    }
}

/// Fails unless `values` make whole rows.
pub(crate) fn whole_rows(values: usize, dimensions: usize) -> Result<(), FeatureError> {
    match dimensions > 0 && values.is_multiple_of(dimensions) {
        true => Ok(()),
        false => Err(FeatureError::Ragged { values, dimensions }),
    }
}

pub(crate) fn finite(
    what: &'static str,
    values: impl Iterator<Item = f64>,
    columns: usize,
) -> Result<(), FeatureError> {
    match values.enumerate().find(|(_, value)| !value.is_finite()) {
        Some((i, value)) => Err(FeatureError::NotFinite { what, row: i / columns, column: i % columns, value }),
        None => Ok(()),
    }
}

/// Column means: sums of blocks of rows, then the sum of those.
fn mean(features: &[f32], dimensions: usize) -> Vec<f64> {
    let add = |mut sum: Vec<f64>, row: &[f32]| {
        sum.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
        sum
    };
    let block = |rows: &[f32]| rows.chunks(dimensions).fold(vec![0.0; dimensions], add);
    let blocks: Vec<Vec<f64>> = features.par_chunks(ROWS * dimensions).map(block).collect();
    let samples = (features.len() / dimensions) as f64;
    (0..dimensions).map(|j| blocks.iter().map(|b| b[j]).sum::<f64>() / samples).collect()
}

/// `scale * sum (x - mean)(x - mean)^T`, block of rows after block of rows, its tiles in parallel.
fn full_covariance(features: &[f32], mean: &[f64], scale: f64) -> Mat<f64> {
    let d = mean.len();
    let mut tiles: Vec<_> = lower_tiles(d).into_iter().map(|place| (place, Mat::new())).collect();
    for rows in features.chunks(ROWS * d) {
        let mut centred = vec![0.0; rows.len()];
        centred.par_chunks_mut(d).zip(rows.par_chunks(d)).for_each(|(out, row)| {
            out.iter_mut().zip(row).zip(mean).for_each(|((o, &v), m)| *o = f64::from(v) - m);
        });
        let centred = MatRef::from_row_major_slice(&centred, rows.len() / d, d);
        tiles.par_iter_mut().for_each(|(place, tile)| add_gram_tile(tile, centred, *place));
    }
    let mut full = Mat::zeros(d, d);
    for ((row, column), tile) in &tiles {
        for j in 0..tile.ncols() {
            for i in 0..tile.nrows() {
                let value = scale * tile[(i, j)];
                full[(row + i, column + j)] = value;
                full[(column + j, row + i)] = value;
            }
        }
    }
    full
}

#[cfg(test)]
mod tests {
    use random::{Draws, Stream};

    use super::*;

    fn features(samples: usize, dimensions: usize) -> Vec<f32> {
        let mut values = vec![0.0; samples * dimensions];
        Draws::new(5, Stream::Factors, 0).fill_normal(0, &mut values);
        values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.1 * (i % dimensions) as f32);
        values
    }

    /// The definition, element by element; sizes across the limits of blocks and tiles, and fewer rows than features.
    #[test]
    fn moments_are_those_of_the_definition() {
        for (n, d) in [(2, 1), (2500, 3), (700, 300), (40, 60), (61, 60), (60, 60)] {
            let values = features(n, d);
            let gaussian = Gaussian::from_features(&values, d).unwrap();
            let at = |i: usize, j: usize| f64::from(values[i * d + j]);
            let mean: Vec<f64> = (0..d).map(|j| (0..n).map(|i| at(i, j)).sum::<f64>() / n as f64).collect();
            let covariance = gaussian.covariance();
            for j in [0, d / 2, d - 1] {
                assert!((gaussian.mean()[j] - mean[j]).abs() < 1e-12);
                for k in [0, d / 3, d - 1] {
                    let sum: f64 = (0..n).map(|i| (at(i, j) - mean[j]) * (at(i, k) - mean[k])).sum();
                    let expected = sum / (n as f64 - 1.0);
                    for found in [covariance[j * d + k], covariance[k * d + j]] {
                        assert!((found - expected).abs() < 1e-12, "{n} x {d} at {j}, {k}: {found} {expected}");
                    }
                }
            }
            let trace: f64 = (0..d).map(|j| covariance[j * d + j]).sum();
            assert!((gaussian.total_variance() / trace - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_subset_is_its_rows() {
        let values = features(10, 3);
        let chosen = Gaussian::from_subset(&values, 3, &[7, 2, 9, 4]).unwrap();
        let rows: Vec<f32> = [7, 2, 9, 4].iter().flat_map(|i| values[i * 3..i * 3 + 3].to_vec()).collect();
        assert_eq!(chosen.covariance(), Gaussian::from_features(&rows, 3).unwrap().covariance());
    }

    #[test]
    fn unusable_features_are_refused() {
        let error = |values: &[f32], d| Gaussian::from_features(values, d).unwrap_err();
        assert_eq!(error(&[0.0; 7], 3), FeatureError::Ragged { values: 7, dimensions: 3 });
        assert_eq!(error(&[0.0; 7], 0), FeatureError::Ragged { values: 7, dimensions: 0 });
        assert_eq!(error(&[0.0; 3], 3), FeatureError::TooFew(1));
        assert_eq!(error(&[], 3), FeatureError::TooFew(0));
        let mut values = features(4, 3);
        values[7] = f32::INFINITY;
        let text = error(&values, 3).to_string();
        assert!(text.starts_with("feature at row 2, column 1 is inf"), "{text}");
        assert!(Gaussian::from_moments(vec![0.0; 2], &[1.0; 3]).is_err());
        assert!(Gaussian::from_moments(vec![0.0, f64::NAN], &[1.0; 4]).is_err());
        assert!(Gaussian::from_moments(vec![0.0; 2], &[1.0, 0.0, f64::NAN, 1.0]).is_err());
    }
}
