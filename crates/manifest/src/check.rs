//! Holds a tree against the schema of its type, and says everything that is wrong, each at its place.

use serde_json::Value as Schema;

use crate::digest::Digest;
use crate::problem::{Problems, allowed};
use crate::tree::{Map, Node, Value};

/// Adds a problem for each unknown or missing key, wrong type, value that is not among the allowed, and number that
/// is out of range or not finite. `path` is how the tree's root is called in messages (may be empty).
pub(crate) fn check(node: &Node, schema: &Schema, path: &str, problems: &mut Problems) {
    Checker { root: schema, problems }.visit(node, schema, path);
}

struct Checker<'a> {
    root: &'a Schema,
    problems: &'a mut Problems,
}

impl<'a> Checker<'a> {
    /// Follows references.
    fn resolve(&self, mut schema: &'a Schema) -> &'a Schema {
        loop {
            let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
            match reference.and_then(|reference| self.root.pointer(reference.trim_start_matches('#'))) {
                Some(target) => schema = target,
                None => return schema,
            }
        }
    }

    fn visit(&mut self, node: &Node, schema: &'a Schema, path: &str) {
        let schema = self.resolve(schema);
        if schema == &Schema::Bool(true) {
            return self.only_finite(node, path);
        }
        let branches = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
        match branches {
            Some(branches) if branches.iter().any(|branch| branch["type"] == "null") => {
                let other = branches.iter().find(|branch| branch["type"] != "null");
                if node.value != Value::Null
                    && let Some(other) = other
                {
                    self.visit(node, other, path);
                }
            }
            Some(branches) => match tag(branches) {
                Some(tag) => self.variant(node, branches, tag, path),
                None => self.word_or_entry(node, branches, path),
            },
            None if schema["enum"].is_array() => {
                let words = schema["enum"].as_array().into_iter().flatten();
                self.word(node, words.filter_map(Schema::as_str), path);
            }
            None => self.typed(node, schema, path),
        }
    }

    /// One of some words.
    fn word<'w>(&mut self, node: &Node, words: impl Iterator<Item = &'w str> + Clone, path: &str) {
        match node.text() {
            Some(word) if words.clone().any(|allowed| allowed == word) => {}
            Some(word) => {
                let hint = allowed(word, words);
                self.problems.add(&node.place, format!("unknown value `{word}` for `{path}`{hint}"));
            }
            None => {
                let words: Vec<_> = words.collect();
                let words = words.join(", ");
                self.problems
                    .add(&node.place, format!("`{path}` must be a word, found {}; allowed: {words}", node.value));
            }
        }
    }

    /// One of some words, or a map with one entry whose key is one of some others (`half`, `{blocks: 3}`).
    fn word_or_entry(&mut self, node: &Node, branches: &'a [Schema], path: &str) {
        let entry = |branch: &'a Schema| branch["properties"].as_object()?.keys().next().map(String::as_str);
        let entries = || branches.iter().filter_map(|branch| Some((entry(branch)?, branch)));
        if let Some(map) = node.map()
            && let Some((_, branch)) = entries().find(|(key, _)| map.contains_key(*key)).or_else(|| entries().next())
        {
            return self.typed(node, branch, path);
        }
        let words = branches.iter().filter_map(|branch| branch["const"].as_str()).map(str::to_owned);
        let forms: Vec<String> = words.chain(entries().map(|(key, _)| format!("{{{key}: ...}}"))).collect();
        self.word(node, forms.iter().map(String::as_str), path);
    }

