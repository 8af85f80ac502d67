//! Python's pickle format, read without running anything: a pickle is a program for a stack machine, and here its
//! calls only leave behind what would have been called with which arguments.
//!
//! All objects lie in one arena and refer to each other by number, so that a list may contain itself, nothing recurses,
//! and memory is at most about a hundred times the length of the program.

mod machine;

pub(super) use machine::read;

/// A finished program.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    /// What it leaves on the stack.
    pub(super) root: Value<'a>,
    /// Bytes up to and with its last instruction.
    pub(super) length: usize,
}

/// A program that cannot be followed.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{reason} (byte {at} of the pickle)")]
pub(super) struct PickleFault {
    /// Where.
    pub(super) at: usize,
    /// Why.
    pub(super) reason: String,
}

/// A Python value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than eight bytes, little-endian.
    Long(&'a [u8]),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// A number or registered object that weights do not need.
    Opaque,
    /// Number of an object in the arena.
    Node(usize),
}

/// A Python object that others may refer to.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    /// Also an `OrderedDict`. A key may occur again; the last one counts.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A class or function, by name.
    Global {
        module: &'a str,
        name: &'a str,
    },
    /// What calling `class` with `arguments` would have made.
    Object {
        class: Value<'a>,
        arguments: Value<'a>,
        state: Option<Value<'a>>,
    },
    /// Something kept outside of the pickle.
    Persistent(Value<'a>),
}

impl<'a> Pickle<'a> {
    /// The object behind a value.
    pub(super) fn node(&self, value: Value) -> Option<&Node<'a>> {
        match value {
            Value::Node(number) => self.nodes.get(number),
            _ => None,
        }
    }

    /// Elements of a tuple or list.
    pub(super) fn sequence(&self, value: Value) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Tuple(values) | Node::List(values) => Some(values),
            _ => None,
        }
    }

    /// Entries of a dict.
    pub(super) fn dict(&self, value: Value) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The last entry of a dict under `key`.
    pub(super) fn entry(&self, value: Value, key: &str) -> Option<Value<'a>> {
        let entries = self.dict(value)?;
        entries.iter().rev().find(|(name, _)| *name == Value::Text(key)).map(|(_, value)| *value)
    }

    /// Module and name of a class or function.
    pub(super) fn global(&self, value: Value) -> Option<(&'a str, &'a str)> {
        match *self.node(value)? {
            Node::Global { module, name } => Some((module, name)),
            _ => None,
        }
    }

    /// Class, arguments and state of a made object.
    pub(super) fn object(&self, value: Value) -> Option<(Value<'a>, Value<'a>, Option<Value<'a>>)> {
        match *self.node(value)? {
            Node::Object { class, arguments, state } => Some((class, arguments, state)),
            _ => None,
        }
    }

    /// All classes and functions that are named anywhere.
    pub(super) fn globals(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.nodes.iter().filter_map(|node| match *node {
            Node::Global { module, name } => Some((module, name)),
            _ => None,
        })
    }

    /// The names of all that is kept outside.
    pub(super) fn persistent(&self) -> impl Iterator<Item = Value<'a>> {
        self.nodes.iter().filter_map(|node| match *node {
            Node::Persistent(id) => Some(id),
            _ => None,
        })
    }
}
