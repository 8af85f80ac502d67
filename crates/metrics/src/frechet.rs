//! The Frechet distance between normal distributions (Dowson & Landau 1982).
//!
//! On pooled features of Inception v3 it is the FID (Heusel et al. 2017), on its spatial features the sFID (Nash et al.
//! 2021); both are [`Reference::distance`], and only the features differ.

use faer::{Mat, MatRef};

use crate::gaussian::{Covariance, FeatureError, Gaussian, finite};
use crate::linear::{factor, nuclear_norm, product, sandwich, trace_of_root};

/// A distribution to which many distances are measured: what depends on it alone is computed once.
#[derive(Clone, Debug)]
pub struct Reference {
    gaussian: Gaussian,
    /// `F` with covariance `F^T F`.
    factor: Mat<f64>,
}

impl Reference {
    /// Factors the covariance of `gaussian`.
    pub fn new(gaussian: Gaussian) -> Result<Self, FeatureError> {
        let factor = match gaussian.spread() {
            Covariance::Full(full) => factor(full.as_ref()).ok_or(FeatureError::NoConvergence)?,
            Covariance::Thin(factor) => factor.clone(),
        };
        Ok(Self { gaussian, factor })
    }

    /// Of mean, covariance and its factor `F` `[k, D]`, row-major, computed before: [`Reference::factor`]. With `k < D` the
    /// factor stands for the covariance.
    ///
    /// # Errors
    /// Those of [`Gaussian::from_moments`]; the factor has no rows of `D` numbers, or they are not finite.
    pub fn from_parts(mean: Vec<f64>, covariance: &[f64], factor: &[f64]) -> Result<Self, FeatureError> {
        let d = mean.len();
        let mut gaussian = Gaussian::from_moments(mean, covariance)?;
        if factor.is_empty() || !factor.len().is_multiple_of(d) {
            return Err(FeatureError::Ragged { values: factor.len(), dimensions: d });
        }
        finite("factor", factor.iter().copied(), d)?;
        let factor = MatRef::from_row_major_slice(factor, factor.len() / d, d).to_owned();
        if factor.nrows() < d {
            gaussian = gaussian.with_thin(factor.clone());
        }
        Ok(Self { gaussian, factor })
    }

    /// `F`, row-major `[k, D]`, with covariance `F^T F`.
    pub fn factor(&self) -> Vec<f64> {
        let (rows, columns) = (self.factor.nrows(), self.factor.ncols());
        (0..rows * columns).map(|i| self.factor[(i / columns, i % columns)]).collect()
    }

    /// The distribution itself.
    pub fn gaussian(&self) -> &Gaussian {
        &self.gaussian
    }

    /// `|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2`.
    ///
    /// With `S1 = F^T F` the last trace is that of the root of `F S2 F^T`, which is symmetric: no complex numbers, and
    /// finite for singular covariances. Where `S2 = G^T G` has fewer rows, it is the root of `G S1 G^T`, and where both
    /// have, the nuclear norm of `F G^T`. Rounding may leave a distance of nothing slightly below 0.
    pub fn distance(&self, other: &Gaussian) -> Result<f64, FeatureError> {
        let (ours, theirs) = (self.gaussian.dimensions(), other.dimensions());
        if ours != theirs {
            return Err(FeatureError::Dimensions { ours, theirs });
        }
        let root = match (self.gaussian.spread(), other.spread()) {
            (_, Covariance::Full(full)) => trace_of_root(sandwich(self.factor.as_ref(), full.as_ref())),
            (Covariance::Full(full), Covariance::Thin(thin)) => trace_of_root(sandwich(thin.as_ref(), full.as_ref())),
            (Covariance::Thin(ours), Covariance::Thin(theirs)) => {
                nuclear_norm(product(ours.as_ref(), theirs.transpose()).as_ref())
            }
        };
        let root = root.ok_or(FeatureError::NoConvergence)?;
        let apart = self.gaussian.mean().iter().zip(other.mean()).map(|(a, b)| (a - b).powi(2));
        Ok(apart.sum::<f64>() + self.gaussian.total_variance() + other.total_variance() - 2.0 * root)
    }
}

