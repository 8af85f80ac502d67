//! Differences between two sets of parameters, by dotted path: `method.gate.selection.keep: 0.75 -> 0.5`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Parameters by dotted path.
pub(crate) type Flat = BTreeMap<String, Value>;

/// One parameter that differs; `None` on the side that does not have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// Dotted path.
    pub(crate) path: String,
    /// Its value on the left.
    pub(crate) left: Option<Value>,
    /// Its value on the right.
    pub(crate) right: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |side: &Option<Value>| side.as_ref().map_or_else(|| "(none)".to_owned(), Value::to_string);
        write!(f, "{}: {} -> {}", self.path, show(&self.left), show(&self.right))
    }
}

/// The leaves of a JSON value by path. Empty maps are leaves too.
pub(crate) fn flatten(value: &Value) -> Flat {
    let mut flat = Flat::new();
    collect(value, String::new(), &mut flat);
    flat
}

fn collect(value: &Value, path: String, flat: &mut Flat) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (name, entry) in entries {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(entry, path, flat);
            }
        }
        _ => {
            flat.insert(path, value.clone());
        }
    }
}

/// What differs between two sets of parameters, sorted by path.
pub(crate) fn differences(left: &Flat, right: &Flat) -> Vec<Difference> {
    let paths: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    paths
        .into_iter()
        .filter(|path| left.get(*path) != right.get(*path))
        .map(|path| Difference { path: path.clone(), left: left.get(path).cloned(), right: right.get(path).cloned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_listed_by_path() {
        let left = flatten(&json!({"a": {"b": 1, "c": [1, 2]}, "kind": "soft", "only": null}));
        let right = flatten(&json!({"a": {"b": 2, "c": [1, 2]}, "kind": "top_k", "keep": 0.5}));
        let shown: Vec<String> = differences(&left, &right).iter().map(Difference::to_string).collect();
        assert_eq!(
            shown,
            ["a.b: 1 -> 2", "keep: (none) -> 0.5", "kind: \"soft\" -> \"top_k\"", "only: null -> (none)"]
        );
        assert_eq!(differences(&left, &left), []);
    }

    #[test]
    fn an_empty_map_differs_from_nothing() {
        let (left, right) = (flatten(&json!({"a": {}})), flatten(&json!({})));
        assert_eq!(differences(&left, &right).len(), 2, "the empty root and the empty `a`");
    }
}
