//! `runner sweep` and `run`: brings stages to their end, and says how they ended.

use std::collections::BTreeSet;

use manifest::plan::{CellRun, PlannedStage};
use serde::Serialize;

use crate::ending::{self, Ending};
use crate::executor::{Executor, Task};
use crate::exit::{Exit, Failure};
use crate::explain::History;
use crate::output::{counted, duration};
use crate::session::Session;
use crate::signals::StopRequests;
use crate::tasks::Stages;

/// What a child process takes to start and to commit.
const STARTING_SECONDS: f64 = 0.1;
/// Floating-point operations a second where none were measured: only the proportions matter.
const USUAL_RATE: f64 = 1e10;

/// How a stage ended, for `--json`.
#[derive(Serialize)]
struct Ended<'a> {
    key: String,
    label: &'a str,
    #[serde(flatten)]
    ending: &'a Ending,
}

/// How all ended, for `--json`.
#[derive(Default, Serialize)]
struct Tally {
    stages: usize,
    already_done: usize,
    done: usize,
    diverged: usize,
    failed: usize,
    blocked: usize,
    skipped: usize,
    missing: usize,
    /// Interrupted, or not reached.
    left: usize,
    seconds: f64,
}

/// `runner sweep`: every cell of some manifests.
///
/// # Errors
/// When there is no plan, or the results tree cannot be used.
pub(crate) fn sweep(session: &Session, manifests: &[String]) -> Result<Exit, Failure> {
    let plans = session.plans(manifests)?;
    execute(session, &Stages::of(&plans))
}

/// `runner run`: a recipe, or some cells of a manifest.
///
/// # Errors
/// As [`sweep`], and for an unknown cell.
pub(crate) fn run(session: &Session, manifest: &str, cells: &[String]) -> Result<Exit, Failure> {
    let plans = [session.plan(manifest)?];
    let stages = Stages::of(&plans);
    if cells.is_empty() {
        return execute(session, &stages);
    }
    if plans[0].is_recipe() {
        let problem = format!("{} is a recipe, it has no cells", plans[0].file.display());
        return Err(Failure::Usage(format!("{problem}\n  leave `--cell` out to run it")));
    }
    let mut wanted = BTreeSet::new();
    for id in cells {
        wanted.extend(super::cell(&plans[0], id)?.runs.iter().flat_map(CellRun::keys));
    }
    execute(session, &stages.needed_for(wanted))
}

/// Brings stages to their end.
///
/// # Errors
/// When the device is missing, or the results tree cannot be used.
pub(crate) fn execute(session: &Session, stages: &Stages<'_>) -> Result<Exit, Failure> {
    let started = std::time::Instant::now();
    session.device().check().map_err(Failure::NoDevice)?;
    let mut inspection = engine::Inspection::default();
    for planned in stages.iter() {
        let bad = |error| Failure::BadWeights(format!("{}: {}", stages.label(planned.key), engine::causes(&error)));
        inspection.look(planned).map_err(bad)?;
    }
    let store = session.store();
    let checkout = store::Checkout::of(session.root(), &[session.results(), session.reports()]);
    let history = History::of(store);
    let seconds = |planned: &PlannedStage| {
        STARTING_SECONDS + stages.work(planned).flops / history.rate(planned.stage.kind()).unwrap_or(USUAL_RATE)
    };
    let tasks = stages.tasks(session.results(), &checkout, session.device(), &seconds);
    let stop = StopRequests::listen().map_err(|error| anyhow::anyhow!("signals cannot be caught: {error}"))?;
    let endings = Executor::new(&tasks, store, session.mode(), session.slots()).run(&stop);
    let exit = ending::exit(&endings, stop.count() > 0);
    let ran = |ending: &Ending| matches!(ending, Ending::Done | Ending::Diverged { .. });
    if endings.iter().flatten().any(ran)
        && let Err(error) = store::index::rebuild(store.tree())
    {
        // It can be made at any time and nothing depends on it.
        session.say(format_args!("the index of the results is not up to date: {error}"));
    }
    tell(session, &tasks, &endings, started.elapsed().as_secs_f64())?;
    if exit == Exit::Interrupted {
        session.say("interrupted; what is done is kept. Type the same command again to go on");
    }
    Ok(exit)
}

/// Says how stages ended.
fn tell(session: &Session, tasks: &[Task], endings: &[Option<Ending>], seconds: f64) -> Result<(), Failure> {
    let mut tally = Tally { stages: tasks.len(), seconds, ..Tally::default() };
    for ending in endings {
        let count = match ending {
            Some(Ending::Cached) => &mut tally.already_done,
            Some(Ending::Done) => &mut tally.done,
            Some(Ending::Diverged { .. }) => &mut tally.diverged,
            Some(Ending::Failed { .. } | Ending::FailedBefore { .. }) => &mut tally.failed,
            Some(Ending::Blocked) => &mut tally.blocked,
            Some(Ending::Skipped) => &mut tally.skipped,
            Some(Ending::Missing) => &mut tally.missing,
            Some(Ending::Interrupted) | None => &mut tally.left,
        };
        *count += 1;
    }
    if session.output.is_json() {
        for (task, ending) in tasks.iter().zip(endings) {
            if let Some(ending) = ending {
                session.output.object(&Ended {
                    key: task.order.planned.key.to_string(),
                    label: &task.label,
                    ending,
                })?;
            }
        }
        return session.output.object(&tally);
    }
    for (task, ending) in tasks.iter().zip(endings) {
        let key = task.order.planned.key.short();
        match ending {
            Some(Ending::Failed { error, .. }) => {
                let next = format!("`runner logs {key}` shows its log");
                session.say(format_args!("error: {} ({key}) failed: {error}\n  {next}", task.label));
            }
            Some(Ending::FailedBefore { error }) => {
                let next = "`--mode retry` runs it again";
                session.say(format_args!("error: {} ({key}) failed before: {error}\n  {next}", task.label));
            }
            _ => {}
        }
    }
    let counts = [
        (tally.already_done, "already done"),
        (tally.done, "done now"),
        (tally.diverged, "diverged"),
        (tally.failed, "failed"),
        (tally.blocked, "blocked by failures"),
        (tally.skipped, "skipped after divergence"),
        (tally.missing, "missing"),
        (tally.left, "left to do"),
    ];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    session.output.line(format!("{}: {} ({})", counted(tally.stages, "stage"), counts.join(", "), duration(seconds)))
}
