//! JSON Schemas (draft-07) of every YAML file, made from the types: for editors, and for this crate's own checks.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use crate::claim::Claims;
use crate::count::Count;
use crate::manifest::Manifest;
use crate::method::Method;
use crate::preset::Preset;
use crate::published::Published;
use crate::recipe::Recipe;
use crate::scale::Scale;

/// Name (of `experiments/schema/<name>.json`) and schema of every kind of file.
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("claims", of::<Claims>()),
        ("count", of::<Count>()),
        ("manifest", of::<Manifest>()),
        ("preset", of::<Preset>()),
        ("published", of::<Published>()),
        ("recipe", of::<Recipe>()),
        ("scale", scale_file()),
    ]
}

/// Schemas of what is checked after merging.
pub(crate) fn scale() -> Value {
    of::<Scale>()
}

pub(crate) fn method() -> Value {
    of::<Method>()
}

pub(crate) fn of<T: JsonSchema>() -> Value {
    SchemaGenerator::new(SchemaSettings::draft07()).into_root_schema_for::<T>().to_value()
}

/// A scale's file may extend another scale: then nothing is required, and only the names of its keys are known before merging.
fn scale_file() -> Value {
    let mut whole = of::<Scale>();
    let extends = json!({"type": "string", "description": "Name of the scale from which everything else is taken."});
    let keys = whole["properties"].as_object().expect("a struct's schema has properties").keys();
    let mut partial: serde_json::Map<String, Value> = keys.map(|key| (key.clone(), Value::Bool(true))).collect();
    let settings = json!({
        "type": "object",
        "description": "Other backbones on other images by name: what differs from the scale. A group of a manifest asks for one.",
        "additionalProperties": {"type": "object", "properties": partial, "additionalProperties": false},
    });
    whole["properties"]["settings"] = settings.clone();
    partial.insert("settings".to_owned(), settings);
    partial.insert("extends".to_owned(), extends);
    let schema = whole.as_object_mut().expect("a struct's schema is a map");
    let full: serde_json::Map<String, Value> = ["type", "properties", "additionalProperties", "required"]
        .into_iter()
        .map(|key| (key.to_owned(), schema.remove(key).expect("a strict struct's schema has it")))
        .collect();
    schema.insert("if".to_owned(), json!({"required": ["extends"]}));
    schema.insert("then".to_owned(), json!({"type": "object", "properties": partial, "additionalProperties": false}));
    schema.insert("else".to_owned(), Value::Object(full));
    whole
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use super::*;

    /// `UPDATE_SCHEMA=1 cargo test --release -p manifest schema` writes the files anew.
    #[test]
    fn the_committed_schemas_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/schema");
        for (name, schema) in all() {
            let path = folder.join(format!("{name}.json"));
            let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            if env::var_os("UPDATE_SCHEMA").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, &text).unwrap();
            }
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{name}.json is stale: run `runner schema --write`");
        }
    }

    #[test]
    fn every_object_is_strict() {
        fn visit(name: &str, schema: &Value) {
            match schema {
                Value::Object(map) => {
                    if map.get("type").is_some_and(|t| t == "object") {
                        assert!(map.contains_key("additionalProperties"), "{name}: {schema}");
                    }
                    map.values().for_each(|inner| visit(name, inner));
                }
                Value::Array(items) => items.iter().for_each(|inner| visit(name, inner)),
                _ => {}
            }
        }
        all().iter().for_each(|(name, schema)| visit(name, schema));
    }
}
