//! What turns images into features: the shape of a small CNN, or Inception v3.

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

/// A network as it enters a key. A CNN is its shape, as it was before there was another network (so it has no tag).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FeatureNetwork {
    /// A small CNN.
    Cnn(ExtractorConfig),
    /// Inception v3 on images resized as pytorch-fid does.
    Inception(InceptionNetwork),
}

/// Inception v3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InceptionNetwork {
    /// Where its weights come from.
    pub inception: WeightsFrom,
}

/// Where the weights of a network come from whose recipe need not train them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightsFrom {
    /// A file, an input of the stage (`backbone`, `extractor`, `autoencoder`): a published one or, of a backbone, what a stage has trained.
    File,
    /// A formula (`models::formula`): no file is read.
    Formula,
}

impl FeatureNetwork {
    /// Whether it says how probable each of some classes is.
    pub fn has_classes(&self) -> bool {
        match self {
            Self::Cnn(cnn) => cnn.target == Target::Labels,
            Self::Inception(_) => true,
        }
    }

    /// Whether it has spatial features beside the pooled ones.
    pub fn has_spatial(&self) -> bool {
        matches!(self, Self::Inception(_))
    }
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
