//! Why weights cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// Why a weight file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not the one that is meant.
    #[error(
        "{} has sha256 {found}, expected {expected}: it is damaged or another version; fetch it again, or delete it if a stage made it",
        path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// The hash it should have.
        expected: String,
        /// The hash it has.
        found: String,
    },
    /// The file is no sound weight file.
    #[error("{} cannot be read as weights: {reason}; {remedy}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        reason: String,
        /// What to do next.
        remedy: &'static str,
    },
    /// The file holds other tensors than the model has.
    #[error("{} does not fit the model: {}", path.display(), faults.join("; "))]
    Keys {
        /// The file.
        path: PathBuf,
        /// Every tensor that is missing, unexpected, of another shape, or not finite.
        faults: Vec<String>,
    },
    /// The file holds several state dicts, or not the one that was asked for.
    #[error("{} {}; choose one of its parts: {}", path.display(), reason, parts.join(", "))]
    Part {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        reason: String,
        /// The state dicts it holds.
        parts: Vec<String>,
    },
}

impl WeightsError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }
}

/// What to do about a file that is damaged.
const RESTORE: &str = "fetch it again, or delete it if a stage made it, and run that again";

/// The same, before the file's name is known.
#[derive(Debug)]
pub(super) enum Fault {
    /// Reading failed.
    Io(io::Error),
    /// The bytes are wrong.
    Format { reason: String, remedy: &'static str },
    /// Which state dict is not clear.
    Part { reason: String, parts: Vec<String> },
}

impl Fault {
    /// The bytes are damaged.
    pub(super) fn damaged(reason: impl Into<String>) -> Self {
        Self::Format { reason: reason.into(), remedy: RESTORE }
    }

    /// The bytes may be sound, but are not read here.
    pub(super) fn unsupported(reason: impl Into<String>, remedy: &'static str) -> Self {
        Self::Format { reason: reason.into(), remedy }
    }

    /// The error for the file `path`.
    pub(super) fn at(self, path: &Path) -> WeightsError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => WeightsError::Io { path, action: "read", source },
            Self::Format { reason, remedy } => WeightsError::Format { path, reason, remedy },
            Self::Part { reason, parts } => WeightsError::Part { path, reason, parts },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        // The bounds are checked before reading: an early end means that the file was shortened meanwhile.
        Self::Io(error)
    }
}
