//! Initial values of a UNet: those of PyTorch's layers, which diffusers' `UNet2DConditionModel` leaves as they are.

use std::collections::BTreeMap;

use candle_core::Result;
use random::{Draws, Stream};

use super::{UnetConfig, named_shapes};
use crate::weights::{Tensor, Weights};

/// Initial values (`reset_parameters` of `torch.nn.Linear`, `Conv2d`, `LayerNorm` and `GroupNorm`): weights of products, and
/// their biases, uniform by the product's fan-in; weights of normalisations one, their biases zero. Tensor number `n` in the
/// order in which the network reads them takes its draws from step `n` of [`Stream::Init`].
///
/// # Errors
/// The configuration fits no network.
pub fn initial_weights(config: &UnetConfig, seed: u64) -> Result<Weights> {
    let shapes = named_shapes(config)?;
    let by_name: BTreeMap<&str, &[usize]> = shapes.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
    // Of what a tensor belongs to; a normalisation has none.
    let fan_in = |name: &str| match by_name[format!("{}.weight", layer(name)).as_str()] {
        [_] => None,
        [_, rest @ ..] => Some(rest.iter().product()),
        [] => None,
    };
    let tensor = |(number, (name, shape)): (usize, &(String, Vec<usize>))| {
        let len = shape.iter().product();
        let values = match fan_in(name) {
            Some(fan_in) => kaiming_uniform(len, fan_in, Draws::new(seed, Stream::Init, number as u64)),
            None => vec![if name.ends_with(".weight") { 1.0 } else { 0.0 }; len],
        };
        (name.clone(), Tensor { shape: shape.clone(), values })
    };
    Ok(shapes.iter().enumerate().map(tensor).collect())
}

/// `down_blocks.0.resnets.0.conv1` of its weight and of its bias.
fn layer(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(layer, _)| layer)
}

/// `len` draws from `[-a, a)`, `a = 1 / sqrt(fan_in)`: Kaiming's uniform values (He et al. 2015) with a slope of `sqrt 5`.
pub fn kaiming_uniform(len: usize, fan_in: usize, draws: Draws) -> Vec<f32> {
    let bound = (1.0 / fan_in as f64).sqrt() as f32;
    (0..len as u64).map(|i| (2.0 * draws.uniform(i) - 1.0) * bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> UnetConfig {
        UnetConfig {
            image_size: 8,
            channels: 3,
            widths: vec![16, 32],
            attending: vec![false, true],
            depth: 1,
            context: 24,
            heads: 4,
            groups: 4,
            label_dropout: 0.1,
        }
    }

    /// Every kind of tensor, by hand: the first convolution, one of a halving, a shortcut of one place, a linear layer with and
    /// one without a bias, on the context's width and on the tokens'.
    #[test]
    fn spreads_are_those_of_pytorchs_layers() {
        let weights = initial_weights(&config(), 0).unwrap();
        for (layer, fan_in, biased) in [
            ("conv_in", 27, true),
            ("down_blocks.0.downsamplers.0.conv", 144, true),
            ("down_blocks.1.resnets.0.conv1", 144, true),
            ("down_blocks.1.resnets.0.conv_shortcut", 16, true),
            ("down_blocks.1.resnets.0.time_emb_proj", 64, true),
            ("time_embedding.linear_1", 16, true),
            ("mid_block.attentions.0.proj_in", 32, true),
            ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 32, false),
            ("mid_block.attentions.0.transformer_blocks.0.attn2.to_k", 24, false),
            ("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0", 32, true),
            ("mid_block.attentions.0.transformer_blocks.0.ff.net.2", 128, true),
            ("conv_out", 144, true),
        ] {
            let bound = 1.0 / f64::from(fan_in).sqrt();
            let values = &weights[&format!("{layer}.weight")].values;
            let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
            let spread = square.sqrt() / (bound / 3.0_f64.sqrt());
            assert!((spread - 1.0).abs() < 0.1, "{layer}: {spread} of {} values", values.len());
            let bias = weights.get(&format!("{layer}.bias"));
            assert_eq!(bias.is_some(), biased, "{layer}");
            let all = values.iter().chain(bias.iter().flat_map(|bias| &bias.values));
            assert!(all.clone().all(|v| f64::from(v.abs()) <= bound), "{layer}");
            let largest =
                bias.map_or(bound, |bias| bias.values.iter().fold(0.0, |m: f64, v| m.max(f64::from(v.abs()))));
            assert!(largest > 0.3 * bound, "{layer}: its bias is at most {largest}");
        }
        for norm in
            ["down_blocks.0.resnets.0.norm1", "mid_block.attentions.0.transformer_blocks.0.norm2", "conv_norm_out"]
        {
            let of = |what: &str| &weights[&format!("{norm}.{what}")].values;
            assert!(of("weight").iter().all(|v| *v == 1.0) && of("bias").iter().all(|v| *v == 0.0), "{norm}");
        }
    }

    #[test]
    fn a_seed_decides_every_bit() {
        let weights = initial_weights(&config(), 3).unwrap();
        assert_eq!(weights, initial_weights(&config(), 3).unwrap());
        let other = initial_weights(&config(), 4).unwrap();
        let drawn = |name: &&String| weights[*name].values.iter().any(|v| *v != 0.0 && *v != 1.0);
        assert!(weights.keys().filter(drawn).all(|name| weights[name] != other[name]));
        // No two tensors have the same draws.
        let (a, b) = ("mid_block.resnets.0.conv1.weight", "mid_block.resnets.0.conv2.weight");
        assert_ne!(weights[a], weights[b]);
    }
}
