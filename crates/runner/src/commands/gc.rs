//! `runner gc`: what no manifest asks for any more.

use std::collections::BTreeSet;

use serde::Serialize;

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
/// at the seeds and with the overrides that were typed.
///
/// # Errors
/// When a manifest is wrong: what it asks for is then not known, and nothing is deleted.
pub(crate) fn run(session: &Session, delete: bool) -> Result<Exit, Failure> {
    let mut keep = BTreeSet::new();
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
                if let Some(missing) = plan.missing {
                    let problem =
                        format!("a part of {name} at {scale} is not counted, its data is missing:\n{missing}");
                    if delete {
                        return Err(Failure::Usage(problem));
                    }
                    session.say(problem);
                }
            }
            // Without its data a plan has no keys: what was run with that data would be lost.
            Err(Failure::Manifest(error)) => {
                if let manifest::Error::Missing(_) = error
                    && !delete
                {
                    session.say(format_args!("{name} at {scale} is not counted, its data is missing:\n{error}"));
                    continue;
                }
                return Err(Failure::Manifest(error));
            }
            Err(other) => return Err(other),
        }
    }
    let tree = session.store().tree();
    let listed = store::gc::list(tree, &keep)?;
    let items = if delete { store::gc::remove(tree, listed)? } else { listed };
    let bytes = items.iter().map(|item| item.bytes).sum();
    let mut text = String::new();
    for item in &items {
        let reason = match item.reason {
            store::gc::Reason::Unused => "no manifest asks for it",
            store::gc::Reason::UnusedPartial => "unfinished, and no manifest asks for it",
            store::gc::Reason::Leftover => "left by a killed process",
        };
        text.push_str(&format!("{}: {reason}, {:.1} MB\n", item.path.display(), item.bytes as f64 / 1e6));
    }
    let what = if delete { "deleted" } else { "can go; `--delete` deletes them" };
    text.push_str(&format!("{} items, {:.1} MB {what}", items.len(), bytes as f64 / 1e6));
    session.output.emit(&Collected { deleted: delete, bytes, items }, text)?;
    Ok(Exit::Done)
}
