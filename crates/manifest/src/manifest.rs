//! The manifest of an artifact, as written: a starting point and what each cell changes.

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::scale::Weights;

/// One table or figure (`experiments/table4.yaml`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its name, that of the file.
    pub artifact: String,
    /// Its title.
    pub title: String,
    /// Where the paper prints it, and at which settings; of groups without a setting of their own.
    pub paper: Option<Paper>,
    /// What every cell starts from.
    pub method: Start,
    /// What is measured beside the distance, where the extractor and the number of samples allow it.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true))]
    pub measures: Vec<Measure>,
    /// What all cells of groups without a setting of their own are compared with.
    pub baseline: Option<Cell>,
    /// Groups of cells, in the order of the report.
    pub groups: IndexMap<String, Group>,
}

/// A number of samples beside their distance to the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The distance extrapolated to infinitely many samples; only where there are fewer than the paper's 50,000.
    Infinity,
    /// Precision and recall.
    PrecisionRecall,
    /// The Inception score; only where the extractor tells classes apart.
    InceptionScore,
    /// The Frechet distance of spatial features (sFID); only with Inception.
    SpatialDistance,
    /// How alike the samples are, pair by pair (Table 5).
    Similarity,
}

impl Measure {
    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Infinity => "the distance at infinitely many samples",
            Self::PrecisionRecall => "precision and recall",
            Self::InceptionScore => "the Inception score",
            Self::SpatialDistance => "sFID",
            Self::Similarity => "similarity",
        }
    }
}

/// The artifact in the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Table, figure or section.
    #[serde(rename = "where")]
    pub place: String,
    /// The backbone there.
    pub backbone: String,
    /// The dataset there.
    pub dataset: String,
    /// Iterations of further training there.
    #[schemars(range(min = 1))]
    pub further_iterations: usize,
}

/// What every cell starts from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The method.
    pub kind: MethodKind,
    /// Name of the preset (`experiments/presets/*.yaml`) that gives its fields.
    pub preset: String,
}

/// A kind of [`crate::method::Method`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodKind {
    /// The backbone as it is.
    Pretrained,
    /// Full fine-tuning.
    Finetune,
    /// Prompts without a gate.
    PromptTuning,
    /// Low-rank adaptation.
    Lora,
    /// Diffusion Model Patching.
    Dmp,
}

/// Cells that vary one thing.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its title.
    pub title: String,
    /// Name of another setting of the scale (`settings` in its file): another backbone on other images. The group then
    /// has its own `paper` and `baseline`, and is a table of its own.
    pub setting: Option<String>,
    /// Where the paper prints it; with `setting` only.
    pub paper: Option<Paper>,
    /// What its cells are compared with; with `setting` only.
    pub baseline: Option<Cell>,
    /// Captions of which samples of all its cells are shown, unless the scale has others (`sample.captions`); with
    /// `setting` only.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true))]
    pub captions: Vec<String>,
    /// Its cells by label.
    pub cells: IndexMap<String, Cell>,
}

/// One configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Its title; the label if absent.
    pub title: Option<String>,
    /// Id of the claim it stands for (`experiments/claims/*.yaml`).
    pub claim: Option<String>,
    /// Ids of claims on other metrics of the same cell.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true))]
    pub further_claims: Vec<String>,
    /// Another method; its fields come from the preset.
    pub method: Option<Choice>,
    /// What it changes: dotted paths below `method`, and values. Where a value chooses another `kind`, fields that it
    /// leaves out come from the preset.
    #[serde(default)]
    pub set: IndexMap<String, Anything>,
    /// A file of what the method trains, made elsewhere (a patch of the authors' code, alone or with its backbone): it takes the
    /// place of the training. Not with `share`.
    pub trained: Option<Weights>,
    /// Share of the scale's iterations after which it is judged; all if absent.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1.0))]
    pub share: Option<f64>,
    /// Classes of which samples are shown, as ImageNet's thousand are numbered; a backbone with fewer classes shows the remainder.
    #[serde(default)]
    #[schemars(inner(range(max = 999)), extend("uniqueItems" = true))]
    pub classes: Vec<u32>,
    /// Why it cannot be run yet. The report says so.
    pub not_run: Option<String>,
}

/// Another method.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Which.
    pub kind: MethodKind,
}

/// A value whose type depends on its path: it is checked after it has been set.
#[derive(Clone, Debug)]
pub struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for Anything {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Anything".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }
}
