//! What a forward pass of the UNet costs, read off the tensors that it has: their names say where they act, their shapes how much.

use candle_core::Result;

use super::{UnetConfig, named_shapes};

/// The cost of one image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Operations of the matrix products and convolutions, a multiplication and an addition being two.
    pub flops: f64,
    /// Values that a step with frozen weights needs on its way back: the inputs of all that is not linear.
    pub kept: usize,
}

/// The cost of a map of `side` x `side` under a context of so many `tokens`.
///
/// # Errors
/// The configuration fits no network.
pub fn cost(config: &UnetConfig, side: usize, tokens: usize) -> Result<Cost> {
    let mut cost = Cost::default();
    for (name, shape) in named_shapes(config)? {
        let places = (side >> level(&name, config.widths.len())).pow(2);
        let keys = if name.contains(".attn2.") { tokens } else { places };
        // `[c]` of a normalisation or a bias, `[out, in]` or `[out, in, height, width]` of a product.
        let (first, weights) = (shape[0], shape.iter().product::<usize>());
        let rows = match &name {
            name if name.starts_with("time_embedding.") || name.contains(".time_emb_proj.") => 1,
            name if name.contains(".to_k.") || name.contains(".to_v.") => keys,
            _ => places,
        };
        if shape.len() > 1 {
            cost.flops += 2.0 * (weights * rows) as f64;
        }
        cost.kept += match &name {
            // The normalisation's input, and SiLU's.
            name if name.contains("resnets.") && is_norm(name) || name == "conv_norm_out.weight" => 2 * first * rows,
            name if is_norm(name) => first * rows,
            // The queries; the softmax over the keys of every head.
            name if name.ends_with(".to_q.weight") => {
                cost.flops += 4.0 * (first * rows * keys) as f64;
                first * rows + config.heads * rows * keys
            }
            name if name.ends_with(".to_k.weight") || name.ends_with(".to_v.weight") => first * rows,
            // Both halves of the gated layer.
            name if name.ends_with(".ff.net.0.proj.weight") => first * rows,
            _ => 0,
        };
    }
    Ok(cost)
}

fn is_norm(name: &str) -> bool {
    name.ends_with(".weight") && name.split('.').rev().nth(1).is_some_and(|layer| layer.starts_with("norm"))
}

/// How often the map was halved where a tensor's products come out.
fn level(name: &str, levels: usize) -> usize {
    let mut parts = name.split('.');
    let (block, number) = (parts.next(), parts.next().and_then(|number| number.parse::<usize>().ok()));
    match (block, number) {
        (Some("down_blocks"), Some(level)) => level + usize::from(name.contains(".downsamplers.")),
        (Some("mid_block"), _) => levels - 1,
        (Some("up_blocks"), Some(number)) => levels - 1 - number - usize::from(name.contains(".upsamplers.")),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Profilers report 338.83 G multiply-adds at 512x512 (DeepCache, Ma et al. 2024), the products of attention itself not
    /// among them.
    #[test]
    fn stable_diffusion_has_the_reported_size() {
        let config = UnetConfig::stable_diffusion();
        let attention = |level: usize, transformers: usize| {
            let places = (64_usize >> level).pow(2);
            transformers * 4 * places * (places + 77) * config.widths[level]
        };
        // Two on the way down and three on the way up at each resolution that attends, and one in the middle.
        let products = attention(0, 5) + attention(1, 5) + attention(2, 5) + attention(3, 1);
        let flops = cost(&config, 64, 77).unwrap().flops - products as f64;
        assert!((flops / 2.0 / 338.83e9 - 1.0).abs() < 0.001, "{flops}");
    }

    /// One resolution of 4 x 4 places, 8 channels, 2 heads and 3 tokens of width 5, counted by hand.
    #[test]
    fn a_small_network_by_hand() {
        let config = UnetConfig {
            widths: vec![8],
            attending: vec![true],
            depth: 1,
            context: 5,
            heads: 2,
            groups: 2,
            ..UnetConfig::stable_diffusion()
        };
        // A residual block without and with a shortcut from 16 channels; a transformer.
        let (residual, shortcut, transformer) = (512, 768, 2704);
        let kept = (residual + transformer) + (2 * residual + transformer) + 2 * (shortcut + transformer) + 256;
        let (residual, shortcut, transformer) = (37_376.0, 59_904.0, 51_168.0);
        let edges = 2.0 * 9_216.0 + 512.0 + 2_048.0;
        let flops = edges + (residual + transformer) + (2.0 * residual + transformer) + 2.0 * (shortcut + transformer);
        assert_eq!(cost(&config, 4, 3).unwrap(), Cost { flops, kept });
    }

    #[test]
    fn halving_and_doubling_come_out_at_the_other_resolution() {
        let at = |name| level(name, 4);
        assert_eq!(
            [at("down_blocks.1.resnets.0.conv1.weight"), at("down_blocks.1.downsamplers.0.conv.weight")],
            [1, 2]
        );
        assert_eq!([at("up_blocks.1.resnets.0.conv1.weight"), at("up_blocks.1.upsamplers.0.conv.weight")], [2, 1]);
        assert_eq!([at("mid_block.resnets.1.conv1.weight"), at("conv_out.weight")], [3, 0]);
    }
}
