//! What can go wrong in a results tree, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::lock::Owner;
use crate::status::FailureClass;

/// An error of the results tree. Every message names the object, the reason and the next step.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The results directory cannot be created or written.
    #[error(
        "{}: the results directory cannot be written: {source}\n  give another one with `--results DIR`, or change its permissions",
        path.display()
    )]
    NotWritable {
        /// The results directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The results directory was written by a program with another layout.
    #[error(
        "{}: results of format {found}, this program reads and writes format {supported}\n  use the program that wrote them, or another directory with `--results DIR`",
        path.display()
    )]
    Format {
        /// The format file.
        path: PathBuf,
        /// Its contents.
        found: String,
        /// What this program knows.
        supported: u32,
    },
    /// Somebody else works on the stage.
    #[error(
        "{stage}: another process works on it ({owner})\n  wait for it, or stop that process; what it has done is kept"
    )]
    Busy {
        /// Kind and key.
        stage: String,
        /// The process.
        owner: Owner,
    },
    /// The stage has been finished before (perhaps by another process a moment ago): there is nothing to do.
    #[error("{stage}: already done")]
    AlreadyDone {
        /// Kind and key.
        stage: String,
    },
    /// The stage has no record.
    #[error("{stage}: not done yet\n  run it first: `runner plan` says what is missing")]
    NotDone {
        /// Kind and key.
        stage: String,
    },
    /// A file is not what was written.
    #[error("{}: damaged: {reason}\n  `runner verify` lists all damage; the next `runner reproduce` runs the stage again", path.display())]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A stage hands in something that cannot be recorded.
    #[error("{stage}: {reason}\n  this is a fault of the program, not of its input")]
    Rejected {
        /// Kind and key.
        stage: String,
        /// What and why.
        reason: String,
    },
    /// A table cannot be made, read or written.
    #[error("{}: not a sound table: {source}\n  `runner verify` lists all damage; the next `runner reproduce` runs the stage again", path.display())]
    Table {
        /// The parquet file (or the folder it belongs to).
        path: PathBuf,
        /// Why not.
        source: polars::error::PolarsError,
    },
}

impl StoreError {
    /// For `map_err`: a [`StoreError::Io`] from what was tried on which path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// For `map_err`: a [`StoreError::Table`] about a path.
    pub(crate) fn table(path: impl AsRef<Path>) -> impl FnOnce(polars::error::PolarsError) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Table { path, source }
    }

    /// Damage to a path.
    pub(crate) fn corrupt(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.as_ref().to_owned(), reason: reason.into() }
    }
}

impl From<StoreError> for io::Error {
    /// The operating system's own error where it is one.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io { source, .. } => source,
            other => Self::other(other),
        }
    }
}

/// What to do about an error of the operating system, where that is known.
fn advice(error: &io::Error) -> String {
    let known = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("change its permissions, or give another results directory with `--results DIR`")
        }
        _ => FailureClass::of_io(error).advice(),
    };
    known.map_or(String::new(), |advice| format!("\n  {advice}"))
}
