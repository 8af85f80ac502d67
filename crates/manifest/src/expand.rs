//! From a manifest as written to its cells, each with every field of its method explicit.
//!
//! Merge order: preset, the manifest's `method`, the command line, the cell's `method`, the cell's `set`. So the command
//! line changes what cells start from, and never what a cell is about.

use std::collections::BTreeMap;

use crate::block::{Block, Member};
use crate::claim::Claim;
use crate::denoiser::Denoiser;
use crate::files::{Loaded, typed};
use crate::manifest::Manifest;
use crate::method::Method;
use crate::overrides::{self, Override, below_method};
use crate::plan::NotRun;
use crate::preset::Preset;
use crate::problem::{Error, Place, Problems};
use crate::scale::Weights;
use crate::schema;
use crate::tree::{Entry, KindDefaults, Map, Node, Value};
use crate::validate::Checked;

/// The cells of one table of a manifest, the baseline first.
pub(crate) struct Expanded {
    /// The method that cells start from.
    pub(crate) base: Method,
    pub(crate) cells: Vec<ExpandedCell>,
    /// Those that say themselves that they cannot be run.
    pub(crate) not_run: Vec<NotRun>,
}

/// A cell with its method complete.
pub(crate) struct ExpandedCell {
    pub(crate) id: String,
    pub(crate) group: Option<String>,
    pub(crate) title: String,
    pub(crate) claim: Option<Claim>,
    pub(crate) further_claims: Vec<Claim>,
    pub(crate) share: f64,
    /// What was trained elsewhere, and where the manifest says so.
    pub(crate) trained: Option<(Weights, Place)>,
    pub(crate) classes: Vec<u32>,
    pub(crate) method: Method,
}

/// Expands a block of a manifest for a scale's backbone.
pub(crate) fn expand(
    manifest: &Loaded<Manifest>,
    block: Block<'_>,
    preset: &Loaded<Preset>,
    overrides: &[Override],
    claims: &[Claim],
    denoiser: &Denoiser,
) -> Result<Expanded, Error> {
    let mut problems = Problems::default();
    let kinds = kind_defaults(preset, &mut problems)?;
    let mut expander = Expander {
        preset: preset.node.get("method").expect("a preset has a method"),
        manifest: &manifest.node,
        kinds,
        overrides: overrides.iter().map(Reached::new).collect(),
        claims,
        denoiser,
        problems,
    };
    let base = expander.method(None)?;
    let (mut cells, mut not_run) = (Vec::new(), Vec::new());
    for member in block.members(&manifest.value) {
        match &member.cell.not_run {
            Some(reason) => not_run.push(member.not_run(claims, reason)),
            None => cells.push(expander.cell(&member)?),
        }
    }
    if let Block::Own { group, .. } = block
        && !block.captions(&manifest.value).is_empty()
        && denoiser.text_width().is_none()
    {
        let place = manifest.node.place_of(&format!("groups.{group}.captions"));
        let message = "`captions` has none to show: the backbone is not conditioned on text";
        expander.problems.add(&place, message);
    }
    expander.unused_overrides();
    let cells = cells.into_iter().flatten().collect();
    let Some(base) = base else { return Err(expander.problems.into_error()) };
    expander.problems.finish(Expanded { base, cells, not_run })
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

/// An override of the method, and what became of it.
struct Reached<'a> {
    one: &'a Override,
    /// Why not, of the first method that it does not fit.
    why_not: Option<String>,
    /// Whether it fits any method.
    fits: bool,
    /// Whether any cell keeps it.
    kept: bool,
    /// Cells that set its key themselves.
    set_by: Vec<String>,
}

impl<'a> Reached<'a> {
    fn new(one: &'a Override) -> Self {
        Self { one, why_not: None, fits: false, kept: false, set_by: Vec::new() }
    }

    /// Lays it onto a method; whether it fits.
    fn lay(&mut self, method: &mut Node, kinds: &KindDefaults) -> bool {
        let below = self.one.below_method().expect("an override of the method");
        let set = overrides::set(method, below, &self.one.place, self.one.value.clone(), kinds);
        let fits = set.is_ok();
        self.fits |= fits;
        if let Err(message) = set {
            self.why_not.get_or_insert(message);
        }
        fits
    }

    /// Notes whether a cell's own settings, laid over it, left anything of it.
    fn note(&mut self, id: &str, method: &Node) {
        let below = self.one.below_method().expect("an override of the method");
        match typed_on_the_command_line(method.descend(below)) {
            true => self.kept = true,
            false => self.set_by.push(id.to_owned()),
        }
    }

