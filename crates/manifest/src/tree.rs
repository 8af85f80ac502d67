//! A YAML document as a tree in which every key and value knows where it was written, also after merging.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::problem::Place;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What YAML's core schema knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// Entries in the order of the document.
pub(crate) type Map = IndexMap<String, Entry>;

/// A map's value, and where its key was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The value under a key of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        Some(&self.map()?.get(key)?.node)
    }

    /// The value at a dotted path or else the nearest thing around it.
    pub(crate) fn descend(&self, path: &str) -> &Node {
        path.split('.')
            .filter(|key| !key.is_empty())
            .try_fold(self, |node, key| node.get(key).ok_or(node))
            .unwrap_or_else(|node| node)
    }

    /// Where the value at a dotted path was written, or else the nearest thing around it.
    pub(crate) fn place_of(&self, path: &str) -> Place {
        self.descend(path).place.clone()
    }

    /// Where a key of a map was written, or else the map.
    pub(crate) fn place_of_key(&self, key: &str) -> Place {
        self.map().and_then(|entries| entries.get(key)).map_or(&self.place, |entry| &entry.key_place).clone()
    }

    /// The variant that a map with a `kind` chooses.
    pub(crate) fn kind(&self) -> Option<&str> {
        self.get("kind")?.text()
    }

    /// Lays `over` on top: maps are merged key by key; where `over` chooses another kind, what was there is replaced
    /// by that kind's defaults (by dotted path) before; all else is replaced.
    pub(crate) fn merge(&mut self, over: Node, path: &str, defaults: &KindDefaults) {
        if let Some(kind) = over.kind()
            && self.kind() != Some(kind)
        {
            *self = defaults.of(path, kind, &over);
        }
        match (&mut self.value, over.value) {
            (Value::Map(under), Value::Map(entries)) => {
                self.place = over.place;
                for (key, Entry { key_place, node }) in entries {
                    let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    match under.get_mut(&key) {
                        Some(there) => {
                            there.key_place = key_place;
                            there.node.merge(node, &inner, defaults);
                        }
                        None => {
                            under.insert(key, Entry { key_place, node });
                        }
                    }
                }
            }
            (_, value) => *self = Node { place: over.place, value },
        }
    }
}

/// What the fields of a kind are, where a choice of that kind leaves them out: `(path, kind)` to a map.
#[derive(Clone, Debug, Default)]
pub(crate) struct KindDefaults(pub(crate) BTreeMap<(String, String), Node>);

impl KindDefaults {
    fn of(&self, path: &str, kind: &str, chosen_at: &Node) -> Node {
        match self.0.get(&(path.to_owned(), kind.to_owned())) {
            Some(node) => node.clone(),
            None => Node { place: chosen_at.place.clone(), value: Value::Map(Map::new()) },
        }
    }
}

/// How a value is called in a message.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => write!(f, "nothing"),
            Value::Bool(v) => write!(f, "`{v}`"),
            Value::Int(v) => write!(f, "`{v}`"),
            Value::Float(v) => write!(f, "`{v:?}`"),
            Value::Text(v) => write!(f, "the text `{v}`"),
            Value::List(_) => write!(f, "a list"),
            Value::Map(_) => write!(f, "a map"),
        }
    }
}

impl Place {
    pub(crate) fn file(file: &Arc<str>, line: usize, column: usize) -> Self {
        Place::File { file: Arc::clone(file), line, column }
    }
}
