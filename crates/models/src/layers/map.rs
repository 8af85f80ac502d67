//! Images as rows of places.

use candle_core::{Result, Tensor};

/// Feature maps of a batch with the channels last: convolutions become products of gathered rows, and attention reads
/// the places as tokens.
#[derive(Clone, Debug)]
pub struct FeatureMap {
    /// `[B, height * width, C]`, places row by row, contiguous.
    pub values: Tensor,
    /// Rows of places.
    pub height: usize,
    /// Places in a row.
    pub width: usize,
}

impl FeatureMap {
    /// From `[B, C, height, width]`.
    ///
    /// # Errors
    /// `x` has not four axes.
    pub fn from_image(x: &Tensor) -> Result<Self> {
        let (b, c, height, width) = x.dims4()?;
        Ok(Self { values: x.permute([0, 2, 3, 1])?.reshape((b, height * width, c))?, height, width })
    }

    /// To `[B, C, height, width]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn to_image(&self) -> Result<Tensor> {
        let (b, _, c) = self.values.dims3()?;
        self.values.transpose(1, 2)?.reshape((b, c, self.height, self.width))
    }

    /// The same places with other values, `[B, height * width, any]`.
    pub fn with(&self, values: Tensor) -> Self {
        Self { values, height: self.height, width: self.width }
    }

    /// Every place becomes a square of four (nearest neighbour). Written as a broadcast: the backward pass of candle's
    /// own operation overwrites what other uses of its input had contributed.
    ///
    /// # Errors
    /// Those of candle.
    pub fn doubled(&self) -> Result<Self> {
        let (b, _, c) = self.values.dims3()?;
        let (h, w) = (self.height, self.width);
        let values = self.values.reshape((b, h, 1, w, 1, c))?.broadcast_as((b, h, 2, w, 2, c))?;
        Ok(Self { values: values.reshape((b, 4 * h * w, c))?, height: 2 * h, width: 2 * w })
    }

    /// The channels of `self`, then those of `other`, which has the same places.
    ///
    /// # Errors
    /// Another number of places or samples.
    pub fn beside(&self, other: &Self) -> Result<Self> {
        Ok(self.with(Tensor::cat(&[&self.values, &other.values], 2)?))
    }
}
