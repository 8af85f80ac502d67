//! The tables as polars frames: every number with full precision, one frame per file. Markdown is rendered from them.

use manifest::plan::{Plan, PlannedGroup, Table};
use metrics::{Difference, FidNoise, Outcome, Spread, Summary, known_fid_noise, relative_gap};
use polars::prelude::*;
use store::Tree;

use crate::error::Error;
use crate::judged::{ALPHA, CONFIDENCE, Comparison, Judged, JudgedCell, POWER};
use crate::observed::{self, Cell, State};

/// One row per cell and seed.
pub(crate) fn runs(plan: &Plan, table: &Table, metric: &str, cells: &[&Cell]) -> Result<DataFrame, Error> {
    let rows: Vec<_> = cells.iter().flat_map(|cell| cell.runs.iter().map(move |run| (*cell, run))).collect();
    let baseline = |seed: u64| cells[0].measured().find(|(other, _)| *other == seed).map(|(_, m)| m.value);
    let value = |state: &State| match state {
        State::Measured(measured) => Some(measured.value),
        State::Diverged { .. } | State::NotRun => None,
    };
    let text = |of: &dyn Fn(&Cell, &crate::observed::Run) -> Option<String>| -> Vec<Option<String>> {
        rows.iter().map(|(cell, run)| of(cell, run)).collect()
    };
    let number = |of: &dyn Fn(&Cell, &crate::observed::Run) -> Option<f64>| -> Vec<Option<f64>> {
        rows.iter().map(|(cell, run)| of(cell, run)).collect()
    };
    let seeds: Vec<u64> = rows.iter().map(|(_, run)| run.keys.seed).collect();
    let frame = df!(
        "artifact" => vec![plan.artifact.clone(); rows.len()],
        "scale" => vec![table.scale_name.clone(); rows.len()],
        "cell" => text(&|cell, _| Some(cell.planned.id.clone())),
        "title" => text(&|cell, _| Some(cell.planned.title.clone())),
        "claim" => text(&|cell, _| cell.planned.claim.as_ref().map(|claim| claim.id.clone())),
        "paper" => number(&|cell, _| cell.planned.claim.as_ref().and_then(|claim| claim.value)),
        "training_seed" => seeds,
        "state" => text(&|_, run| Some(match run.state {
            State::Measured(_) => "measured".to_owned(),
            State::Diverged { iteration } => format!("diverged at iteration {iteration}"),
            State::NotRun => "not run".to_owned(),
        })),
        "metric" => vec![metric; rows.len()],
        "value" => number(&|_, run| value(&run.state)),
        "difference_to_baseline" => number(&|_, run| Some(value(&run.state)? - baseline(run.keys.seed)?)),
        "same_run_as" => text(&|cell, _| cell.planned.same_run_as.clone()),
        "train" => text(&|_, run| run.keys.trained.map(|key| key.to_string())),
        "sample" => text(&|_, run| Some(run.keys.sample.to_string())),
        "metrics" => text(&|_, run| Some(run.keys.metrics.to_string())),
    )?;
    Ok(frame)
}

/// One row per cell: its mean over training seeds and its difference to the baseline.
pub(crate) fn cells(judged: &Judged, groups: &[PlannedGroup]) -> Result<DataFrame, Error> {
    let cells = &judged.cells;
    let text = |of: &dyn Fn(&JudgedCell) -> Option<String>| -> Vec<Option<String>> { cells.iter().map(of).collect() };
    let number = |of: &dyn Fn(&JudgedCell) -> Option<f64>| -> Vec<Option<f64>> { cells.iter().map(of).collect() };
    let group = |id: &String| groups.iter().find(|group| group.id == *id).map(group_title);
    let comparisons: Vec<Option<&Comparison>> = cells.iter().map(|cell| cell.to_baseline.as_ref()).collect();
    let mut frame = df!(
        "group" => text(&|cell| cell.cell.planned.group.clone()),
        "group_title" => text(&|cell| cell.cell.planned.group.as_ref().and_then(group)),
        "cell" => text(&|cell| Some(cell.cell.planned.id.clone())),
        "title" => text(&|cell| Some(cell.cell.planned.title.clone())),
        "claim" => text(&|cell| cell.cell.planned.claim.as_ref().map(|claim| claim.id.clone())),
        "same_run_as" => text(&|cell| cell.cell.planned.same_run_as.clone()),
        "identical_by_construction" => text(&|cell| cell.cell.planned.identical_by_construction.clone()),
        "paper" => number(&|cell| cell.cell.planned.claim.as_ref().and_then(|claim| claim.value)),
        "state" => text(&|cell| Some(state(&cell.cell))),
        "training_seeds" => cells.iter().map(|cell| cell.cell.measured().count() as u32).collect::<Vec<_>>(),
        "mean" => number(&|cell| cell.summary.map(|summary| summary.mean)),
        "standard_deviation" => number(&|cell| cell.summary.and_then(|summary| summary.sd)),
    )?;
    frame.hstack_mut(comparison_columns(&comparisons, judged)?.columns())?;
    Ok(frame)
}