/// The distance of two distributions, once. Use a [`Reference`] for more than one.
pub fn frechet_distance(a: &Gaussian, b: &Gaussian) -> Result<f64, FeatureError> {
    Reference::new(a.clone())?.distance(b)
}

#[cfg(test)]
mod tests {
    use random::{Draws, Stream};

    use super::*;

    fn diagonal(mean: Vec<f64>, variances: &[f64]) -> Gaussian {
        let d = mean.len();
        let covariance: Vec<f64> = (0..d * d).map(|i| if i / d == i % d { variances[i / d] } else { 0.0 }).collect();
        Gaussian::from_moments(mean, &covariance).unwrap()
    }

    fn normals(step: u64, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        Draws::new(9, Stream::Factors, step).fill_normal(0, &mut values);
        values
    }

    /// For commuting covariances: `|mu1 - mu2|^2 + sum (sd1 - sd2)^2`.
    #[test]
    fn diagonal_covariances_have_a_closed_form() {
        let (sd1, sd2) = ([1.0, 2.0, 0.5, 0.0], [1.5, 0.1, 0.0, 3.0]);
        let a = diagonal(vec![1.0, 0.0, -2.0, 0.5], &sd1.map(|s: f64| s * s));
        let b = diagonal(vec![0.0, 0.5, 1.0, 0.5], &sd2.map(|s: f64| s * s));
        let apart: f64 = sd1.iter().zip(&sd2).map(|(a, b)| (a - b).powi(2)).sum();
        for (a, b) in [(&a, &b), (&b, &a)] {
            assert!((frechet_distance(a, b).unwrap() - (1.0 + 0.25 + 9.0 + apart)).abs() < 1e-12);
        }
        assert!(frechet_distance(&a, &a).unwrap().abs() < 1e-12);
    }

    /// Thin or full, in either role: one distance.
    #[test]
    fn every_form_of_a_covariance_gives_the_same_distance() {
        let d = 30;
        let thin = |step, n: usize| Gaussian::from_features(&normals(step, n * d), d).unwrap();
        let full = |g: &Gaussian| Gaussian::from_moments(g.mean().to_vec(), &g.covariance()).unwrap();
        let (few, fewer, many) = (thin(0, 12), thin(1, 7), thin(2, 100));
        for (a, b) in [(&few, &fewer), (&few, &many), (&fewer, &many)] {
            let expected = frechet_distance(&full(a), &full(b)).unwrap();
            assert!(expected > 1.0);
            for (a, b) in [(a, b), (b, a)] {
                for (a, b) in [(a.clone(), b.clone()), (full(a), b.clone()), (a.clone(), full(b))] {
                    let found = frechet_distance(&a, &b).unwrap();
                    assert!((found - expected).abs() < 1e-6 * expected, "{found} {expected}");
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let d = 600;
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let gaussian = |step| Gaussian::from_features(&normals(step, 2200 * d), d).unwrap();
                frechet_distance(&gaussian(0), &gaussian(1)).unwrap().to_bits()
            })
        };
        let one = on(1);
        assert_eq!(one, on(2));
        assert_eq!(one, on(5));
    }

    /// Regular and of few rows: what is stored of a reference measures the same bits.
    #[test]
    fn a_stored_factor_measures_the_same() {
        let d = 20;
        let of = |step, n: usize| Gaussian::from_features(&normals(step, n * d), d).unwrap();
        for ours in [of(0, 60), of(0, 12)] {
            let reference = Reference::new(ours.clone()).unwrap();
            let parts = |factor: &[f64]| Reference::from_parts(ours.mean().to_vec(), &ours.covariance(), factor);
            let stored = parts(&reference.factor()).unwrap();
            for theirs in [of(1, 90), of(1, 8)] {
                let distance = |to: &Reference| to.distance(&theirs).unwrap().to_bits();
                assert_eq!(distance(&stored), distance(&reference));
            }
            assert!(parts(&[1.0; 21]).is_err() && parts(&[]).is_err());
        }
    }

    #[test]
    fn other_dimensions_are_refused() {
        let (a, b) = (diagonal(vec![0.0; 2], &[1.0; 2]), diagonal(vec![0.0; 3], &[1.0; 3]));
        assert_eq!(frechet_distance(&a, &b).unwrap_err(), FeatureError::Dimensions { ours: 2, theirs: 3 });
    }
}
