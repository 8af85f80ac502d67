//! A text encoder over bytes with weights by formula: the same everywhere without a file. It tells captions apart; what they mean it
//! does not know.

use candle_core::Result;

use super::{ClipTextConfig, named_shapes};
use crate::formula;
use crate::weights::Weights;

/// The seed of the weights.
const SEED: u64 = 20_240_529;

/// Deviation of the token table: small beside what attention adds, so that the end token says what stood before it.
const TOKENS: f64 = 0.3;

/// What queries and keys are multiplied with: attention that picks a few bytes tells more captions apart than one that averages all.
const SHARPNESS: f64 = 2.0;

impl ClipTextConfig {
    /// An encoder of any size over bytes: 512 tokens (each byte, alone and at a word's end) and the two marks.
    pub fn over_bytes(width: usize, depth: usize, heads: usize) -> Self {
        Self { vocabulary: 512 + 2, width, depth, heads, ..Self::vit_l_14() }
    }
}

/// All tensors of the network. With `u` as in [`formula::weights`]:
///
/// - linear layers: `sqrt(3 / inputs) (2 u - 1)`, queries' and keys' twice that; biases `0.2 (2 u - 1)`;
/// - tokens: `0.3 sqrt(3) (2 u - 1)`; positions: a tenth of it;
/// - normalisations: weight `0.5 + u`, bias `0.2 (2 u - 1)`.
///
/// # Errors
/// Those of candle.
pub fn formula_weights(config: &ClipTextConfig) -> Result<Weights> {
    Ok(formula::weights(named_shapes(config)?, SEED, |name, shape| {
        range(name, shape.iter().product::<usize>() / shape[0])
    }))
}

/// Centre and half width of a tensor's range; `fan_in` inputs reach an output.
fn range(name: &str, fan_in: usize) -> (f64, f64) {
    let linear = (3.0 / fan_in as f64).sqrt();
    match name.rsplit_once('.').unwrap_or(("", name)) {
        ("embeddings.token_embedding", _) => (0.0, TOKENS * 3f64.sqrt()),
        ("embeddings.position_embedding", _) => (0.0, 0.1 * TOKENS * 3f64.sqrt()),
        (layer, "weight") if layer.contains("norm") => (1.0, 0.5),
        (layer, "weight") if layer.ends_with(".q_proj") || layer.ends_with(".k_proj") => (0.0, SHARPNESS * linear),
        (_, "weight") => (0.0, linear),
        _ => (0.0, 0.2),
    }
}
