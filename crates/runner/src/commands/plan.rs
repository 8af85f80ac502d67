//! `runner plan`: what is done, what will run, and why.

use std::collections::BTreeMap;
use std::fmt::Write;

use manifest::plan::{Plan, Unmeasured};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::explain::{Explained, History, Prospect, explain};
use crate::output::{columns, counted, duration, prefixed};
use crate::session::Session;
use crate::tasks::Stages;

/// Counts of a plan.
#[derive(Default, Serialize)]
struct Summary {
    stages: usize,
    done: usize,
    running: usize,
    will_run: usize,
    will_not_run: usize,
    /// Arithmetic of the stages that will run.
    flops: f64,
    /// Time that they would take one after another at the rates measured here; absent where a kind was never measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// Stages of one kind.
#[derive(Default)]
struct OfKind {
    done: usize,
    will_run: usize,
    other: usize,
    flops: f64,
    units: f64,
    unit: &'static str,
}

/// Plans an artifact and says so.
///
/// # Errors
/// When there is no plan, or the results tree cannot be read.
pub(crate) fn run(session: &Session, artifact: &str, why: bool) -> Result<Exit, Failure> {
    let plans = session.plans(&[artifact.to_owned()])?;
    for plan in &plans {
        super::say_not_run(session, plan);
    }
    let stages = Stages::of(&plans);
    let history = History::of(session.store());
    let explained = explain(&stages, session.store(), session.mode(), &history)?;
    let summary = summary(&explained, &history, session.slots().jobs);
    if session.output.is_json() {
        for stage in explained.iter().filter(|_| why) {
            session.output.object(stage)?;
        }
        session.output.object(&summary)?;
        return Ok(Exit::Done);
    }
    if why {
        let row = |stage: &Explained| vec![stage.key.short(), stage.label.clone(), stage.prospect.to_string()];
        session.output.line(columns(&explained.iter().map(row).collect::<Vec<_>>()))?;
        session.output.line("")?;
        let unmeasured: String = plans.iter().map(unmeasured).collect();
        if !unmeasured.is_empty() {
            session.output.line(unmeasured)?;
        }
    }
    session.output.line(table(&explained))?;
    let mut line = format!(
        "{}: {}, {} done, {} will run",
        if artifact == "all" { artifact } else { &plans[0].artifact },
        counted(summary.stages, "stage"),
        summary.done,
        summary.will_run
    );
    for (count, what) in [(summary.running, "running"), (summary.will_not_run, "will not run")] {
        if count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    }
    if summary.will_run > 0 {
        let _ = write!(line, "; {}flop", prefixed(summary.flops));
        match summary.seconds {
            Some(seconds) => drop(write!(line, ", about {} at the rates measured here", duration(seconds))),
            None => line.push_str(", time unknown until stages of each kind have run here"),
        }
    }
    session.output.line(line)?;
    if !why && summary.will_run + summary.will_not_run > 0 {
        session.output.line("`--explain` says why, for every stage")?;
    }
    Ok(Exit::Done)
}

/// What is not measured of a plan and why, a line each; nothing where all is.
fn unmeasured(plan: &Plan) -> String {
    let mut lines = String::new();
    for table in &plan.tables {
        let block = table.block.as_ref().map_or(String::new(), |block| format!("/{}", block.id));
        for Unmeasured { measure, reason } in &table.unmeasured {
            let _ = writeln!(lines, "{}{block} does not measure {}: {reason}", plan.artifact, measure.title());
        }
    }
    lines
}

fn summary(explained: &[Explained], history: &History, jobs: usize) -> Summary {
    let mut summary = Summary { stages: explained.len(), ..Summary::default() };
    let mut seconds = Some(0.0);
    for stage in explained {
        match &stage.prospect {
            Prospect::Done { .. } => summary.done += 1,
            Prospect::Running { .. } => summary.running += 1,
            Prospect::Stands { .. } | Prospect::WillNotRun { .. } => summary.will_not_run += 1,
            Prospect::WillRun { .. } => {
                summary.will_run += 1;
                summary.flops += stage.flops;
                let rate = history.rate(stage.kind);
                seconds = seconds.zip(rate).map(|(sum, rate)| sum + stage.flops / rate);
            }
        }
    }
    summary.seconds = seconds.filter(|_| summary.will_run > 0).map(|seconds| seconds / jobs as f64);
    summary
}

fn table(explained: &[Explained]) -> String {
    let mut kinds: Vec<&'static str> = Vec::new();
    let mut of_kind: BTreeMap<&'static str, OfKind> = BTreeMap::new();
    for stage in explained {
        if !kinds.contains(&stage.kind) {
            kinds.push(stage.kind);
        }
        let counts = of_kind.entry(stage.kind).or_default();
        counts.unit = stage.unit;
        match stage.prospect {
            Prospect::Done { .. } => counts.done += 1,
            Prospect::WillRun { .. } => {
                counts.will_run += 1;
                counts.flops += stage.flops;
                counts.units += stage.units;
            }
            Prospect::Running { .. } | Prospect::Stands { .. } | Prospect::WillNotRun { .. } => counts.other += 1,
        }
    }
    let mut rows = vec![["stage", "done", "will run", "other", "to do"].map(str::to_owned).to_vec()];
    for kind in kinds {
        let counts = &of_kind[kind];
        let to_do = match counts.will_run {
            0 => String::new(),
            _ => format!("{} {}, {}flop", counts.units, counts.unit, prefixed(counts.flops)),
        };
        let count = |count: usize| count.to_string();
        rows.push(vec![kind.to_owned(), count(counts.done), count(counts.will_run), count(counts.other), to_do]);
    }
    columns(&rows)
}
