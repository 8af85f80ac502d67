//! Conditioning on text: the pooled embedding of a caption, through a linear layer, takes the place of the label's.
//!
//! Over a set of captions such a network is a class-conditional one whose classes are the captions and whose null label is
//! the null caption: its label table is `E W^T + b`. So nothing else needs to know of text, neither gates nor engines.

use candle_core::{Result, Tensor};
use manifest::dit::DitConfig;

use super::shapes::named_shapes;
use crate::weights::Tensors;

/// The table of label embeddings.
const TABLE: &str = "y_embedder.embedding_table.weight";
/// The linear layer in its place, `[D, W]` and `[D]`.
const PROJECTION: [&str; 2] = ["y_embedder.proj.weight", "y_embedder.proj.bias"];

/// Names and shapes of a DiT that is conditioned on text embeddings of `width` (768 for CLIP ViT-L/14), in the order of the
/// class-conditional one's.
pub fn text_shapes(config: &DitConfig, width: usize) -> Vec<(String, Vec<usize>)> {
    let own = |(name, shape): (String, Vec<usize>)| {
        if name != TABLE {
            return vec![(name, shape)];
        }
        let shapes = [vec![config.hidden, width], vec![config.hidden]];
        PROJECTION.iter().zip(shapes).map(|(name, shape)| ((*name).to_owned(), shape)).collect()
    };
    named_shapes(config).into_iter().flat_map(own).collect()
}

/// The class-conditional network that a text-conditional one is over these captions. Where its tensors are variables,
/// gradients reach them.
///
/// # Shapes
/// `captions` `[classes + 1, W]`: pooled embeddings, that of the null caption last.
///
/// # Errors
/// A tensor of the projection is missing or has another width.
pub fn with_captions(tensors: &Tensors, captions: &Tensor) -> Result<Tensors> {
    let mut network = tensors.clone();
    let [weight, bias] = PROJECTION.map(|name| network.remove(name));
    let (Some(weight), Some(bias)) = (weight, bias) else {
        candle_core::bail!("these are not the weights of a DiT that is conditioned on text: no {}", PROJECTION[0])
    };
    network.insert(TABLE.to_owned(), captions.matmul(&weight.t()?)?.broadcast_add(&bias)?);
    Ok(network)
}
