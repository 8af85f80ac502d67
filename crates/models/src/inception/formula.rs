//! Weights by formula: a network that is the same everywhere without a file. Its distances are called
//! `fd_inception_formula`, never FID.

use candle_core::Result;

use super::named_shapes;
use crate::formula;
use crate::weights::Weights;

/// The seed of the weights that the metric uses.
pub const FORMULA_SEED: u64 = 20_240_528;

/// All tensors of the network as a function of `seed`. With `u` as in [`formula::weights`]:
///
/// - convolutions: `sqrt(6 / fan_in) (2 u - 1)`; the head: `sqrt(3 / inputs) (2 u - 1)`, its bias `0.1 (2 u - 1)`;
/// - normalisations: weight and variance `0.5 + u`, bias and mean `0.2 (2 u - 1)`.
///
/// # Errors
/// Those of candle.
pub fn formula_weights(seed: u64) -> Result<Weights> {
    Ok(formula::weights(seed, named_shapes()?, range))
}

/// Centre and half width of a tensor's range; `fan_in` inputs reach an output.
fn range(name: &str, fan_in: usize) -> (f64, f64) {
    match name.rsplit_once('.').unwrap_or(("", name)) {
        ("fc", "weight") => (0.0, (3.0 / fan_in as f64).sqrt()),
        ("fc", _) => (0.0, 0.1),
        (layer, "weight") if layer.ends_with(".conv") => (0.0, (6.0 / fan_in as f64).sqrt()),
        (_, "weight" | "running_var") => (1.0, 0.5),
        _ => (0.0, 0.2),
    }
}
