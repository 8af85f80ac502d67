//! The losses of one iteration, and their means between two points of the curve.

use candle_core::{DType, Tensor};
use patches::balance::BalanceLosses;

/// Means over the batch; `total` is what is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Mean squared error of the predicted noise.
    pub mse: f64,
    /// Variational bound of the learned variance, scaled as in the reference.
    pub vb: f64,
    /// Importance loss, before its coefficient.
    pub importance: f64,
    /// Load loss, before its coefficient.
    pub load: f64,
    /// `mse + vb + coefficients * balancing losses`.
    pub total: f64,
}

impl Losses {
    /// Names of the losses, in the order of [`Losses::values`].
    pub const NAMES: [&'static str; 5] = ["mse", "vb", "importance", "load", "total"];

    /// The losses in the order of [`Losses::NAMES`].
    pub fn values(&self) -> [f64; 5] {
        [self.mse, self.vb, self.importance, self.load, self.total]
    }

    /// Notes the balancing losses and adds them, by their coefficients, to the total.
    ///
    /// # Errors
    /// Those of candle.
    pub fn add_balance(&mut self, balance: &BalanceLosses) -> candle_core::Result<()> {
        let scalar = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_scalar::<f64>();
        self.importance = scalar(&balance.importance)?;
        self.load = scalar(&balance.load)?;
        self.total += scalar(&balance.total)?;
        Ok(())
    }

    /// The losses from values in the order of [`Losses::NAMES`].
    pub fn from_values([mse, vb, importance, load, total]: [f64; 5]) -> Self {
        Self { mse, vb, importance, load, total }
    }
}

/// Sums since the curve's last point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Running {
    /// Sums over the iterations.
    pub sums: [f64; 5],
    /// How many iterations they hold.
    pub iterations: u64,
}

impl Running {
    /// Adds one iteration.
    pub fn add(&mut self, losses: &Losses) {
        for (sum, value) in self.sums.iter_mut().zip(losses.values()) {
            *sum += value;
        }
        self.iterations += 1;
    }

    /// The means, leaving an empty sum behind.
    pub fn take(&mut self) -> Losses {
        let Running { sums, iterations } = std::mem::take(self);
        Losses::from_values(sums.map(|sum| sum / iterations.max(1) as f64))
    }
}
