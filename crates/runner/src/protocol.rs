//! What the runner and the child process of a stage say to each other: one order down, events up, a JSON line each.
//!
//! The order is the first line of the child's standard input. The input then stays open for as long as the runner wants
//! the stage to go on: its end asks the child to save its state and stop. A runner that dies closes it too, so no child
//! outlives its runner by more than a step.

use std::collections::BTreeMap;
use std::path::PathBuf;

use manifest::digest::Key;
use manifest::plan::PlannedStage;
use serde::{Deserialize, Serialize};

use crate::device::Device;

/// One stage to execute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The stage: key, parameters, inputs.
    pub(crate) planned: PlannedStage,
    /// Those of its inputs that are stages, by role: an artifact is found by its stage's kind, key and name.
    pub(crate) stage_inputs: BTreeMap<String, PlannedStage>,
    /// The results tree.
    pub(crate) results: PathBuf,
    /// The repository it is run from, for the record's provenance.
    pub(crate) checkout: store::Checkout,
    /// Where tensors live.
    pub(crate) device: Device,
    /// Threads to use; the result does not depend on it.
    pub(crate) threads: usize,
    /// Whether an earlier result is thrown away first.
    pub(crate) again: bool,
}

impl Order {
    /// The stage among its inputs that has this key.
    pub(crate) fn producer(&self, key: Key) -> Option<&PlannedStage> {
        self.stage_inputs.values().find(|producer| producer.key == key)
    }
}

/// What a child says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The stage was claimed and begins, or goes on.
    Started {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Its log.
        log: PathBuf,
    },
    /// How far it is.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What is counted.
        unit: String,
        /// A short note.
        note: String,
    },
    /// Its record is in place: it just finished, or somebody else finished it.
    Done {
        /// How it ended.
        outcome: store::Outcome,
    },
    /// Another process works on it.
    Held {
        /// Who.
        by: String,
    },
    /// It stopped as asked; its state is saved.
    Interrupted,
    /// It failed; the failure is recorded.
    Failed {
        /// Whether a file or a device is missing.
        missing_input: bool,
        /// Why.
        error: String,
    },
}