    /// What is wrong with it, if no cell keeps it.
    fn problem(&self) -> Option<String> {
        match &self.why_not {
            _ if self.kept => None,
            _ if !self.set_by.is_empty() => {
                let (path, cells) = (&self.one.path, self.set_by.join(", "));
                Some(format!("has no effect: every cell that has `{path}` sets it itself ({cells}); change it there"))
            }
            why_not => why_not.clone().filter(|_| !self.fits),
        }
    }
}

/// Whether any value of a tree comes from the command line.
fn typed_on_the_command_line(node: &Node) -> bool {
    match node.map() {
        Some(entries) if !entries.is_empty() => entries.values().any(|entry| typed_on_the_command_line(&entry.node)),
        _ => matches!(node.place, Place::Option(_)),
    }
}

/// Lays a cell's own `method` and `set` onto a method; what is wrong with them.
fn lay_own(method: &mut Node, cell: &Node, kinds: &KindDefaults) -> Vec<(Place, String)> {
    if let Some(choice) = cell.get("method") {
        method.merge(choice.clone(), "method", kinds);
    }
    let mut wrong = Vec::new();
    for (path, entry) in cell.get("set").and_then(Node::map).into_iter().flatten() {
        let set = match below_method(path) {
            Some(below) => overrides::set(method, below, &entry.key_place, entry.node.clone(), kinds),
            None => Err(format!("a cell sets paths below `method` only, not `{path}`: the scale fixes the rest")),
        };
        if let Err(message) = set {
            wrong.push((entry.key_place.clone(), message));
        }
    }
    wrong
}

struct Expander<'a> {
    preset: &'a Node,
    manifest: &'a Node,
    kinds: KindDefaults,
    overrides: Vec<Reached<'a>>,
    claims: &'a [Claim],
    denoiser: &'a Denoiser,
    problems: Problems,
}

impl Expander<'_> {
    fn cell(&mut self, member: &Member<'_>) -> Result<Option<ExpandedCell>, Error> {
        let (cell, node) = (member.cell, self.manifest.descend(&member.path));
        let Some(method) = self.method(Some((&member.id, node)))? else { return Ok(None) };
        if !cell.classes.is_empty() && self.denoiser.classes().is_none() {
            self.problems.add(&node.place_of("classes"), "`classes` has none to show: the backbone is unconditional");
        }
        if cell.trained.is_some() {
            let mut conflict = |key: &str, message: &str| self.problems.add(&node.place_of(key), message);
            if matches!(method, Method::Pretrained(_)) {
                conflict("trained", "`trained` has nothing to hold: the method `pretrained` trains nothing");
            }
            if cell.share.is_some() {
                conflict("share", "`share` is of a training, and what `trained` names has none here");
            }
        }
        let known = |id: &String| self.claims.iter().find(|claim| claim.id == *id).cloned();
        Ok(Some(ExpandedCell {
            id: member.id.clone(),
            group: member.group.map(str::to_owned),
            title: member.title(),
            claim: cell.claim.as_ref().and_then(known),
            further_claims: cell.further_claims.iter().filter_map(known).collect(),
            share: cell.share.unwrap_or(1.0),
            trained: cell.trained.clone().map(|file| (file, node.place_of("trained.file"))),
            classes: cell.classes.clone(),
            method,
        }))
    }

    /// The method of a cell (its id and its node in the manifest), or of the start.
    fn method(&mut self, cell: Option<(&str, &Node)>) -> Result<Option<Method>, Error> {
        let mut method = self.preset.clone();
        let mut start = self.manifest.descend("method").clone();
        start.map_mut().expect("checked").shift_remove("preset");
        method.merge(start, "method", &self.kinds);
        // A cell's own settings come first too, so that options reach the other fields of a kind that only it chooses.
        if let Some((_, cell)) = cell {
            lay_own(&mut method, cell, &self.kinds);
        }
        let fits: Vec<bool> = self.overrides.iter_mut().map(|one| one.lay(&mut method, &self.kinds)).collect();
        if let Some((id, cell)) = cell {
            for (place, message) in lay_own(&mut method, cell, &self.kinds) {
                self.problems.add(&place, message);
            }
            let fitting = self.overrides.iter_mut().zip(fits).filter(|(_, fits)| *fits);
            fitting.for_each(|(one, _)| one.note(id, &method));
        }
        let Some(typed) = self.problems.keep(typed::<Method>(&method, &schema::method(), "method"))? else {
            return Ok(None);
        };
        Checked { node: &method, problems: &mut self.problems }.method(&typed, self.denoiser);
        Ok(Some(typed))
    }

    /// An override that no cell keeps is a mistake.
    fn unused_overrides(&mut self) {
        for reached in &self.overrides {
            if let Some(message) = reached.problem() {
                self.problems.add(&reached.one.place, message);
            }
        }
    }
}