    /// A map whose tag (`kind`) says which fields it has.
    fn variant(&mut self, node: &Node, branches: &'a [Schema], tag: &str, path: &str) {
        let Some(entries) = node.map() else {
            return self.problems.add(&node.place, format!("{} must be a map, found {}", quoted(path), node.value));
        };
        let kinds = branches.iter().filter_map(|branch| branch["properties"][tag]["const"].as_str());
        let Some(entry) = entries.get(tag) else {
            let kinds: Vec<_> = kinds.collect();
            let message = format!("missing key `{tag}`{}; allowed: {}", inside(path), kinds.join(", "));
            return self.problems.add(&node.place, message);
        };
        let chosen = branches.iter().find(|branch| {
            branch["properties"][tag]["const"].as_str().is_some_and(|kind| entry.node.text() == Some(kind))
        });
        match chosen {
            Some(branch) => {
                let about = format!(
                    "{}; `{tag}: {}` is: {}",
                    inside(path),
                    entry.node.text().unwrap_or_default(),
                    about(branch)
                );
                self.fields(node, entries, branch, path, &about);
            }
            None => self.word(&entry.node, kinds, &join(path, tag)),
        }
    }

    fn fields(&mut self, node: &Node, entries: &Map, schema: &'a Schema, path: &str, about: &str) {
        let known = schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys).map(String::as_str);
        for (key, entry) in entries {
            let inner = join(path, key);
            match (schema["properties"].get(key), &schema["additionalProperties"]) {
                (Some(schema), _) => self.visit(&entry.node, schema, &inner),
                (None, Schema::Bool(false)) => {
                    let hint = allowed(key, known.clone());
                    self.problems.add(&entry.key_place, format!("unknown key `{key}`{about}{hint}"));
                }
                (None, schema) => self.visit(&entry.node, schema, &inner),
            }
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Schema::as_str) {
            if !entries.contains_key(key) {
                self.problems.add(&node.place, format!("missing key `{key}`{about}"));
            }
        }
    }

    fn typed(&mut self, node: &Node, schema: &'a Schema, path: &str) {
        let types: Vec<&str> = match &schema["type"] {
            Schema::Array(types) => types.iter().filter_map(Schema::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let wanted = types.iter().find(|name| **name != "null").copied().unwrap_or_default();
        match (&node.value, wanted) {
            (Value::Null, _) if types.contains(&"null") => {}
            (Value::Map(entries), "object") => self.fields(node, entries, schema, path, &inside(path)),
            (Value::List(items), "array") => self.items(node, items, schema, path),
            (Value::Bool(_), "boolean") => {}
            (Value::Text(text), "string") => self.string(node, text, schema, path),
            (Value::Int(v), "integer" | "number") => {
                let too_large = wanted == "integer" && *v > i128::from(u64::MAX);
                let range =
                    if too_large { Some("smaller than 2^64".to_owned()) } else { out_of_range(*v as f64, schema) };
                self.must_be(node, range, path);
            }
            (Value::Float(v), "number") => {
                let range = if v.is_finite() { out_of_range(*v, schema) } else { Some("a finite number".to_owned()) };
                self.must_be(node, range, path);
            }
            (_, wanted) => {
                let name = match wanted {
                    "object" => "a map",
                    "array" => "a list",
                    "boolean" => "`true` or `false`",
                    "string" => "a text",
                    "integer" => "an integer",
                    _ => "a number",
                };
                self.must_be(node, Some(name.to_owned()), path);
            }
        }
    }

    fn must_be(&mut self, node: &Node, what: Option<String>, path: &str) {
        if let Some(what) = what {
            self.problems.add(&node.place, format!("{} must be {what}, found {}", quoted(path), node.value));
        }
    }

    fn string(&mut self, node: &Node, text: &str, schema: &Schema, path: &str) {
        if schema["pattern"] == Digest::PATTERN && text.parse::<Digest>().is_err() {
            self.must_be(node, Some("a SHA-256 (64 lowercase hexadecimal digits)".to_owned()), path);
        }
    }

    fn items(&mut self, node: &Node, items: &[Node], schema: &'a Schema, path: &str) {
        if schema["minItems"].as_u64().is_some_and(|least| (items.len() as u64) < least) {
            self.problems.add(&node.place, format!("{} must not be empty", quoted(path)));
        }
        for (i, item) in items.iter().enumerate() {
            let inner = format!("{path}[{i}]");
            self.visit(item, &schema["items"], &inner);
            if schema["uniqueItems"] == true && items[..i].iter().any(|other| other.value == item.value) {
                self.problems.add(&item.place, format!("`{inner}` repeats {}", item.value));
            }
        }
    }

    fn only_finite(&mut self, node: &Node, path: &str) {
        match &node.value {
            Value::Float(v) if !v.is_finite() => self.must_be(node, Some("a finite number".to_owned()), path),
            Value::List(items) => items.iter().for_each(|item| self.only_finite(item, path)),
            Value::Map(entries) => {
                entries.iter().for_each(|(key, entry)| self.only_finite(&entry.node, &join(path, key)));
            }
            _ => {}
        }
    }
}

/// The property by which the branches of a tagged enum differ.
fn tag(branches: &[Schema]) -> Option<&str> {
    let properties = branches.first()?["properties"].as_object()?;
    let is_tag = |key: &str| branches.iter().all(|branch| branch["properties"][key]["const"].is_string());
    properties.keys().map(String::as_str).find(|key| is_tag(key))
}

/// The first sentence of a description.
fn about(schema: &Schema) -> &str {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn inside(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" in `{path}`") }
}

