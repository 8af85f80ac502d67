//! How the program ends: every error and outcome becomes an exit code here and nowhere else.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All done.
    Done,
    /// Some run failed, or something checked is not sound.
    Failed,
    /// The command line or a manifest is wrong.
    Usage,
    /// Data, weights or a device are missing.
    MissingInput,
    /// Stopped by the user; the state is saved.
    Interrupted,
}

impl Exit {
    /// The code that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::MissingInput => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not do what it was asked. Each message names the object, the reason and the next command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A wrong command line: unknown artifact, cell or key.
    #[error("{0}")]
    Usage(String),
    /// The device is missing.
    #[error("{0}")]
    NoDevice(String),
    /// A weight file is there, but cannot be used.
    #[error("{0}")]
    BadWeights(String),
    /// A file is missing.
    #[error("{0}")]
    MissingInput(String),
    /// A manifest, scale or override is wrong.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The results tree could not be read or written.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// Anything else.
    #[error("{}", engine::causes(.0))]
    Other(#[from] anyhow::Error),
    /// Standard output was closed by its reader (`runner plan table4 | head`): not an error.
    #[error("standard output was closed")]
    OutputClosed,
}

impl Failure {
    /// The exit code's class.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NoDevice(_) | Self::BadWeights(_) | Self::MissingInput(_) => Exit::MissingInput,
            Self::Manifest(manifest::Error::Invalid(_)) => Exit::Usage,
            Self::Manifest(manifest::Error::Missing(_)) => Exit::MissingInput,
            Self::Store(_) | Self::Other(_) => Exit::Failed,
            Self::OutputClosed => Exit::Done,
        }
    }
}
