//! Weights by formula: networks that are the same everywhere without a file.

use crate::weights::{Tensor, Weights};

/// Number `i` of the SplitMix64 stream `seed` (Steele et al. 2014).
pub(crate) fn splitmix(seed: u64, i: u64) -> u64 {
    let z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// Tensors of `shapes` as a function of `seed`: elements are numbered through all tensors in the order of their names, and
/// number `i` is `centre + spread (2 u - 1)` with `u` uniform in [0, 1) from [`splitmix`], computed in `f64` and rounded
/// once. `range` gives centre and spread by name and the number of inputs that reach an output.
pub(crate) fn weights(
    seed: u64,
    mut shapes: Vec<(String, Vec<usize>)>,
    range: impl Fn(&str, usize) -> (f64, f64),
) -> Weights {
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
    shapes.into_iter().map(&mut tensor).collect()
}
