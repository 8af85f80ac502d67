//! Weights by formula: a network that is the same everywhere without a file. Its distances are called
//! `fd_inception_formula`, never FID.

use candle_core::Result;

use super::named_shapes;
use crate::weights::{Tensor, Weights};

/// The seed of the weights that the metric uses.
pub const FORMULA_SEED: u64 = 20_240_528;

/// Number `i` of the SplitMix64 stream `seed` (Steele et al. 2014).
pub fn splitmix(seed: u64, i: u64) -> u64 {
    let z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// All tensors of the network as a function of `seed`. The elements are numbered through all tensors in the order of
/// their names; with `u` uniform in [0, 1) from the number:
///
/// - convolutions: `sqrt(6 / fan_in) (2 u - 1)`; the head: `sqrt(3 / inputs) (2 u - 1)`, its bias `0.1 (2 u - 1)`;
/// - normalisations: weight and variance `0.5 + u`, bias and mean `0.2 (2 u - 1)`;
///
/// computed in `f64` and rounded once.
///
/// # Errors
/// Those of candle.
pub fn formula_weights(seed: u64) -> Result<Weights> {
    let mut shapes = named_shapes()?;
    shapes.sort();
    let mut number = 0;
    let mut tensor = |(name, shape): (String, Vec<usize>)| {
        let len: usize = shape.iter().product();
        let (centre, spread) = range(&name, len / shape[0]);
        let value = |_| {
            let u = (splitmix(seed, number) >> 40) as f64 / f64::from(1 << 24);
            number += 1;
            (centre + spread * (2.0 * u - 1.0)) as f32
        };
        let values = (0..len).map(value).collect();
        (name, Tensor { shape, values })
    };
    Ok(shapes.into_iter().map(&mut tensor).collect())
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
