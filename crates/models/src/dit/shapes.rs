//! Names and shapes of a DiT's tensors, in the order of the reference's state dict.

use manifest::dit::DitConfig;

use super::text::{LABEL_TABLE, PROJECTION};

/// Channels of the sinusoidal timestep features.
pub const TIMESTEP_FEATURES: usize = 256;

/// Width of an MLP over that of the trunk.
pub const MLP_RATIO: usize = 4;

/// The one tensor that is stored but never trained.
pub const POSITION_EMBEDDING: &str = "pos_embed";

/// Names and shapes of all tensors, in state-dict order. Conditioned on text, a linear layer stands in the place of the label table.
pub fn named_shapes(config: &DitConfig) -> Vec<(String, Vec<usize>)> {
    let d = config.hidden;
    let patch = config.patch * config.patch;
    let mut shapes = Vec::new();
    let mut tensor = |name: &str, shape: &[usize]| shapes.push((name.to_owned(), shape.to_vec()));

    tensor(POSITION_EMBEDDING, &[1, config.tokens(), d]);
    tensor("x_embedder.proj.weight", &[d, config.channels, config.patch, config.patch]);
    tensor("x_embedder.proj.bias", &[d]);
    tensor("t_embedder.mlp.0.weight", &[d, TIMESTEP_FEATURES]);
    tensor("t_embedder.mlp.0.bias", &[d]);
    tensor("t_embedder.mlp.2.weight", &[d, d]);
    tensor("t_embedder.mlp.2.bias", &[d]);
    match config.text_width {
        None => tensor(LABEL_TABLE, &[config.label_rows(), d]),
        Some(width) => {
            tensor(PROJECTION[0], &[d, width]);
            tensor(PROJECTION[1], &[d]);
        }
    }
    for block in 0..config.depth {
        let mut linear = |name: &str, out: usize, inputs: usize| {
            tensor(&format!("blocks.{block}.{name}.weight"), &[out, inputs]);
            tensor(&format!("blocks.{block}.{name}.bias"), &[out]);
        };
        linear("attn.qkv", 3 * d, d);
        linear("attn.proj", d, d);
        linear("mlp.fc1", MLP_RATIO * d, d);
        linear("mlp.fc2", d, MLP_RATIO * d);
        linear("adaLN_modulation.1", 6 * d, d);
    }
    tensor("final_layer.linear.weight", &[patch * config.out_channels(), d]);
    tensor("final_layer.linear.bias", &[patch * config.out_channels()]);
    tensor("final_layer.adaLN_modulation.1.weight", &[2 * d, d]);
    tensor("final_layer.adaLN_modulation.1.bias", &[2 * d]);
    shapes
}

/// What the authors' code has beside them for a patch: a prompt for each image token in every block, and one linear gate that sees
/// the block's index, with noise.
pub fn released_patch(config: &DitConfig) -> Vec<(String, Vec<usize>)> {
    let (n, d) = (config.tokens(), config.hidden);
    let tensors: [(&str, &[usize]); 4] = [
        ("prompt_embeddings", &[config.depth, n, d]),
        ("w_noise", &[d, n]),
        ("gate.weight", &[n, d + 1]),
        ("gate.bias", &[n]),
    ];
    tensors.map(|(name, shape)| (name.to_owned(), shape.to_vec())).into()
}

/// Number of elements of all tensors.
pub fn elements(shapes: &[(String, Vec<usize>)]) -> usize {
    shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}
