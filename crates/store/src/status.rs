//! How far a stage is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::StoreError;
use crate::lock::Owner;
use crate::record::Record;
use crate::tree;

/// How far a stage is.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Finished; its artifacts are there and hash right.
    Done(Box<Record>),
    /// Finished once, but a file is missing or damaged: it will be run again.
    Corrupt(String),
    /// Somebody works on it.
    Running(Owner),
    /// The last attempt failed. The next one goes on from its last checkpoint.
    Failed(Failure),
    /// Interrupted after so many attempts. The next one goes on from the last checkpoint.
    Partial {
        /// Attempts so far.
        attempts: u32,
    },
    /// Never begun.
    Missing,
}

/// Why the last attempt failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// What kind of failure, for retries by class.
    pub class: FailureClass,
    /// The error's message.
    pub reason: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When, in UTC.
    pub at: String,
    /// The log of the last attempt.
    #[serde(skip)]
    pub log: PathBuf,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Memory, of the machine or of the device, did not suffice.
    OutOfMemory,
    /// The disk is full.
    DiskFull,
    /// A file or a device is missing.
    MissingInput,
    /// Anything else.
    Other,
}

impl FailureClass {
    /// The class of an error of the results tree.
    pub fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Io { source, .. } => Self::of_io(source),
            _ => Self::Other,
        }
    }

    /// What to do about it, where that is known.
    pub fn advice(self) -> Option<&'static str> {
        let free =
            "free some space (`runner gc` lists what can go) and run the same command again; nothing finished is lost";
        (self == Self::DiskFull).then_some(free)
    }

    /// The class of an error of the operating system.
    pub fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::DiskFull,
            OutOfMemory => Self::OutOfMemory,
            _ => Self::Other,
        }
    }
}

impl Failure {
    const FILE: &str = "failure.json";

    /// Leaves the failure in the stage's partial folder.
    pub(crate) fn write(&self, partial: &Path) -> Result<(), StoreError> {
        let json = serde_json::to_vec_pretty(self).expect("a failure has a JSON form");
        atomic::write(&partial.join(Self::FILE), &json)
    }

    /// Reads the failure from a partial folder. One that cannot be read counts as none: the stage then is interrupted.
    pub(crate) fn read(partial: &Path) -> Option<Self> {
        let failure: Self = serde_json::from_slice(&fs::read(partial.join(Self::FILE)).ok()?).ok()?;
        Some(Self { log: tree::log_path(partial, failure.attempts), ..failure })
    }

    /// Forgets it: a new attempt has begun.
    pub(crate) fn clear(partial: &Path) -> Result<(), StoreError> {
        let file = partial.join(Self::FILE);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", file)(error)),
            _ => Ok(()),
        }
    }
}
