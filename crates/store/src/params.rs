//! `params.yaml`: a stage's parameters and inputs for people to read. The truth is in the record.

use serde::Serialize;
use serde_json::Value;

/// Name of the file.
pub(crate) const FILE: &str = "params.yaml";

/// Its contents.
pub(crate) fn to_yaml(parameters: &Value, inputs: &Value) -> String {
    #[derive(Serialize)]
    struct Params<'a> {
        parameters: &'a Value,
        inputs: &'a Value,
    }
    serde_yaml::to_string(&Params { parameters, inputs }).expect("a JSON value has a YAML form")
}
