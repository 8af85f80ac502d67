//! What can be wrong with a dataset: each message names the file, the reason and what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with a dataset or an image file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder is not there.
    #[error("{path}: not found; put the dataset there, or set DMP_DATA to the folder that holds it")]
    Missing {
        /// The path looked for.
        path: PathBuf,
    },
    /// A path is there, but is not a folder.
    #[error("{path}: not a folder; an image folder is read as a folder of png, jpeg, webp or bmp files")]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// A folder without a single image.
    #[error("{path}: no image in this folder ({ignored} other files); expected png, jpg, jpeg, webp or bmp files")]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// Files that are not images.
        ignored: usize,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A gzip or IDX file whose bytes are not what they should be.
    #[error("{path}: {reason}; fetch the file again, or check that it is the right one")]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// The file is sound, but does not hold what was asked for.
    #[error("{path}: {reason}")]
    Request {
        /// The file.
        path: PathBuf,
        /// What was asked for, what is there, and what to change.
        reason: String,
    },
    /// More images than memory.
    #[error(
        "{images} images of {side} x {side} take {:.1} GB, more than the memory: take a smaller image_size or fewer images",
        *bytes as f64 / 1e9
    )]
    Memory {
        /// Number of images.
        images: usize,
        /// Side in pixels.
        side: usize,
        /// Bytes in all.
        bytes: usize,
    },
    /// An image that cannot be decoded.
    #[error("{path}: cannot decode the image: {source}; repair or remove the file")]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
}

impl Error {
    /// Wraps an I/O error of `path`; "not found" becomes [`Error::Missing`].
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::Io { path, source },
        }
    }

    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn request(path: &Path, reason: impl Into<String>) -> Self {
        Self::Request { path: path.to_owned(), reason: reason.into() }
    }
}
