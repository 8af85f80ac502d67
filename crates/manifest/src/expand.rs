//! From a manifest as written to its cells, each with every field of its method explicit.
//!
//! Merge order: preset, the cell's `method`, the cell's `set`, the command line.

use std::collections::BTreeMap;

use crate::claim::Claim;
use crate::files::{Loaded, typed};
use crate::manifest::{Cell, Manifest};
use crate::method::Method;
use crate::overrides::{self, Override, below_method};
use crate::preset::Preset;
use crate::problem::{Error, Problems, allowed};
use crate::schema;
use crate::tree::{Entry, KindDefaults, Map, Node, Value};
use crate::validate::{self, Checked};

/// All cells of a manifest, the baseline first.
pub(crate) struct Expanded {
    /// The method that cells start from.
    pub(crate) base: Method,
    pub(crate) cells: Vec<ExpandedCell>,
}

/// A cell with its method complete.
pub(crate) struct ExpandedCell {
    pub(crate) id: String,
    pub(crate) group: Option<String>,
    pub(crate) title: String,
    pub(crate) claim: Option<Claim>,
    pub(crate) method: Method,
}

/// Expands a manifest. `tokens` is the number of image tokens of the scale's backbone.
pub(crate) fn expand(
    manifest: &Loaded<Manifest>,
    preset: &Loaded<Preset>,
    overrides: &[Override],
    claims: &[Claim],
    tokens: usize,
) -> Result<Expanded, Error> {
    let mut problems = Problems::default();
    let kinds = kind_defaults(preset, &mut problems)?;
    let mut expander = Expander {
        preset: preset.node.get("method").expect("a preset has a method"),
        manifest: &manifest.node,
        kinds,
        overrides: overrides.iter().map(|one| (one, None)).collect(),
        claims,
        tokens,
        problems,
    };
    let base = expander.method(None)?;
    let mut cells = vec![expander.cell("baseline", None, &manifest.value.baseline, "baseline")?];
    for (group, members) in &manifest.value.groups {
        let node = manifest.node.descend("groups");
        validate::name(group, &node.place_of_key(group), &mut expander.problems);
        let node = node.get(group).map_or(node, |node| node.descend("cells"));
        for (label, cell) in &members.cells {
            validate::name(label, &node.place_of_key(label), &mut expander.problems);
            let path = format!("groups.{group}.cells.{label}");
            cells.push(expander.cell(&path, Some(group), cell, label)?);
        }
    }
    expander.unused_overrides();
    let cells = cells.into_iter().flatten().collect();
    let Some(base) = base else { return Err(expander.problems.into_error()) };
    expander.problems.finish(Expanded { base, cells })
}

/// The preset's alternatives, each checked as if it were chosen.
fn kind_defaults(preset: &Loaded<Preset>, problems: &mut Problems) -> Result<KindDefaults, Error> {
    let mut kinds = BTreeMap::new();
    let mut chosen = Vec::new();
    for (path, entry) in preset.node.get("alternatives").and_then(Node::map).into_iter().flatten() {
        for (kind, fields) in entry.node.map().into_iter().flatten() {
            kinds.insert((path.clone(), kind.clone()), fields.node.clone());
            let text = Node { place: fields.key_place.clone(), value: Value::Text(kind.clone()) };
            let tag = Entry { key_place: fields.key_place.clone(), node: text };
            let choice = Node { place: fields.key_place.clone(), value: Value::Map(Map::from([("kind".into(), tag)])) };
            chosen.push((path, entry.key_place.clone(), choice));
        }
    }
    let kinds = KindDefaults(kinds);
    for (path, place, choice) in chosen {
        let mut method = preset.node.get("method").expect("a preset has a method").clone();
        let set = match below_method(path) {
            Some(below) => overrides::set(&mut method, below, &place, choice, &kinds),
            None => Err(format!("`{path}` is no path below `method`")),
        };
        match set {
            Ok(()) => _ = problems.keep(typed::<Method>(&method, &schema::method(), "method"))?,
            Err(message) => problems.add(&place, message),
        }
    }
    Ok(kinds)
}

struct Expander<'a> {
    preset: &'a Node,
    manifest: &'a Node,
    kinds: KindDefaults,
    /// Each with why it could not be applied to the base, or an empty reason once it has been applied anywhere.
    overrides: Vec<(&'a Override, Option<String>)>,
    claims: &'a [Claim],
    tokens: usize,
    problems: Problems,
}

impl Expander<'_> {
    fn cell(
        &mut self,
        path: &str,
        group: Option<&str>,
        cell: &Cell,
        label: &str,
    ) -> Result<Option<ExpandedCell>, Error> {
        let node = self.manifest.descend(path);
        let Some(method) = self.method(Some(node))? else { return Ok(None) };
        let claim = cell.claim.as_ref().map(|id| (id, self.claims.iter().find(|claim| claim.id == *id)));
        if let Some((id, None)) = claim {
            let hint = allowed(id, self.claims.iter().map(|claim| claim.id.as_str()));
            self.problems.add(&node.place_of("claim"), format!("unknown claim `{id}`{hint}"));
        }
        Ok(Some(ExpandedCell {
            id: group.map_or(label.to_owned(), |group| format!("{group}/{label}")),
            group: group.map(str::to_owned),
            title: cell.title.clone().unwrap_or_else(|| label.to_owned()),
            claim: claim.and_then(|(_, claim)| claim.cloned()),
            method,
        }))
    }

    /// The method of a cell (a node of the manifest), or of the start.
    fn method(&mut self, cell: Option<&Node>) -> Result<Option<Method>, Error> {
        let mut method = self.preset.clone();
        let mut start = self.manifest.descend("method").clone();
        start.map_mut().expect("checked").shift_remove("preset");
        method.merge(start, "method", &self.kinds);
        if let Some(cell) = cell {
            if let Some(choice) = cell.get("method") {
                method.merge(choice.clone(), "method", &self.kinds);
            }
            for (path, entry) in cell.get("set").and_then(Node::map).into_iter().flatten() {
                let set = match below_method(path) {
                    Some(below) => {
                        overrides::set(&mut method, below, &entry.key_place, entry.node.clone(), &self.kinds)
                    }
                    None => {
                        Err(format!("a cell sets paths below `method` only, not `{path}`: the scale fixes the rest"))
                    }
                };
                if let Err(message) = set {
                    self.problems.add(&entry.key_place, message);
                }
            }
        }
        for (one, why_not) in &mut self.overrides {
            let below = one.below_method().expect("an override of the method");
            match overrides::set(&mut method, below, &one.place, one.value.clone(), &self.kinds) {
                Ok(()) => *why_not = Some(String::new()),
                Err(message) => _ = why_not.get_or_insert(message),
            }
        }
        let Some(typed) = self.problems.keep(typed::<Method>(&method, &schema::method(), "method"))? else {
            return Ok(None);
        };
        Checked { node: &method, problems: &mut self.problems }.method(&typed, self.tokens);
        Ok(Some(typed))
    }

    /// An override that fits no cell is a mistake.
    fn unused_overrides(&mut self) {
        for (one, why_not) in &self.overrides {
            if let Some(message) = why_not.as_ref().filter(|message| !message.is_empty()) {
                self.problems.add(&one.place, message.as_str());
            }
        }
    }
}
