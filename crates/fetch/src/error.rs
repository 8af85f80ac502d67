//! Why a file was not fetched: each message names the file, the address, the reason and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use manifest::digest::Digest;

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process fetches the same file.
    #[error("{} is being written by another process; wait for it", path.display())]
    Busy {
        /// The unfinished file.
        path: PathBuf,
    },
    /// A file with another content is there already. It is left alone.
    #[error("{} has sha256 {found}, but {expected} is pinned; move it away, then fetch again", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
        /// What is pinned.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// The server refused.
    #[error("{url}: the server answers {status}; open the address in a browser, or put the file at {} yourself", path.display())]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Where the file belongs.
        path: PathBuf,
    },
    /// The connection failed again and again.
    #[error(
        "{url}: {reason}, {attempts} times without getting on; what has come so far is kept: the same command goes on from there"
    )]
    Connection {
        /// The address.
        url: String,
        /// The last reason.
        reason: String,
        /// Attempts since the last byte.
        attempts: u32,
    },
    /// All bytes came, but not the ones that are pinned.
    #[error(
        "{url} sends {found}, but {expected} is pinned; nothing was kept: the published file has changed, or the line is not to be trusted"
    )]
    Content {
        /// The address.
        url: String,
        /// What is pinned.
        expected: String,
        /// What came.
        found: String,
    },
    /// The caller asked to stop.
    #[error("interrupted; what has come so far is kept: the same command goes on from there")]
    Interrupted,
}

impl FetchError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