/// One row per comparison of two cells.
pub(crate) fn contrasts(judged: &Judged) -> Result<DataFrame, Error> {
    let comparisons: Vec<Option<&Comparison>> = judged.contrasts.iter().map(Some).collect();
    let ids = |of: fn(&Comparison) -> &String| judged.contrasts.iter().map(|c| of(c).clone()).collect::<Vec<_>>();
    let mut frame = df!("cell" => ids(|c| &c.cell), "against" => ids(|c| &c.against))?;
    frame.hstack_mut(comparison_columns(&comparisons, judged)?.columns())?;
    Ok(frame)
}

/// What is said about a comparison: the paper's difference, ours with its interval, the verdict.
fn comparison_columns(comparisons: &[Option<&Comparison>], judged: &Judged) -> Result<DataFrame, Error> {
    let number = |of: &dyn Fn(&Comparison) -> Option<f64>| -> Vec<Option<f64>> {
        comparisons.iter().map(|comparison| comparison.and_then(of)).collect()
    };
    let measured = |of: &dyn Fn(Difference) -> f64| number(&|comparison| comparison.difference().map(of));
    let text = |of: &dyn Fn(&Comparison) -> Option<String>| -> Vec<Option<String>> {
        comparisons.iter().map(|comparison| comparison.and_then(of)).collect()
    };
    let identical = |comparison: &Comparison| (comparison.outcome == Outcome::Identical).then_some(0.0);
    let frame = df!(
        "paper_difference" => number(&Comparison::paper_gap),
        "paper_gap_to_fid_noise" => text(&|c| {
            // The noise is known of the distance alone.
            let printed = c.printed.filter(|_| judged.metric.is_none());
            printed.map(|(a, b)| known_fid_noise(a, b).to_string())
        }),
        "difference" => number(&|c| c.difference().map(|d| d.estimate).or(identical(c))),
        "low" => measured(&|difference| difference.interval(CONFIDENCE).0),
        "high" => measured(&|difference| difference.interval(CONFIDENCE).1),
        "standard_error" => measured(&|difference| difference.standard_error),
        "degrees_of_freedom" => measured(&|difference| difference.degrees as f64),
        "interval_over" => text(&|c| c.difference().map(|difference| spread(difference.spread).to_owned())),
        "smallest_detectable" => measured(&|difference| difference.detectable(ALPHA, POWER)),
        "verdict" => text(&|c| verdict(c, judged)),
    )?;
    Ok(frame)
}

/// The paper's printed gaps, each pair of its experiments once: cell, against, gap, relative to the mean of both, and
/// what that is to FID.
pub(crate) fn gaps(judged: &Judged) -> Result<DataFrame, Error> {
    let mut rows: Vec<(&Comparison, (f64, f64))> = Vec::new();
    let pair = |c: &Comparison| (experiment(judged, &c.cell), experiment(judged, &c.against));
    let to_baseline = judged.cells.iter().filter_map(|cell| cell.to_baseline.as_ref());
    for comparison in to_baseline.chain(&judged.contrasts) {
        let Some(printed) = comparison.printed else { continue };
        let (own, turned) = (pair(comparison), swapped(pair(comparison)));
        let again = rows.iter().any(|(other, values)| match pair(other) {
            other if other == own => *values == printed,
            other => other == turned && swapped(*values) == printed,
        });
        if !again {
            rows.push((comparison, printed));
        }
    }
    let noise: Vec<FidNoise> = rows.iter().map(|(_, (a, b))| known_fid_noise(*a, *b)).collect();
    let frame = df!(
        "cell" => rows.iter().map(|(c, _)| c.cell.clone()).collect::<Vec<_>>(),
        "against" => rows.iter().map(|(c, _)| c.against.clone()).collect::<Vec<_>>(),
        "paper" => rows.iter().map(|(_, (a, _))| *a).collect::<Vec<_>>(),
        "paper_against" => rows.iter().map(|(_, (_, b))| *b).collect::<Vec<_>>(),
        "gap" => rows.iter().map(|(_, (a, b))| a - b).collect::<Vec<_>>(),
        "relative" => rows.iter().map(|(_, (a, b))| relative_gap(*a, *b)).collect::<Vec<_>>(),
        "noise" => noise.iter().map(ToString::to_string).collect::<Vec<_>>(),
    )?;
    Ok(frame)
}