fn quoted(path: &str) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") }
}

/// What a number must be, if it is not.
fn out_of_range(value: f64, schema: &Schema) -> Option<String> {
    let limit = |name: &str| schema[name].as_f64();
    match (limit("minimum"), limit("exclusiveMinimum"), limit("maximum")) {
        (Some(least), _, _) if value < least => Some(format!("at least {least}")),
        (_, Some(below), _) if value <= below => Some(format!("greater than {below}")),
        (_, _, Some(most)) if value > most => Some(format!("at most {most}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{read, schema};

    fn problems(schema: &Schema, text: &str) -> Vec<String> {
        let node = read::file(text, "f.yaml").unwrap();
        let mut problems = Problems::default();
        check(&node, schema, "", &mut problems);
        problems.into_vec().iter().map(ToString::to_string).collect()
    }

    const DIT: &str = "{image_size: 24, channels: 3, patch: 3, hidden: 64, depth: 4, heads: 4, classes: null, label_dropout: 0, learn_sigma: true}";

    #[test]
    fn a_good_tree_has_no_problem() {
        assert!(problems(&schema::of::<crate::dit::DitConfig>(), DIT).is_empty());
    }

    #[test]
    fn each_kind_of_mistake_is_named_at_its_place() {
        let schema = schema::of::<crate::dit::DitConfig>();
        let cases = [
            ("heads: 4", "heads: 0", "f.yaml:1:70: `heads` must be at least 1, found `0`"),
            ("heads: 4", "heads: -4", "f.yaml:1:70: `heads` must be at least 1, found `-4`"),
            ("heads: 4", "heads: 4.5", "f.yaml:1:70: `heads` must be an integer, found `4.5`"),
            ("heads: 4", "heads: four", "f.yaml:1:70: `heads` must be an integer, found the text `four`"),
            ("heads: 4", "heads: 1e3", "f.yaml:1:70: `heads` must be an integer, found `1000.0`"),
            ("depth: 4, ", "", "f.yaml:1:1: missing key `depth`"),
            (
                "label_dropout: 0",
                "label_dropout: .nan",
                "f.yaml:1:103: `label_dropout` must be a finite number, found `NaN`",
            ),
            ("label_dropout: 0", "label_dropout: 1.5", "f.yaml:1:103: `label_dropout` must be at most 1, found `1.5`"),
            (
                "learn_sigma: true",
                "learn_sigma: yes",
                "f.yaml:1:119: `learn_sigma` must be `true` or `false`, found the text `yes`",
            ),
            ("classes: null", "classes: 0", "f.yaml:1:82: `classes` must be at least 1, found `0`"),
            (
                "heads: 4",
                "heds: 4, heads: 4",
                "f.yaml:1:63: unknown key `heds`; allowed: channels, classes, depth, heads, hidden, image_size, label_dropout, learn_sigma, patch, text_width; did you mean `heads`?",
            ),
        ];
        for (right, wrong, expected) in cases {
            assert_eq!(problems(&schema, &DIT.replace(right, wrong)), [expected]);
        }
    }

    #[test]
    fn variants_check_their_tag_then_their_own_fields() {
        let schema = schema::of::<crate::gate::Selection>();
        let cases = [
            ("{kind: soft}", vec![]),
            ("soft", vec!["f.yaml:1:1: the file must be a map, found the text `soft`"]),
            ("{keep: 1}", vec!["f.yaml:1:1: missing key `kind`; allowed: soft, top_k"]),
            (
                "{kind: topk}",
                vec!["f.yaml:1:8: unknown value `topk` for `kind`; allowed: soft, top_k; did you mean `top_k`?"],
            ),
            (
                "{kind: soft, keep: 0.5}",
                vec!["f.yaml:1:14: unknown key `keep`; `kind: soft` is: All prompts, softmax weights; allowed: kind"],
            ),
            (
                "{kind: top_k, keep: 0, weights: 1, gradient: strait_through}",
                vec![
                    "f.yaml:1:21: `keep` must be greater than 0, found `0`",
                    "f.yaml:1:33: `weights` must be a word, found `1`; allowed: one, softmax",
                    "f.yaml:1:46: unknown value `strait_through` for `gradient`; allowed: none, straight_through; did you mean `straight_through`?",
                ],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(problems(&schema, text), expected, "{text}");
        }
    }

    #[test]
    fn a_word_or_a_map_with_one_entry() {
        let schema = schema::of::<crate::method::Depth>();
        let cases = [
            ("half", vec![]),
            ("{blocks: 1}", vec![]),
            ("{blocks: 0}", vec!["f.yaml:1:10: `blocks` must be at least 1, found `0`"]),
            ("{blocks: two}", vec!["f.yaml:1:10: `blocks` must be an integer, found the text `two`"]),
            (
                "{block: 2}",
                vec![
                    "f.yaml:1:1: missing key `blocks`",
                    "f.yaml:1:2: unknown key `block`; allowed: blocks; did you mean `blocks`?",
                ],
            ),
            ("{blocks: 2, half: 1}", vec!["f.yaml:1:13: unknown key `half`; allowed: blocks"]),
            (
                "hlaf",
                vec![
                    "f.yaml:1:1: unknown value `hlaf` for ``; allowed: first, half, all, {blocks: ...}; did you mean `half`?",
                ],
            ),
            ("3", vec!["f.yaml:1:1: `` must be a word, found `3`; allowed: first, half, all, {blocks: ...}"]),
        ];
        for (text, expected) in cases {
            let mut found = problems(&schema, text);
            found.sort();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn every_keyword_of_the_schemas_is_known_here() {
        const KNOWN: &[&str] = &[
            "$ref",
            "$schema",
            "additionalProperties",
            "allOf",
            "anyOf",
            "const",
            "default",
            "definitions",
            "description",
            "enum",
            "exclusiveMinimum",
            "format",
            "items",
            "maximum",
            "minItems",
            "minimum",
            "oneOf",
            "pattern",
            "properties",
            "required",
            "title",
            "type",
            "uniqueItems",
        ];
        fn visit(schema: &Schema, names: bool) {
            if let Schema::Object(map) = schema {
                for (key, inner) in map {
                    assert!(names || KNOWN.contains(&key.as_str()), "`{key}` is not checked");
                    visit(inner, !names && (key == "properties" || key == "definitions"));
                }
            } else if let Schema::Array(items) = schema {
                items.iter().for_each(|inner| visit(inner, false));
            }
        }
        for schema in [schema::scale(), schema::method()] {
            visit(&schema, false);
        }
        for (name, schema) in schema::all() {
            if name != "scale" {
                visit(&schema, false);
            }
        }
    }
}
