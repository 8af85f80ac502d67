//! Why a stage will run, or why it will not: its state in the results tree, and the records nearest to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use manifest::digest::Key;
use manifest::plan::PlannedStage;
use manifest::stage::{Sample, Stage};
use serde::Serialize;
use store::{Outcome, Record, RecordedInput, Status, Store};

use crate::cli::Mode;
use crate::difference::{Difference, Flat, differences, flatten};
use crate::executor::runs_again;
use crate::exit::Failure;
use crate::inventory::{self, Found};
use crate::tasks::Stages;
use crate::work::Work;

/// A record that differs in more parameters than this is not the same cell edited.
const MOST_DIFFERENCES: usize = 3;

/// What a plan says about a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Prospect {
    /// Its record is there.
    Done {
        /// The first iteration whose loss was not finite.
        #[serde(skip_serializing_if = "Option::is_none")]
        diverged_at: Option<usize>,
    },
    /// Another process works on it.
    Running {
        /// Who.
        by: String,
    },
    /// It will run.
    WillRun {
        /// Why.
        #[serde(flatten)]
        reason: Reason,
    },
    /// It failed and will not run in this mode.
    Stands {
        /// The failure.
        error: String,
    },
    /// A stage that it needs failed or diverged.
    WillNotRun {
        /// That stage.
        because_of: String,
    },
}

/// Why a stage will run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub(crate) enum Reason {
    /// There is nothing like it.
    NeverRun,
    /// It was interrupted and goes on from its checkpoint.
    Interrupted {
        /// Attempts so far.
        attempts: u32,
    },
    /// It failed before.
    FailedBefore {
        /// The failure.
        error: String,
    },
    /// Its result is damaged.
    Damaged {
        /// How.
        damage: String,
    },
    /// Mode `force`.
    Forced,
    /// A stage that it needs will run.
    InputWillRun {
        /// That stage.
        input: String,
    },
    /// The nearest record was made with other parameters.
    Edited {
        /// That record.
        nearest: Key,
        /// What differs, from the record to the plan.
        differences: Vec<Difference>,
    },
    /// The nearest record was made from other inputs.
    OtherInputs {
        /// That record.
        nearest: Key,
        /// Roles of the inputs that differ.
        roles: Vec<String>,
    },
    /// The nearest record was made by another version of the stage's code.
    OtherVersion {
        /// That record.
        nearest: Key,
        /// Its version.
        version: String,
    },
}

/// A stage with what the plan says about it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Explained {
    /// Its key.
    pub(crate) key: Key,
    /// Its kind.
    pub(crate) kind: &'static str,
    /// How it is called.
    pub(crate) label: String,
    /// What will become of it.
    #[serde(flatten)]
    pub(crate) prospect: Prospect,
    /// Estimated arithmetic of the whole stage.
    pub(crate) flops: f64,
    /// Progress units.
    pub(crate) units: f64,
    /// What is counted.
    pub(crate) unit: &'static str,
}

/// What will become of each stage in a mode, inputs first.
///
/// # Errors
/// When the results tree cannot be read.
pub(crate) fn explain(
    stages: &Stages<'_>,
    store: &Store,
    mode: Mode,
    history: &History,
) -> Result<Vec<Explained>, Failure> {
    let mut will_run = BTreeSet::new();
    let mut without_result = BTreeSet::new();
    let mut explained = Vec::new();
    for stage in stages.iter() {
        let input_in = |set: &BTreeSet<Key>| stage.dependencies().find(|key| set.contains(key));
        let label_of = |key: Key| stages.label(key).to_owned();
        let because = |key| Prospect::WillNotRun { because_of: label_of(key) };
        let (inputless, rerun) = (input_in(&without_result), input_in(&will_run));
        let run = |reason| match (inputless, rerun) {
            (Some(key), _) => because(key),
            (None, Some(key)) => Prospect::WillRun { reason: Reason::InputWillRun { input: label_of(key) } },
            (None, None) => Prospect::WillRun { reason },
        };
        let prospect = match store.status(stage.key, stage.stage.kind())? {
            Status::Done(_) if mode == Mode::Force => run(Reason::Forced),
            Status::Done(record) => Prospect::Done { diverged_at: diverged_at(&record) },
            Status::Running(owner) => Prospect::Running { by: owner.to_string() },
            Status::Failed(failure) if !runs_again(mode, failure.class) => Prospect::Stands { error: failure.reason },
            Status::Failed(failure) => run(Reason::FailedBefore { error: failure.reason }),
            Status::Corrupt(damage) => run(Reason::Damaged { damage }),
            Status::Partial { attempts } => run(Reason::Interrupted { attempts }),
            Status::Missing => run(history.reason(stage)),
        };
        match &prospect {
            Prospect::Done { diverged_at: None } => {}
            Prospect::Running { .. } | Prospect::WillRun { .. } => drop(will_run.insert(stage.key)),
            Prospect::Done { .. } | Prospect::Stands { .. } | Prospect::WillNotRun { .. } => {
                without_result.insert(stage.key);
            }
        }
        let Work { flops, units, unit } = stages.work(stage);
        let (key, kind, label) = (stage.key, stage.stage.kind(), label_of(stage.key));
        explained.push(Explained { key, kind, label, prospect, flops, units, unit });
    }
    Ok(explained)
}

