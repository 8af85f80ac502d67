//! What the records say about every cell at every seed.

use manifest::claim::Metric;
use manifest::digest::Key;
use manifest::method::Method;
use manifest::plan::{CellRun, Plan, PlannedCell, Table};
use manifest::stage::Stage;
use store::{Outcome, Record, Store, StoreError, Tree};

use crate::error::Error;
use crate::gate;

/// A cell and what its runs have left.
pub(crate) struct Cell<'p> {
    /// The cell.
    pub(crate) planned: &'p PlannedCell,
    /// One run per seed, in the order of the plan.
    pub(crate) runs: Vec<Run<'p>>,
}

/// A cell at one seed.
pub(crate) struct Run<'p> {
    /// Its keys.
    pub(crate) keys: &'p CellRun,
    /// How far it is.
    pub(crate) state: State,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// It has its distance.
    Measured(Measured),
    /// Its loss was not finite.
    Diverged {
        /// The first such iteration.
        iteration: usize,
    },
    /// No record says anything.
    NotRun,
}

/// The distance of one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Over all samples.
    pub(crate) value: f64,
    /// Over half-size subsets that all cells share.
    pub(crate) subsets: Vec<f64>,
    /// Number of real images behind the reference, where the record says so.
    pub(crate) reference: Option<f64>,
}

impl Cell<'_> {
    /// Seeds and distances of the runs that have one.
    pub(crate) fn measured(&self) -> impl Iterator<Item = (u64, &Measured)> {
        self.runs.iter().filter_map(|run| match &run.state {
            State::Measured(measured) => Some((run.keys.seed, measured)),
            State::Diverged { .. } | State::NotRun => None,
        })
    }

    /// Seeds and iterations of the runs that diverged.
    pub(crate) fn diverged(&self) -> impl Iterator<Item = (u64, usize)> {
        self.runs.iter().filter_map(|run| match run.state {
            State::Diverged { iteration } => Some((run.keys.seed, iteration)),
            State::Measured(_) | State::NotRun => None,
        })
    }

    /// Whether two cells are one and the same set of runs.
    pub(crate) fn is_same_run_as(&self, other: &Cell) -> bool {
        let keys = |cell: &Cell| cell.runs.iter().map(|run| run.keys.metrics).collect::<Vec<Key>>();
        keys(self) == keys(other)
    }
}

/// All cells of a table: the baseline first, the positive control last (if there is one). With a metric, its values
/// instead of the distances.
pub(crate) fn cells<'p>(
    plan: &'p Plan,
    table: &'p Table,
    store: &Store,
    metric: Option<Metric>,
) -> Result<Vec<Cell<'p>>, Error> {
    let tree = store.tree();
    let observe = |planned: &'p PlannedCell| {
        let state = |keys: &CellRun| match (diverged(keys, tree)?, metric) {
            (Some(state), _) => Ok::<_, Error>(state),
            (None, None) => Ok(measured(plan, keys.metrics, tree)?.map_or(State::NotRun, State::Measured)),
            (None, Some(metric)) => {
                let value = value(plan, &planned.method, keys, store, metric)?;
                Ok(value.map_or(State::NotRun, |value| {
                    State::Measured(Measured { value, subsets: Vec::new(), reference: None })
                }))
            }
        };
        let runs = planned.runs.iter().map(|keys| Ok(Run { keys, state: state(keys)? }));
        Ok(Cell { planned, runs: runs.collect::<Result<_, Error>>()? })
    };
    table.cells.iter().chain(&table.positive_control).map(observe).collect()
}

/// The record of a stage; `None` if it has not been run.
pub(crate) fn record(tree: &Tree, key: Key, kind: &str) -> Result<Option<Record>, StoreError> {
    match tree.record(key, kind) {
        Ok(record) => Ok(Some(record)),
        Err(StoreError::NotDone { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How messages call a record.
pub(crate) fn name(key: Key, kind: &str) -> String {
    format!("{kind} {}", key.short())
}

fn diverged(keys: &CellRun, tree: &Tree) -> Result<Option<State>, Error> {
    if let Some(train) = keys.trained
        && let Some(record) = record(tree, train, "train")?
        && let Outcome::Diverged { iteration } = record.outcome
    {
        return Ok(Some(State::Diverged { iteration }));
    }
    Ok(None)
}

/// What a run has of a metric beside the distance; `None` if it has not been measured.
fn value(plan: &Plan, method: &Method, keys: &CellRun, store: &Store, metric: Metric) -> Result<Option<f64>, Error> {
    match metric {
        Metric::SamplingSeconds => {
            let Some(record) = record(store.tree(), keys.sample, "sample")? else { return Ok(None) };
            let Some(Stage::Sample(sample)) = plan.stage(keys.sample).map(|planned| &planned.stage) else {
                return Ok(None);
            };
            let cost = &record.provenance.cost;
            // A resumed attempt's time is not the whole stage's.
            Ok((cost.resumed_attempts == 0).then_some(cost.wall_seconds / sample.count as f64))
        }
        Metric::ActivationGain => match (method, keys.activation) {
            (Method::Dmp(_), Some(key)) if record(store.tree(), key, "activation")?.is_some() => {
                Ok(Some(gate::read(store, key)?.gain()))
            }
            (Method::Dmp(_), _) => Ok(None),
            // Without a gate nothing changes with t, once there is something that was sampled.
            _ => Ok(record(store.tree(), keys.sample, "sample")?.map(|_| 0.0)),
        },
        _ => Ok(further(plan, keys, store.tree())?.into_iter().find(|(name, _)| name == metric.name()).map(|(_, v)| v)),
    }
}

/// Names and values of everything that a run has measured beside its distance.
pub(crate) fn further(plan: &Plan, keys: &CellRun, tree: &Tree) -> Result<Vec<(String, f64)>, Error> {
    let mut values = Vec::new();
    for planned in keys.measures.iter().filter_map(|key| plan.stage(*key)) {
        let Some(record) = record(tree, planned.key, planned.stage.kind())? else { continue };
        // Counts, and what subsets gave, are not measures of their own.
        let own = record
            .metrics
            .into_iter()
            .filter(|(name, _)| !name.contains('.') && !["samples", "reference"].contains(&name.as_str()));
        values.extend(own);
    }
    Ok(values)
}

/// What a stage of metrics has measured; `None` if it has not been run.
pub(crate) fn measured(plan: &Plan, key: Key, tree: &Tree) -> Result<Option<Measured>, Error> {
    let Some(record) = record(tree, key, "metrics")? else { return Ok(None) };
    let lacks = |what: &str| Error::Lacks { record: name(key, "metrics"), what: what.to_owned() };
    let Some(metric) = plan.stage(key).and_then(|planned| match &planned.stage {
        Stage::Metrics(stage) => Some(stage.name.as_str()),
        _ => None,
    }) else {
        return Err(lacks("parameters"));
    };
    let value = *record.metrics.get(metric).ok_or_else(|| lacks(metric))?;
    let prefix = format!("{metric}.subset.");
    let numbered = record.metrics.iter().filter_map(|(name, value)| {
        let number = name.strip_prefix(&prefix)?.parse::<usize>().ok()?;
        Some((number, *value))
    });
    let mut numbered: Vec<(usize, f64)> = numbered.collect();
    numbered.sort_by_key(|(number, _)| *number);
    let subsets = numbered.into_iter().map(|(_, value)| value).collect();
    Ok(Some(Measured { value, subsets, reference: record.metrics.get("reference").copied() }))
}
