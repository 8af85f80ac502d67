//! `path=value` on the command line, in a cell's `set` and in a preset: through the same checks as the files.

use crate::problem::{Place, Problem, allowed};
use crate::read;
use crate::tree::{Entry, KindDefaults, Map, Node, Value};

/// One `path=value`.
pub(crate) struct Override {
    pub(crate) path: String,
    pub(crate) place: Place,
    pub(crate) value: Node,
}

impl Override {
    /// Reads a command-line option; the value is YAML.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let option = format!("--set {text}");
        let place = Place::Option(option.as_str().into());
        let wrong = |message: &str| vec![Problem::new(&place, message)];
        let (path, value) =
            text.split_once('=').ok_or_else(|| wrong("write `path=value`, e.g. `train.iterations=50`"))?;
        if path.split('.').any(|key| key.is_empty() || key.contains(char::is_whitespace)) {
            return Err(wrong(&format!("`{path}` is not a path: keys joined by dots, e.g. `train.iterations`")));
        }
        Ok(Self { path: path.to_owned(), value: read::option(value, &option)?, place })
    }

    /// The path below `method`, if it is one.
    pub(crate) fn below_method(&self) -> Option<&str> {
        below_method(&self.path)
    }

    /// What a preset changes in every scale.
    pub(crate) fn of_preset(preset: &Node) -> Vec<Self> {
        let entries = preset.get("scale").and_then(Node::map).into_iter().flatten();
        let of_entry = |(path, entry): (&String, &Entry)| Self {
            path: path.clone(),
            place: entry.key_place.clone(),
            value: entry.node.clone(),
        };
        entries.map(of_entry).collect()
    }

    /// Lays the value onto a tree, whether or not the path is there: checks that follow refuse an unknown key.
    pub(crate) fn put(&self, node: &mut Node) {
        node.merge(nest(&self.path, &self.place, self.value.clone()), "", &KindDefaults::default());
    }
}

/// The part of a path below `method`.
pub(crate) fn below_method(path: &str) -> Option<&str> {
    match path.strip_prefix("method")? {
        "" => Some(""),
        rest => rest.strip_prefix('.'),
    }
}

/// Sets a value below a method. An error (the message) if the path is not there: every field of a method is explicit.
pub(crate) fn set(
    method: &mut Node,
    path: &str,
    place: &Place,
    value: Node,
    kinds: &KindDefaults,
) -> Result<(), String> {
    let (mut node, mut walked) = (&*method, "method".to_owned());
    for key in path.split('.').filter(|key| !key.is_empty()) {
        match node.get(key) {
            Some(inner) => node = inner,
            None => {
                let keys = node.map().into_iter().flat_map(Map::keys).map(String::as_str);
                return Err(format!("unknown key `{key}` in `{walked}`{}", allowed(key, keys)));
            }
        }
        walked = format!("{walked}.{key}");
    }
    method.merge(nest(path, place, value), "method", kinds);
    Ok(())
}

/// `a.b` and a value as `{a: {b: value}}`.
fn nest(path: &str, place: &Place, value: Node) -> Node {
    path.rsplit('.').filter(|key| !key.is_empty()).fold(value, |node, key| {
        let entry = Entry { key_place: place.clone(), node };
        Node { place: place.clone(), value: Value::Map(Map::from([(key.to_owned(), entry)])) }
    })
}
