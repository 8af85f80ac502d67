//! `runner gc`: what no manifest asks for any more.

use std::collections::{BTreeMap, BTreeSet};

use manifest::digest::{Digest, Key};
use manifest::plan::Input;
use serde::Serialize;
use store::gc::Reason;
use store::{Record, RecordedInput};

use crate::exit::{Exit, Failure};
use crate::session::Session;

/// What can go, or what went.
#[derive(Serialize)]
struct Collected {
    deleted: bool,
    bytes: u64,
    items: Vec<store::gc::Garbage>,
}

/// Lists what can go; deletes it where that is asked for. Everything that a manifest or recipe asks for at any scale stays,
/// at the seeds and with the overrides that were typed. Where data of one is missing, its keys are not known: then what was
/// made of files that no plan names stays too, and what is unfinished.
///
/// # Errors
/// When a manifest is wrong: what it asks for is then not known, and nothing is deleted.
pub(crate) fn run(session: &Session, delete: bool) -> Result<Exit, Failure> {
    let (mut keep, mut files, mut not_counted) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let workspace = session.workspace();
    let at_scales = workspace
        .artifacts()
        .into_iter()
        .flat_map(|artifact| workspace.scales().into_iter().map(move |scale| (artifact.clone(), scale)));
    let recipes = workspace.recipes().into_iter().map(|recipe| (recipe, session.options.scale.clone()));
    for (name, scale) in at_scales.chain(recipes) {
        match session.plan_at(&name, &scale) {
            Ok(plan) => {
                keep.extend(plan.stages.iter().map(|stage| stage.key));
                files.extend(plan.stages.iter().flat_map(|stage| stage.inputs.values()).filter_map(digest));
                if plan.missing.is_some() {
                    not_counted.push(format!("a part of {name} at {scale}"));
                }
            }
            Err(Failure::Manifest(manifest::Error::Missing(_))) => not_counted.push(format!("{name} at {scale}")),
            Err(other) => return Err(other),
        }
    }
    let tree = session.store().tree();
    if !not_counted.is_empty() {
        keep.extend(of_other_files(&tree.records()?, &files));
        let list = not_counted.join(", ");
        session.say(format_args!(
            "kept: what was made of files that no plan names, and what is unfinished; data is missing for {list}"
        ));
    }
    let mut listed = store::gc::list(tree, &keep)?;
    listed.retain(|item| not_counted.is_empty() || item.reason != Reason::UnusedPartial);
    let items = if delete { store::gc::remove(tree, listed)? } else { listed };
    let bytes = items.iter().map(|item| item.bytes).sum();
    let mut text = String::new();
    for item in &items {
        let reason = match item.reason {
            Reason::Unused => "no manifest asks for it",
            Reason::UnusedPartial => "unfinished, and no manifest asks for it",
            Reason::Leftover => "left by a killed process",
        };
        text.push_str(&format!("{}: {reason}, {:.1} MB\n", item.path.display(), item.bytes as f64 / 1e6));
    }
    let what = if delete { "deleted" } else { "can go; `--delete` deletes them" };
    text.push_str(&format!("{} items, {:.1} MB {what}", items.len(), bytes as f64 / 1e6));
    session.output.emit(&Collected { deleted: delete, bytes, items }, text)?;
    Ok(Exit::Done)
}

/// The content of an input that is a file.
fn digest(input: &Input) -> Option<Digest> {
    match input {
        Input::File { sha256, .. } => Some(*sha256),
        Input::Stage(_) => None,
    }
}

/// Stages that were made, at any remove, of a file that is not among `files`, or of a stage that is not there.
fn of_other_files(records: &[Record], files: &BTreeSet<Digest>) -> BTreeSet<Key> {
    let by_key: BTreeMap<Key, &Record> = records.iter().map(|record| (record.key, record)).collect();
    let mut others = BTreeSet::new();
    loop {
        let before = others.len();
        for record in records {
            let is_other = record.inputs.values().any(|input| match input {
                RecordedInput::File(sha256) => !files.contains(sha256),
                RecordedInput::Stage(key) => others.contains(key) || !by_key.contains_key(key),
            });
            if is_other {
                others.insert(record.key);
            }
        }
        if others.len() == before {
            return others;
        }
    }
}
