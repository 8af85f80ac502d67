//! `runner show`: one stage (parameters, record, logs) or one cell (its chain of stages).

use std::path::PathBuf;

use serde::Serialize;
use store::{Failure as StageFailure, Record, Status};

use crate::exit::{Exit, Failure};
use crate::inventory::{Found, by_digits};
use crate::output::columns;
use crate::session::Session;

/// What is shown of a stage.
#[derive(Serialize)]
struct Shown {
    kind: String,
    key: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
    logs: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<StageFailure>,
}

/// Shows a stage or a cell.
///
/// # Errors
/// When there is no such stage or cell, or it cannot be read.
pub(crate) fn run(session: &Session, what: &str) -> Result<Exit, Failure> {
    if !what.contains(':') && what.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return show_stage(session, &by_digits(session.results(), what)?);
    }
    let (artifact, cell) = artifact_and_cell(session, what)?;
    show_cell(session, &artifact, cell)
}

/// The artifact and the cell of `table4:b/hard`, or of `b/hard`.
///
/// # Errors
/// There is no artifact that could have a cell.
pub(super) fn artifact_and_cell<'a>(session: &Session, what: &'a str) -> Result<(String, &'a str), Failure> {
    match what.split_once(':') {
        Some((artifact, cell)) => Ok((artifact.to_owned(), cell)),
        None => Ok((artifact_with(session, what)?, what)),
    }
}

/// The first artifact that has a cell; the first of all where none has it, so that the nearest cell is named.
fn artifact_with(session: &Session, cell: &str) -> Result<String, Failure> {
    let mut artifacts = session.workspace().artifacts();
    if artifacts.is_empty() {
        return Err(Failure::Usage(format!(
            "`{cell}` is no key, and there is no artifact that could have such a cell"
        )));
    }
    for artifact in &artifacts {
        if session.plan(artifact).is_ok_and(|plan| plan.cell(cell).is_some()) {
            return Ok(artifact.clone());
        }
    }
    Ok(artifacts.swap_remove(0))
}

fn show_stage(session: &Session, found: &Found) -> Result<Exit, Failure> {
    let Found { kind, key } = found;
    let tree = session.store().tree();
    let mut shown = Shown {
        kind: kind.clone(),
        key: key.to_string(),
        state: "missing",
        why: None,
        folder: None,
        logs: tree.logs(*key, kind)?,
        record: None,
        failure: None,
    };
    match session.store().status(*key, kind)? {
        Status::Done(record) => {
            shown.state = "done";
            shown.folder = Some(tree.dir(*key, kind));
            shown.record = Some(*record);
        }
        Status::Running(owner) => (shown.state, shown.why) = ("running", Some(owner.to_string())),
        Status::Partial { .. } => shown.state = "interrupted",
        Status::Failed(failure) => {
            (shown.state, shown.why) = ("failed", Some(failure.reason.clone()));
            shown.failure = Some(failure);
        }
        Status::Corrupt(damage) => (shown.state, shown.why) = ("damaged", Some(damage)),
        Status::Missing => {}
    }
    session.output.emit(&shown, text(&shown))?;
    Ok(Exit::Done)
}

fn text(shown: &Shown) -> String {
    let mut text = format!("{} {}: {}", shown.kind, shown.key, shown.state);
    if let Some(why) = &shown.why {
        text.push_str(&format!(" ({why})"));
    }
    text.push('\n');
    if let Some(folder) = &shown.folder {
        text.push_str(&format!("folder: {}\n", folder.display()));
    }
    for log in &shown.logs {
        text.push_str(&format!("log: {}\n", log.display()));
    }
    if let Some(record) = &shown.record {
        let json = serde_json::to_string_pretty(record).unwrap_or_default();
        text.push_str(&json);
        text.push('\n');
    }
    text
}

fn show_cell(session: &Session, artifact: &str, id: &str) -> Result<Exit, Failure> {
    let plan = session.plan(artifact)?;
    if plan.is_recipe() {
        let advice = format!("`runner status {artifact}` lists its stages, `runner show KEY` prints one");
        return Err(Failure::Usage(format!("`{artifact}` is a recipe, it has no cells; {advice}")));
    }
    let cell = super::cell(&plan, id)?;
    let mut rows = vec![["seed", "stage", "key", "state", "metrics"].map(str::to_owned).to_vec()];
    let mut stages = Vec::new();
    for run in &cell.runs {
        for stage in run.keys().filter_map(|key| plan.stage(key)) {
            let kind = stage.stage.kind();
            let status = session.store().status(stage.key, kind)?;
            let metrics = match &status {
                Status::Done(record) => record.metrics.clone(),
                _ => Default::default(),
            };
            let state = match &status {
                Status::Done(_) => "done",
                Status::Running(_) => "running",
                Status::Partial { .. } => "interrupted",
                Status::Failed(_) => "failed",
                Status::Corrupt(_) => "damaged",
                Status::Missing => "missing",
            };
            let shown: Vec<String> = metrics.iter().take(4).map(|(name, value)| format!("{name} {value:.6}")).collect();
            rows.push(vec![
                run.seed.to_string(),
                kind.to_owned(),
                stage.key.short(),
                state.to_owned(),
                shown.join(", "),
            ]);
            stages.push(serde_json::json!({
                "seed": run.seed, "kind": kind, "key": stage.key.to_string(), "state": state, "metrics": metrics,
            }));
        }
    }
    let method = serde_json::to_value(&cell.method).map_err(anyhow::Error::from)?;
    let object = serde_json::json!({
        "cell": cell.id, "title": cell.title, "method": method, "same_run_as": cell.same_run_as,
        "identical_by_construction": cell.identical_by_construction, "stages": stages,
    });
    let mut text = format!("{}: {}\n", cell.id, cell.title);
    for (what, other) in
        [("same run as", &cell.same_run_as), ("identical by construction to", &cell.identical_by_construction)]
    {
        if let Some(other) = other {
            text.push_str(&format!("{what} {other}\n"));
        }
    }
    text.push_str(&format!("{}\n\n{}", serde_json::to_string_pretty(&method).unwrap_or_default(), columns(&rows)));
    session.output.emit(&object, text)?;
    Ok(Exit::Done)
}
