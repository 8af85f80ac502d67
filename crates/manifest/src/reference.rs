//! What distances are taken to: real images, or statistics that others publish.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dataset::Dataset;
use crate::scale::Weights;

/// What distances are taken to, as written: a dataset of any kind, or `{kind: statistics, file: ..., sha256: ...}`.
#[derive(Clone, Debug, PartialEq)]
pub enum ReferenceFrom {
    /// Real images, whose features are summarised.
    Images(Dataset),
    /// The mean and covariance of features in an .npz, as pytorch-fid (`mu`, `sigma`) and ADM (`mu_s`, `sigma_s` beside them)
    /// publish them. It is looked up like a weight file; its content is in the keys.
    Statistics(Weights),
}

impl ReferenceFrom {
    /// The images, where there are any.
    pub fn images(&self) -> Option<&Dataset> {
        match self {
            Self::Images(images) => Some(images),
            Self::Statistics(_) => None,
        }
    }
}

/// The kind that no dataset has.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Published {
    /// Mean and covariance of features in an .npz: `mu` and `sigma`, as pytorch-fid and ADM publish them.
    Statistics(Weights),
}

const KIND: &str = "statistics";

impl Serialize for ReferenceFrom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Images(images) => images.serialize(serializer),
            Self::Statistics(file) => Published::Statistics(file.clone()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ReferenceFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let read = match value["kind"] == KIND {
            true => serde_json::from_value(value).map(|Published::Statistics(file)| Self::Statistics(file)),
            false => serde_json::from_value(value).map(Self::Images),
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ReferenceFrom {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ReferenceFrom".into()
    }

    /// The kinds of datasets, and one more.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (mut schema, more) = (Dataset::json_schema(generator), Published::json_schema(generator));
        let kinds =
            |schema: &Schema| schema.get("oneOf").and_then(|kinds| kinds.as_array().cloned()).unwrap_or_default();
        let all = [kinds(&schema), kinds(&more)].concat();
        schema.insert("oneOf".to_owned(), all.into());
        let about = "What distances are taken to: a dataset of any kind, or statistics that others publish.";
        schema.insert("description".to_owned(), about.into());
        schema
    }
}
