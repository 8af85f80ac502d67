//! A preset: every field of the method, as the paper or as the released code has it.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::manifest::Anything;
use crate::method::Method;

/// `experiments/presets/*.yaml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Whose reading this is.
    pub title: String,
    /// Every field of the method.
    pub method: Method,
    /// What it changes in every scale: dotted path, value.
    pub scale: IndexMap<String, Anything>,
    /// Fields of the kinds that `method` does not choose: dotted path, kind, fields.
    pub alternatives: IndexMap<String, IndexMap<String, Anything>>,
}
