//! The only file that knows serde_yaml: scalars to values, trees to types, types to trees and to text.
//!
//! A variant with a value is a map with one entry (`{blocks: 3}`), as in JSON, and no YAML tag.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml::with::singleton_map_recursive;
use serde_yaml::{Mapping, Number, Value as Yaml};

use crate::problem::Place;
use crate::tree::{Entry, Map, Node, Value};

/// What a plain (unquoted) scalar means.
pub(crate) fn scalar(plain: &str) -> Value {
    match serde_yaml::from_str::<Yaml>(plain) {
        Ok(Yaml::Null) => Value::Null,
        Ok(Yaml::Bool(v)) => Value::Bool(v),
        Ok(Yaml::Number(v)) => number(&v),
        _ => Value::Text(plain.to_owned()),
    }
}

fn number(number: &Number) -> Value {
    let int = number.as_u64().map(i128::from).or(number.as_i64().map(i128::from));
    int.map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
}

/// The typed value of a tree.
pub(crate) fn typed<T: DeserializeOwned>(node: &Node) -> Result<T, String> {
    singleton_map_recursive::deserialize(to_yaml(node)).map_err(|e: serde_yaml::Error| e.to_string())
}

fn to_yaml(node: &Node) -> Yaml {
    match &node.value {
        Value::Null => Yaml::Null,
        Value::Bool(v) => Yaml::Bool(*v),
        Value::Int(v) => match (u64::try_from(*v), i64::try_from(*v)) {
            (Ok(v), _) => Yaml::Number(v.into()),
            (_, Ok(v)) => Yaml::Number(v.into()),
            _ => Yaml::String(v.to_string()), // a number that no type holds: rejected by the type
        },
        Value::Float(v) => Yaml::Number((*v).into()),
        Value::Text(v) => Yaml::String(v.clone()),
        Value::List(items) => Yaml::Sequence(items.iter().map(to_yaml).collect()),
        Value::Map(entries) => {
            Yaml::Mapping(entries.iter().map(|(k, e)| (Yaml::String(k.clone()), to_yaml(&e.node))).collect::<Mapping>())
        }
    }
}

/// The tree of a value, written nowhere.
pub(crate) fn tree<T: Serialize>(value: &T) -> Result<Node, String> {
    from_yaml(singleton_map_recursive::serialize(value, serde_yaml::value::Serializer).map_err(|e| e.to_string())?)
}

fn from_yaml(yaml: Yaml) -> Result<Node, String> {
    let value = match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(v) => Value::Bool(v),
        Yaml::Number(v) => number(&v),
        Yaml::String(v) => Value::Text(v),
        Yaml::Sequence(items) => Value::List(items.into_iter().map(from_yaml).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let Yaml::String(key) = key else { return Err(format!("{key:?} is a map's key and no string")) };
                map.insert(key, Entry { key_place: Place::Nowhere, node: from_yaml(value)? });
            }
            Value::Map(map)
        }
        Yaml::Tagged(tagged) => return Err(format!("`{}` is a YAML tag", tagged.tag)),
    };
    Ok(Node { place: Place::Nowhere, value })
}

/// YAML text of a value, for people (`params.yaml` beside a record).
pub fn to_text<T: Serialize>(value: &T) -> Result<String, String> {
    let mut text = Vec::new();
    let mut serializer = serde_yaml::Serializer::new(&mut text);
    singleton_map_recursive::serialize(value, &mut serializer).map_err(|e| e.to_string())?;
    drop(serializer);
    String::from_utf8(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_with_a_value_is_a_map_in_every_direction() {
        use crate::method::Depth;
        for (depth, text) in [(Depth::Half, "half\n"), (Depth::Blocks(3), "blocks: 3\n")] {
            assert_eq!(typed::<Depth>(&tree(&depth).unwrap()).unwrap(), depth);
            assert_eq!(to_text(&depth).unwrap(), text);
        }
        assert_eq!(crate::canonical::to_json(&Depth::Blocks(3)).unwrap(), r#"{"blocks":3}"#);
        assert!(typed::<Depth>(&Node { place: Place::Nowhere, value: Value::Int(3) }).is_err());
    }

    #[test]
    fn plain_scalars_mean_what_yaml_1_2_says() {
        let cases = [
            ("1", Value::Int(1)),
            ("18446744073709551615", Value::Int(u64::MAX.into())),
            ("-3", Value::Int(-3)),
            ("1e-4", Value::Float(1e-4)),
            ("1.0", Value::Float(1.0)),
            (".inf", Value::Float(f64::INFINITY)),
            ("true", Value::Bool(true)),
            ("~", Value::Null),
            ("", Value::Null),
        ];
        for (plain, value) in cases {
            assert_eq!(scalar(plain), value, "{plain}");
        }
        for text in ["yes", "on", "t", "0..2", "a: b", "1_000", "[1", "- 1"] {
            assert_eq!(scalar(text), Value::Text(text.to_owned()));
        }
        assert!(matches!(scalar(".nan"), Value::Float(v) if v.is_nan()));
    }
}
