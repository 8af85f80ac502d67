//! YAML text to a tree with places. Duplicate keys, aliases, tags and second documents are refused here.

use std::sync::Arc;

use indexmap::map::Entry as Slot;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use crate::problem::{Place, Problem, Problems};
use crate::tree::{Entry, Map, Node, Value};
use crate::yaml;

/// Nesting beyond this is no manifest.
const DEEPEST: usize = 64;

/// Reads a file's text; `file` is its name in messages.
pub(crate) fn file(text: &str, file: &str) -> Result<Node, Vec<Problem>> {
    let file: Arc<str> = file.into();
    Reader::new(text, move |at| Place::file(&file, at.line().max(1), at.col() + 1)).document()
}

/// Reads a value of the command line; every place in it is the whole option.
pub(crate) fn option(text: &str, option: &str) -> Result<Node, Vec<Problem>> {
    let option: Arc<str> = option.into();
    Reader::new(text, move |_| Place::Option(Arc::clone(&option))).document()
}

struct Reader<'a, P> {
    parser: Parser<'a, StrInput<'a>>,
    place: P,
    problems: Problems,
}

/// Reading cannot go on: the problem is already noted.
struct Stop;

impl<'a, P: Fn(Marker) -> Place> Reader<'a, P> {
    fn new(text: &'a str, place: P) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text); // a byte order mark
        Self { parser: Parser::new_from_str(text), place, problems: Problems::default() }
    }

    fn document(mut self) -> Result<Node, Vec<Problem>> {
        let node = self.only_document();
        let problems = self.problems.into_vec();
        match node {
            Ok(node) if problems.is_empty() => Ok(node),
            _ => Err(problems),
        }
    }

    fn only_document(&mut self) -> Result<Node, Stop> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    return document.ok_or_else(|| self.stop(&(self.place)(span.start), "there is nothing in it"));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if document.is_some() => {
                    return Err(self.stop(&(self.place)(span.start), "a second document; a file holds one"));
                }
                event => document = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn syntax(&mut self, error: &ScanError) -> Stop {
        self.stop(&(self.place)(*error.marker()), &format!("not YAML: {}", error.info()))
    }

    fn stop(&mut self, place: &Place, message: &str) -> Stop {
        self.problems.add(place, message);
        Stop
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Stop> {
        let place = (self.place)(span.start);
        if depth > DEEPEST {
            return Err(self.stop(&place, &format!("nested more than {DEEPEST} deep")));
        }
        let value = match event {
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    self.problems.add(&place, "YAML tags have no meaning here; remove it");
                }
                if style == ScalarStyle::Plain { yaml::scalar(&text) } else { Value::Text(text.into_owned()) }
            }
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            Event::Alias(_) => {
                self.problems.add(&place, "YAML aliases are not followed; write the value out");
                Value::Null
            }
            _ => return Err(self.stop(&place, "a value is missing")),
        };
        Ok(Node { place, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut entries = Map::new();
        loop {
            let (event, span) = self.next()?;
            let key_place = (self.place)(span.start);
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.stop(&key_place, "a key must be a plain word")),
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            match entries.entry(key) {
                Slot::Vacant(slot) => {
                    slot.insert(Entry { key_place, node });
                }
                Slot::Occupied(slot) => self.problems.add(
                    &key_place,
                    format!("duplicate key `{}`; it is first at {}", slot.key(), slot.get().key_place),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        file(text, "f.yaml").expect_err("a problem").iter().map(Problem::to_string).collect()
    }

    #[test]
    fn every_value_and_key_knows_its_line_and_column() {
        let text = "# comment\na: 1\nmäx:\n  - {b: x, c: [2,\n      3]}\n\n  - 'q: 1'\nlast:\n    inner: ~\n";
        let node = file(text, "f.yaml").unwrap();
        let at = |path: &str| node.place_of(path).to_string();
        assert_eq!(at("a"), "f.yaml:2:4");
        assert_eq!(at("last.inner"), "f.yaml:9:12");
        assert_eq!(node.map().unwrap()["mäx"].key_place.to_string(), "f.yaml:3:1");
        let Value::List(items) = &node.get("mäx").unwrap().value else { panic!() };
        assert_eq!(items[0].place.to_string(), "f.yaml:4:5");
        assert_eq!(items[0].place_of("b").to_string(), "f.yaml:4:9");
        let Value::List(inner) = &items[0].get("c").unwrap().value else { panic!() };
        assert_eq!(inner[1].place.to_string(), "f.yaml:5:7");
        assert_eq!(items[1].value, Value::Text("q: 1".into()));
    }

    #[test]
    fn windows_line_ends_and_byte_order_marks_do_not_move_places() {
        let node = file("\u{feff}a: 1\r\nb: 2\r\n", "f.yaml").unwrap();
        assert_eq!(node.place_of("a").to_string(), "f.yaml:1:4");
        assert_eq!(node.place_of("b").to_string(), "f.yaml:2:4");
    }

    #[test]
    fn duplicate_keys_are_all_found() {
        let text = "a: 1\nb: {c: 1, c: 2}\na: 3\n";
        assert_eq!(
            problems(text),
            [
                "f.yaml:2:11: duplicate key `c`; it is first at f.yaml:2:5",
                "f.yaml:3:1: duplicate key `a`; it is first at f.yaml:1:1"
            ]
        );
    }

    #[test]
    fn what_is_no_plain_tree_is_refused_at_its_place() {
        assert!(problems("").concat().contains("there is nothing in it"));
        assert!(problems("a: 1\n--- \nb: 2\n")[0].starts_with("f.yaml:3:1: a second document"));
        assert!(problems("a: &x 1\nb: *x\n")[0].starts_with("f.yaml:2:4: YAML aliases"));
        assert!(problems("a: !t 1\n")[0].contains("YAML tags"));
        assert!(problems("a: [1, 2\nb: 3\n")[0].contains("not YAML"));
        assert!(problems("? {a: 1}\n: 2\n")[0].contains("a key must be a plain word"));
        assert!(problems(&("[".repeat(70) + &"]".repeat(70)))[0].contains("nested more than 64 deep"));
        assert!(problems(&"[".repeat(100_000))[0].starts_with("f.yaml:1:"));
    }

    #[test]
    fn an_option_is_its_own_place() {
        let node = option("{kind: top_k, keep: 0.5}", "--set a={..}").unwrap();
        assert_eq!(node.place_of("keep").to_string(), "--set a={..}");
    }
}
