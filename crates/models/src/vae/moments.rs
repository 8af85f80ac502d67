//! What the encoder says of an image.

use candle_core::{Result, Tensor};

/// Logarithms of variances outside of this range are clamped to it.
const LOG_VARIANCE: (f64, f64) = (-30.0, 20.0);

/// A normal distribution with independent elements.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Its mean, `[B, C, height, width]`.
    pub mean: Tensor,
    /// Logarithm of its variance, clamped to [-30, 20], of the same shape.
    pub log_variance: Tensor,
}

impl Moments {
    /// # Shapes
    /// `parameters` `[B, 2 C, height, width]`: means, then logarithms of variances.
    ///
    /// # Errors
    /// An odd number of channels.
    pub fn new(parameters: &Tensor) -> Result<Self> {
        let channels = parameters.dim(1)?;
        if !channels.is_multiple_of(2) {
            candle_core::bail!("{channels} channels cannot be split into means and variances");
        }
        let log_variance = parameters.narrow(1, channels / 2, channels / 2)?;
        Ok(Self {
            mean: parameters.narrow(1, 0, channels / 2)?,
            log_variance: log_variance.clamp(LOG_VARIANCE.0, LOG_VARIANCE.1)?,
        })
    }

    /// Standard deviation: `exp(log_variance / 2)`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn deviation(&self) -> Result<Tensor> {
        (&self.log_variance * 0.5)?.exp()
    }

    /// `mean + deviation * noise`.
    ///
    /// # Shapes
    /// `noise` like the mean, standard normal.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        &self.mean + (self.deviation()? * noise)?
    }
}