fn diverged_at(record: &Record) -> Option<usize> {
    match record.outcome {
        Outcome::Completed => None,
        Outcome::Diverged { iteration } => Some(iteration),
    }
}

/// Earlier records, by kind: what a new stage is compared with, and how fast this machine was.
pub(crate) struct History {
    by_kind: BTreeMap<String, Vec<(Flat, Record)>>,
}

impl History {
    /// All sound records of a results tree.
    pub(crate) fn of(store: &Store) -> Self {
        let tree = store.tree();
        let mut by_kind: BTreeMap<String, Vec<(Flat, Record)>> = BTreeMap::new();
        for Found { kind, key } in inventory::stages(tree.root()) {
            // A stage that is not finished, or damaged, is nobody's example.
            if let Ok(record) = tree.record(key, &kind) {
                by_kind.entry(kind).or_default().push((flatten(&record.params), record));
            }
        }
        Self { by_kind }
    }

    /// Why a stage without a record will run: the nearest record tells.
    fn reason(&self, stage: &PlannedStage) -> Reason {
        let Ok(params) = serde_json::to_value(&stage.stage) else { return Reason::NeverRun };
        let params = flatten(&params);
        let known = self.by_kind.get(stage.stage.kind()).map_or(&[][..], Vec::as_slice);
        let nearest = known
            .iter()
            .map(|(flat, record)| (differences(flat, &params), record))
            .min_by_key(|(found, _)| found.len());
        let Some((differences, record)) = nearest else { return Reason::NeverRun };
        let nearest = record.key;
        if differences.len() > MOST_DIFFERENCES {
            Reason::NeverRun
        } else if !differences.is_empty() {
            Reason::Edited { nearest, differences }
        } else if record.version != stage.stage.version() {
            Reason::OtherVersion { nearest, version: record.version.clone() }
        } else {
            let differs = |(role, input): &(&String, &manifest::plan::Input)| {
                record.inputs.get(*role).is_none_or(|recorded| *recorded != (*input).into())
            };
            let roles = stage.inputs.iter().filter(differs).map(|(role, _)| role.clone()).collect();
            Reason::OtherInputs { nearest, roles }
        }
    }

    /// Floating-point operations a second of finished stages of a kind, as [`Work`] counts them; `None` where none was measured.
    pub(crate) fn rate(&self, kind: &str) -> Option<f64> {
        let mut flops = 0.0;
        let mut seconds = 0.0;
        for (_, record) in self.by_kind.get(kind)? {
            // A resumed attempt's time is not the whole stage's.
            if record.provenance.cost.resumed_attempts == 0
                && let Ok(stage) = serde_json::from_value(record.params.clone())
            {
                flops += Work::of(&stage, self.drawn(record).as_ref()).flops;
                seconds += record.provenance.cost.wall_seconds;
            }
        }
        (seconds > 0.0).then_some(flops / seconds)
    }

    /// The stage of the samples that a record was made from.
    fn drawn(&self, record: &Record) -> Option<Sample> {
        let RecordedInput::Stage(key) = record.inputs.get("samples")? else { return None };
        let (_, made_of) = self.by_kind.get("sample")?.iter().find(|(_, record)| record.key == *key)?;
        match serde_json::from_value(made_of.params.clone()).ok()? {
            Stage::Sample(sample) => Some(sample),
            _ => None,
        }
    }
}

impl fmt::Display for Prospect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { diverged_at: None } => write!(f, "done"),
            Self::Done { diverged_at: Some(iteration) } => write!(f, "done: diverged at iteration {iteration}"),
            Self::Running { by } => write!(f, "running: {by}"),
            Self::WillRun { reason } => write!(f, "will run: {reason}"),
            Self::Stands { error } => write!(f, "failed before, `--mode retry` runs it again: {error}"),
            Self::WillNotRun { because_of } => write!(f, "will not run: no result of {because_of}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRun => write!(f, "never run"),
            Self::Interrupted { attempts: 1 } => write!(f, "interrupted, goes on from its checkpoint"),
            Self::Interrupted { attempts } => write!(f, "interrupted {attempts} times, goes on from its checkpoint"),
            Self::FailedBefore { error } => write!(f, "failed before: {error}"),
            Self::Damaged { damage } => write!(f, "its result is damaged: {damage}"),
            Self::Forced => write!(f, "--mode force"),
            Self::InputWillRun { input } => write!(f, "its input {input} will run"),
            Self::Edited { nearest, differences } => {
                let differences: Vec<String> = differences.iter().map(Difference::to_string).collect();
                write!(f, "never run; nearest record {}: {}", nearest.short(), differences.join(", "))
            }
            Self::OtherInputs { nearest, roles } => {
                write!(f, "other content of its input {} than in record {}", roles.join(", "), nearest.short())
            }
            Self::OtherVersion { nearest, version } => {
                write!(f, "the stage's code changed since record {} ({version})", nearest.short())
            }
        }
    }
}
