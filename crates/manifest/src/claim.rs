//! What the paper claims: one published value, and which other values it is compared with.

use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file of claims (`experiments/claims/*.yaml`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// All of them; ids are unique across all files.
    pub claims: Vec<Claim>,
}

/// One published value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its id (`t4b.hard`).
    pub id: String,
    /// Where the paper says it.
    #[serde(rename = "where")]
    pub place: String,
    /// What is measured.
    pub metric: Metric,
    /// The value as printed; absent where the paper only plots it or says it in words.
    pub value: Option<f64>,
    /// Claims of the same metric it is compared with, and which side of them the paper puts it on.
    pub contrasts: IndexMap<String, Direction>,
    /// Whether the paper says that its training diverges: then a divergence is what was claimed.
    #[serde(default)]
    pub diverges: bool,
}

/// A metric of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Frechet Inception distance.
    Fid,
    /// Share of the samples that look real.
    Precision,
    /// Share of the real images that are generated.
    Recall,
    /// Largest Pearson correlation of two samples.
    CorrelationMax,
    /// Smallest.
    CorrelationMin,
    /// Mean over all pairs.
    CorrelationMean,
    /// Standard deviation over all pairs.
    CorrelationStd,
    /// Largest cosine similarity of two samples.
    SimilarityMax,
    /// Smallest.
    SimilarityMin,
    /// Mean over all pairs.
    SimilarityMean,
    /// Standard deviation over all pairs.
    SimilarityStd,
    /// Seconds that a sample takes.
    SamplingSeconds,
    /// How many more prompts the gate uses in the quarter of highest timesteps than in that of the lowest, as a share of
    /// all; a prompt is used as much as the entropy of the weights says. 0 without a gate.
    ActivationGain,
    /// Parameters in millions (Table 1).
    Parameters,
    /// What a patch adds to them, in percent.
    ParametersAdded,
}

impl Metric {
    /// Name in a record; the distance has that of its extractor.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fid => "fid",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::CorrelationMax => "correlation_max",
            Self::CorrelationMin => "correlation_min",
            Self::CorrelationMean => "correlation_mean",
            Self::CorrelationStd => "correlation_std",
            Self::SimilarityMax => "similarity_max",
            Self::SimilarityMin => "similarity_min",
            Self::SimilarityMean => "similarity_mean",
            Self::SimilarityStd => "similarity_std",
            Self::SamplingSeconds => "sampling_seconds",
            Self::ActivationGain => "activation_gain",
            Self::Parameters => "parameters",
            Self::ParametersAdded => "parameters_added",
        }
    }

    /// Decimals that the paper prints.
    pub fn decimals(self) -> usize {
        match self {
            Self::Fid | Self::Precision | Self::Recall | Self::ParametersAdded => 2,
            Self::Parameters => 1,
            _ => 4,
        }
    }

    /// Whether it depends on what else the machine does meanwhile, which no record knows.
    pub fn depends_on_load(self) -> bool {
        self == Self::SamplingSeconds
    }

    /// Below this a difference is none, however steady: a thousandth of all prompts is not the breadth that Figure 5 shows.
    pub fn least_difference(self) -> f64 {
        if self == Self::ActivationGain { 1e-3 } else { 0.0 }
    }

    /// Whether less or more is better, where one of them is.
    pub fn better(self) -> Option<Direction> {
        match self {
            Self::Fid | Self::SamplingSeconds => Some(Direction::Lower),
            Self::Precision | Self::Recall => Some(Direction::Higher),
            _ => None,
        }
    }
}

/// On which side of another value a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Below it.
    Lower,
    /// Above it.
    Higher,
    /// Almost the same: within [`ALMOST`] of it.
    Equal,
}

/// What "almost the same" allows, as a share of the value compared with. The paper gives no number.
pub const ALMOST: f64 = 0.05;

impl Direction {
    /// Whether `value` lies on this side of `other`.
    pub fn holds(self, value: f64, other: f64) -> bool {
        match self {
            Self::Lower => value < other,
            Self::Higher => value > other,
            Self::Equal => (value - other).abs() <= ALMOST * other.abs(),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
            Self::Equal => "equal",
        })
    }
}
