//! Weights by formula: a network that is the same everywhere without a file. What it says means nothing; that it runs, and
//! to the same bits, does.

use crate::weights::{Tensor, Weights};

/// The seed of the autoencoder's, the UNet's and Inception's weights by formula; the text encoder has one of its own, with which it
/// tells captions apart.
pub const FORMULA_SEED: u64 = 20_240_528;

/// Number `i` of the SplitMix64 stream `seed` (Steele et al. 2014).
pub fn splitmix(seed: u64, i: u64) -> u64 {
    let z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// Centre and spread of a tensor's elements by its shape: products `sqrt(3 / fan_in)` around 0, so that they keep the
/// variance; weights of normalisations 0.5 around 1; biases 0.1 around 0.
pub(crate) fn by_fan_in(name: &str, shape: &[usize]) -> (f64, f64) {
    match shape {
        [out, rest @ ..] if !rest.is_empty() => {
            (0.0, (3.0 * *out as f64 / shape.iter().product::<usize>() as f64).sqrt())
        }
        _ if name.ends_with(".weight") => (1.0, 0.5),
        _ => (0.0, 0.1),
    }
}

/// Tensors `shapes` as a function of `seed`. The elements are numbered through all tensors in the order of their names;
/// with `u` uniform in [0, 1) from the number an element is `centre + spread (2 u - 1)`, computed in `f64` and rounded
/// once, where `range` gives both for a tensor's name and shape.
pub(crate) fn weights(
    mut shapes: Vec<(String, Vec<usize>)>,
    seed: u64,
    range: impl Fn(&str, &[usize]) -> (f64, f64),
) -> Weights {
    shapes.sort();
    let mut number = 0;
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let (centre, spread) = range(&name, &shape);
        let value = |_| {
            let u = (splitmix(seed, number) >> 40) as f64 / f64::from(1 << 24);
            number += 1;
            (centre + spread * (2.0 * u - 1.0)) as f32
        };
        let values = (0..shape.iter().product::<usize>()).map(value).collect();
        (name, Tensor { shape, values })
    };
    shapes.into_iter().map(tensor).collect()
}
