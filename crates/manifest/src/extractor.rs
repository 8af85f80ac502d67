//! The shape of a small feature CNN.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Strided 3x3 convolutions with SiLU, global average, one linear head. Features are the pooled activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtractorConfig {
    /// Its name: the metric is called `fd_<name>`.
    pub name: String,
    /// Side of the square input, in pixels.
    #[schemars(range(min = 1, max = 16384))]
    pub image_size: usize,
    /// Channels of the input.
    #[schemars(range(min = 1, max = 16384))]
    pub channels: usize,
    /// Output channels of each convolution; all but the first halve the side.
    #[schemars(length(min = 1), inner(range(min = 1)))]
    pub widths: Vec<usize>,
    /// What the head predicts.
    pub target: Target,
}

/// What an extractor is trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The known continuous factors of procedural images (mean squared error).
    Factors,
    /// The labels of real images (cross entropy).
    Labels,
}
