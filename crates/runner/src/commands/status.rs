//! `runner status`: how many stages are done, running, interrupted, failed; and which need a look.

use std::collections::BTreeMap;

use manifest::digest::Key;
use serde::Serialize;
use store::Status;

use crate::exit::{Exit, Failure};
use crate::inventory;
use crate::output::columns;
use crate::session::Session;
use crate::tasks::Stages;

/// Counts of stages of one kind.
#[derive(Clone, Debug, Default, Serialize)]
struct Counts {
    done: usize,
    running: usize,
    interrupted: usize,
    failed: usize,
    damaged: usize,
    missing: usize,
}

/// A stage that is neither done nor missing.
#[derive(Serialize)]
struct Notable {
    key: Key,
    stage: String,
    state: &'static str,
    why: String,
}

/// Says how far an artifact is, or everything in the results tree.
///
/// # Errors
/// When there is no plan, or the results tree cannot be read.
pub(crate) fn run(session: &Session, artifact: Option<&str>) -> Result<Exit, Failure> {
    let mut stages: Vec<(Key, String, String)> = Vec::new();
    match artifact {
        Some(artifact) => {
            let plans = session.plans(&[artifact.to_owned()])?;
            let planned = Stages::of(&plans);
            stages.extend(
                planned
                    .iter()
                    .map(|stage| (stage.key, stage.stage.kind().to_owned(), planned.label(stage.key).to_owned())),
            );
        }
        None => stages.extend(inventory::stages(session.results()).into_iter().map(|found| {
            let label = format!("{} {}", found.kind, found.key.short());
            (found.key, found.kind, label)
        })),
    }
    let mut kinds: Vec<String> = Vec::new();
    let mut of_kind: BTreeMap<String, Counts> = BTreeMap::new();
    let mut notable = Vec::new();
    for (key, kind, stage) in stages {
        let status = session.store().status(key, &kind)?;
        if !kinds.contains(&kind) {
            kinds.push(kind.clone());
        }
        let counts = of_kind.entry(kind).or_default();
        let (count, note) = match status {
            Status::Done(_) => (&mut counts.done, None),
            Status::Running(owner) => (&mut counts.running, Some(("running", owner.to_string()))),
            Status::Partial { attempts } => {
                (&mut counts.interrupted, Some(("interrupted", format!("attempts: {attempts}"))))
            }
            Status::Failed(failure) => (&mut counts.failed, Some(("failed", failure.reason))),
            Status::Corrupt(damage) => (&mut counts.damaged, Some(("damaged", damage))),
            Status::Missing => (&mut counts.missing, None),
        };
        *count += 1;
        notable.extend(note.map(|(state, why)| Notable { key, stage, state, why }));
    }
    if session.output.is_json() {
        session.output.object(&of_kind)?;
        for stage in &notable {
            session.output.object(stage)?;
        }
        return Ok(Exit::Done);
    }
    if kinds.is_empty() {
        session.output.line(format!("nothing has been run in {} yet", session.results().display()))?;
        return Ok(Exit::Done);
    }
    let mut rows =
        vec![["stage", "done", "running", "interrupted", "failed", "damaged", "missing"].map(str::to_owned).to_vec()];
    for kind in kinds {
        let counts = &of_kind[&kind];
        let numbers = [counts.done, counts.running, counts.interrupted, counts.failed, counts.damaged, counts.missing];
        rows.push(std::iter::once(kind).chain(numbers.map(|number| number.to_string())).collect());
    }
    session.output.line(columns(&rows))?;
    if !notable.is_empty() {
        let row =
            |stage: &Notable| vec![stage.key.short(), stage.stage.clone(), stage.state.to_owned(), stage.why.clone()];
        session.output.line("")?;
        session.output.line(columns(&notable.iter().map(row).collect::<Vec<_>>()))?;
    }
    Ok(Exit::Done)
}
