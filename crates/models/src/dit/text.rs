//! Conditioning on text: the pooled embedding of a caption, through a linear layer, takes the place of the label's.
//!
//! Over a set of captions such a network is a class-conditional one whose classes are the captions and whose null label is
//! the null caption: its label table is `E W^T + b`. So nothing else needs to know of text, neither gates nor engines.

use candle_core::{Result, Tensor};

/// The table of label embeddings, `[rows, D]`.
pub const LABEL_TABLE: &str = "y_embedder.embedding_table.weight";
/// The linear layer in its place, `W` `[D, W]` and `b` `[D]`.
pub const PROJECTION: [&str; 2] = ["y_embedder.proj.weight", "y_embedder.proj.bias"];

/// `E W^T + b`: the label table of the class-conditional network that a text-conditional one is over these captions. Where
/// the layer's tensors are variables, gradients reach them.
///
/// # Shapes
/// `captions` `[n, W]`, `weight` `[D, W]`, `bias` `[D]` to `[n, D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn label_table(captions: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    captions.matmul(&weight.t()?)?.broadcast_add(bias)
}

/// Gradients of the layer from that of its table: `dW = dT^T E`, `db = sum over n of dT`.
///
/// # Shapes
/// `captions` `[n, W]`, `d_table` `[n, D]` to `[D, W]` and `[D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn label_table_backward(captions: &Tensor, d_table: &Tensor) -> Result<[Tensor; 2]> {
    Ok([d_table.t()?.matmul(captions)?, d_table.sum(0)?])
}
