//! Initial values of a DiT (Peebles & Xie 2023): the network starts as the zero function.

use manifest::dit::DitConfig;
use random::{Draws, Stream};

use super::embed::position_embedding;
use super::shapes::{POSITION_EMBEDDING, named_shapes};
use crate::weights::{Tensor, Weights};

/// Standard deviation of the label table (or the captions' layer) and of the timestep MLP's weights.
const EMBEDDER_STD: f32 = 0.02;

/// Initial values: linear layers and the patch convolution Xavier-uniform with zero bias, label table (or the
/// captions' layer) and timestep MLP normal, all modulations and the final layer zero, positions sine-cosine. Tensor number `n` in state-dict order takes
/// its draws from step `n` of [`Stream::Init`].
///
/// # Panics
/// The width is no multiple of 4.
pub fn initial_weights(config: &DitConfig, seed: u64) -> Weights {
    let tensor = |(number, (name, shape)): (usize, (String, Vec<usize>))| {
        let draws = Draws::new(seed, Stream::Init, number as u64);
        let values = initial_values(config, &name, &shape, draws);
        (name, Tensor { shape, values })
    };
    named_shapes(config).into_iter().enumerate().map(tensor).collect()
}

fn initial_values(config: &DitConfig, name: &str, shape: &[usize], draws: Draws) -> Vec<f32> {
    let len = shape.iter().product();
    if name == POSITION_EMBEDDING {
        return position_embedding(config.hidden, config.image_size / config.patch);
    }
    if name.ends_with(".bias") || name.contains("adaLN_modulation") || name.starts_with("final_layer") {
        return vec![0.0; len];
    }
    if name.starts_with("t_embedder") || name.starts_with("y_embedder") {
        let mut values = vec![0.0; len];
        draws.fill_normal(0, &mut values);
        values.iter_mut().for_each(|v| *v *= EMBEDDER_STD);
        return values;
    }
    xavier_uniform(shape[0], len / shape[0], draws)
}

/// `out x inputs` draws from `[-a, a)`, `a = sqrt(6 / (inputs + out))` (Glorot & Bengio 2010).
pub fn xavier_uniform(out: usize, inputs: usize, draws: Draws) -> Vec<f32> {
    let bound = (6.0 / (inputs + out) as f64).sqrt() as f32;
    (0..(out * inputs) as u64).map(|i| (2.0 * draws.uniform(i) - 1.0) * bound).collect()
}
