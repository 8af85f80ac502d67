//! Means and covariances of features, as references are published.

use std::io::{Read, Seek, Write};

use crate::Gaussian;
use crate::npz::{Archive, NpzError, Writer};

/// Which features of Inception v3 a mean and covariance are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// `mu` and `sigma`, of the 2,048 pooled ones: the Frechet distance is the FID.
    Pooled,
    /// `mu_s` and `sigma_s`, of 2,023 spatial ones (the first 7 channels of the first branch of `Mixed_6d`, 17 x 17): the
    /// Frechet distance is the sFID (Nash et al. 2021).
    Spatial,
}

impl Statistics {
    /// Names of the two arrays.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Pooled => ("mu", "sigma"),
            Self::Spatial => ("mu_s", "sigma_s"),
        }
    }

    /// Number of features `D` of a mean `[D]` and a covariance `[D, D]`. No number is read.
    ///
    /// # Errors
    /// An array is missing, its header is damaged, or it has another shape.
    pub fn dimensions<R: Read + Seek>(self, archive: &mut Archive<R>) -> Result<usize, NpzError> {
        let (mean, covariance) = self.names();
        let mut shape = |name: &str| Ok(archive.array(name)?.shape().to_vec());
        let unfit = |name: &str, shape, expected| Err(NpzError::Shape { name: name.to_owned(), shape, expected });
        let (mu, sigma) = (shape(mean)?, shape(covariance)?);
        let [d] = mu[..] else { return unfit(mean, mu, "one side, the number of features".to_owned()) };
        if sigma != [d; 2] {
            let expected = format!("{:?}, the number of features in `{mean}` twice", [d; 2]);
            return unfit(covariance, sigma, expected);
        }
        Ok(d as usize)
    }

    /// Reads a mean `[D]` and a covariance `[D, D]`.
    ///
    /// # Errors
    /// An array is missing, damaged, of another shape or not finite.
    pub fn read<R: Read + Seek>(self, archive: &mut Archive<R>) -> Result<Gaussian, NpzError> {
        let (mean, covariance) = self.names();
        self.dimensions(archive)?;
        let mu = archive.array(mean)?.values()?;
        let sigma = archive.array(covariance)?.values()?;
        Gaussian::from_moments(mu, &sigma).map_err(|source| NpzError::Moments { mean, covariance, source })
    }

    /// Writes both arrays of `gaussian`, in `f64`.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub fn write<W: Write + Seek>(self, writer: &mut Writer<W>, gaussian: &Gaussian) -> Result<(), NpzError> {
        let ((mean, covariance), d) = (self.names(), gaussian.dimensions());
        writer.array(mean, &[d], gaussian.mean())?;
        writer.array(covariance, &[d, d], &gaussian.covariance())
    }
}
