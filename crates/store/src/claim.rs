//! A stage that this process works on, from the claim to the commit.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use manifest::plan::PlannedStage;

use crate::clock;
use crate::commit::{self, Finished};
use crate::error::StoreError;
use crate::lock::{Lock, Owner};
use crate::provenance::{Code, Machine, Provenance, Stopwatch};
use crate::record::Record;
use crate::status::{Failure, FailureClass};
use crate::store::Store;
use crate::tree;

/// A stage that this process works on. Dropping it lets go of the stage and keeps what is in its folder, as a kill does;
/// so the process that does the work must be the one that claims it.
#[derive(Debug)]
pub struct Claim<'s> {
    store: &'s Store,
    planned: PlannedStage,
    dir: PathBuf,
    attempt: u32,
    stopwatch: Stopwatch,
    _lock: Lock,
}

impl<'s> Claim<'s> {
    /// Begins an attempt on a stage whose lock is held.
    pub(crate) fn begin(store: &'s Store, planned: &PlannedStage, lock: Lock) -> Result<Self, StoreError> {
        let dir = store.tree().partial_dir(planned.key, planned.stage.kind());
        let logs = dir.join(tree::LOGS);
        fs::create_dir_all(&logs).map_err(StoreError::io("create", &logs))?;
        let attempt = tree::attempts(&dir)?.last().map_or(1, |last| last + 1);
        let log = tree::log_path(&dir, attempt);
        let headline =
            format!("attempt {attempt} of {} {}: {}\n", planned.stage.kind(), planned.key, Owner::this_process());
        File::create_new(&log)
            .and_then(|mut file| file.write_all(headline.as_bytes()))
            .map_err(StoreError::io("write", &log))?;
        Failure::clear(&dir)?;
        Ok(Self { store, planned: planned.clone(), dir, attempt, stopwatch: Stopwatch::start(), _lock: lock })
    }

    /// The working directory: checkpoints and artifacts are kept here, those of earlier attempts included.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The log of this attempt; append to it.
    pub fn log_path(&self) -> PathBuf {
        tree::log_path(&self.dir, self.attempt)
    }

    /// Finishes the stage. Readers see it from one instant on, whole; if this fails or the process dies before, they see
    /// nothing, and the next claim goes on from what was left.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] for a metric that is not finite or a file that cannot be an artifact; [`StoreError::Io`]
    /// where the disk is full. The stage then counts as failed.
    pub fn commit(self, finished: &Finished, code: Code, machine: Machine) -> Result<Record, StoreError> {
        let provenance = Provenance { code, machine, cost: self.stopwatch.read(self.attempt) };
        let record = commit::commit(self.store, &self.planned, finished, provenance);
        if let Err(error) = &record {
            // The error itself is what the caller must see; a failure that cannot be noted leaves the stage interrupted.
            let _ = self.note(FailureClass::of(error), &error.to_string());
        }
        record
    }

    /// Gives the stage up: its status is failed until the next attempt.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the disk is full; the stage then counts as interrupted.
    pub fn fail(self, class: FailureClass, reason: &str) -> Result<(), StoreError> {
        self.note(class, reason)
    }

    fn note(&self, class: FailureClass, reason: &str) -> Result<(), StoreError> {
        let (reason, at, log) = (reason.to_owned(), clock::now(), self.log_path());
        Failure { class, reason, attempts: self.attempt, at, log }.write(&self.dir)
    }
}
