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
    /// Claims it is compared with, and which side of them the paper puts it on.
    pub contrasts: IndexMap<String, Direction>,
}

/// A metric of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Frechet Inception distance.
    Fid,
}

impl Metric {
    /// Whether less is better.
    pub fn lower_is_better(self) -> bool {
        match self {
            Self::Fid => true,
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
}

impl Direction {
    /// Whether a difference (this value minus the other) lies on this side.
    pub fn holds(self, difference: f64) -> bool {
        match self {
            Self::Lower => difference < 0.0,
            Self::Higher => difference > 0.0,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        })
    }
}