/// What was measured beside the distance and is not `shown` elsewhere: one row per distinct cell, the means over its
/// training seeds.
pub(crate) fn further(
    plan: &Plan,
    cells: &[&Cell],
    shown: &dyn Fn(&str) -> bool,
    tree: &Tree,
) -> Result<DataFrame, Error> {
    let mut names: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for cell in cells.iter().filter(|cell| cell.planned.same_run_as.is_none()) {
        let mut values = Vec::new();
        for run in &cell.runs {
            values.extend(observed::further(plan, run.keys, tree)?);
        }
        values.retain(|(name, _)| !shown(name));
        for (name, _) in &values {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if !values.is_empty() {
            found.push((cell.planned.id.as_str(), values));
        }
    }
    let mean = |name: &String, values: &[(String, f64)]| {
        let own: Vec<f64> = values.iter().filter(|(other, _)| other == name).map(|(_, value)| *value).collect();
        Summary::of(&own).map(|summary| summary.mean)
    };
    let mut frame = df!("cell" => found.iter().map(|(id, _)| *id).collect::<Vec<_>>())?;
    for name in &names {
        let means: Vec<Option<f64>> = found.iter().map(|(_, values)| mean(name, values)).collect();
        frame.with_column(Column::new(name.as_str().into(), means))?;
    }
    Ok(frame)
}

fn swapped<T>((a, b): (T, T)) -> (T, T) {
    (b, a)
}

/// The paper's experiment behind a cell: cells of the same settings (linear = soft = distinct) are one of them. Cells that
/// are written differently but cannot train differently are one run here, but the paper ran each.
fn experiment(judged: &Judged, id: &str) -> String {
    let cell = judged.cells.iter().map(|cell| cell.cell.planned).find(|planned| planned.id == id);
    let same = cell.filter(|cell| cell.identical_by_construction.is_none()).and_then(|cell| cell.same_run_as.clone());
    same.unwrap_or_else(|| id.to_owned())
}

/// A group's title; the paper's letters stand before it.
pub(crate) fn group_title(group: &PlannedGroup) -> String {
    if group.id.len() == 1 { format!("({}) {}", group.id, group.title) } else { group.title.clone() }
}

/// How far a cell is, in words.
pub(crate) fn state(cell: &Cell) -> String {
    let diverged: Vec<(u64, usize)> = cell.diverged().collect();
    let (measured, all) = (cell.measured().count(), cell.runs.len());
    match diverged.as_slice() {
        [] if measured == 0 => "not run".to_owned(),
        [] if measured < all => format!("{measured} of {all} seeds run"),
        [] => "measured".to_owned(),
        [(_, iteration)] if all == 1 => format!("diverged at iteration {iteration}"),
        [(_, first), rest @ ..] if rest.iter().all(|(_, other)| other == first) && diverged.len() == all => {
            format!("diverged at iteration {first}")
        }
        some => {
            let each = some.iter().map(|(seed, iteration)| format!("{iteration} (seed {seed})"));
            format!("diverged at iteration {}", each.collect::<Vec<_>>().join(", "))
        }
    }
}

/// The verdict in words; empty where nothing is claimed.
pub(crate) fn verdict(comparison: &Comparison, judged: &Judged) -> Option<String> {
    let claims = comparison.expected.is_some() || comparison.printed.is_some();
    match comparison.verdict {
        Some(verdict) => Some(verdict.to_string()),
        None if claims && !judged.control.permits_verdicts() => Some("withheld".to_owned()),
        None => None,
    }
}

/// What an interval is over.
pub(crate) fn spread(spread: Spread) -> &'static str {
    match spread {
        Spread::TrainingSeeds => "training seeds",
        Spread::SamplingSeeds => "sampling seeds",
        Spread::Subsampling => "subsets of one run's samples",
    }
}

/// A frame as CSV; floats with all their digits.
pub(crate) fn csv(frame: &DataFrame) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut frame.clone())?;
    Ok(bytes)
}
