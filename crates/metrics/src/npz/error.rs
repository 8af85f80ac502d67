//! Why an archive cannot be used.

use std::io;

use zip::result::ZipError;

use crate::FeatureError;
use crate::npz::Dtype;

/// Why an archive cannot be read or written. Messages name the array, not the file: the caller knows that.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// No zip archive, or a damaged directory of one.
    #[error("no sound .npz (zip) archive: {0}")]
    Archive(#[source] ZipError),
    /// An entry with a path instead of a name.
    #[error("the archive has an entry {entry:?}, a path and no array's name: refused")]
    Path {
        /// Its name.
        entry: String,
    },
    /// No array of that name.
    #[error("there is no array `{name}`; there are: {there}")]
    Missing {
        /// The name.
        name: String,
        /// The names that are there.
        there: String,
    },
    /// The header of an array does not parse.
    #[error("array `{name}` has no sound .npy header: {reason}")]
    Header {
        /// The array.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Python objects.
    #[error("array `{name}` holds Python objects (a pickle), which are never loaded: save it with a numeric dtype")]
    Pickle {
        /// The array.
        name: String,
    },
    /// Numbers of another kind.
    #[error("array `{name}` has dtype {dtype}; known are <f4, <f8 and |u1: convert it in numpy")]
    Dtype {
        /// The array.
        name: String,
        /// As the file says it.
        dtype: String,
    },
    /// The values are asked for as another type.
    #[error("array `{name}` holds {found}, not {wanted}")]
    Element {
        /// The array.
        name: String,
        /// What it holds.
        found: Dtype,
        /// What was asked for.
        wanted: Dtype,
    },
    /// The header promises another length than the archive.
    #[error("the header of array `{name}` promises shape {shape:?}, but the archive holds {there} bytes for it")]
    Length {
        /// The array.
        name: String,
        /// The shape.
        shape: Vec<u64>,
        /// Bytes, with the header.
        there: u64,
    },
    /// Too large to be held at once.
    #[error("array `{name}` has {values} values, more than the {limit} that are read at once: stream it")]
    TooLarge {
        /// The array.
        name: String,
        /// Its values.
        values: u64,
        /// The most.
        limit: u64,
    },
    /// More values are asked for than are left.
    #[error("array `{name}` has {left} values left, not {wanted}")]
    End {
        /// The array.
        name: String,
        /// Values left.
        left: u64,
        /// Values asked for.
        wanted: usize,
    },
    /// The data ends early, does not inflate or fails its checksum.
    #[error("array `{name}` is damaged or cannot be read: {source}")]
    Read {
        /// The array.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// An array of another shape than its role needs.
    #[error("array `{name}` has shape {shape:?}, expected {expected}")]
    Shape {
        /// The array.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
        /// What it should be.
        expected: String,
    },
    /// The arrays are no mean and covariance.
    #[error("arrays `{mean}` and `{covariance}`: {source}")]
    Moments {
        /// Name of the mean.
        mean: &'static str,
        /// Name of the covariance.
        covariance: &'static str,
        /// Why.
        source: FeatureError,
    },
    /// The archive cannot be written.
    #[error("array `{name}` cannot be written: {source}")]
    Write {
        /// The array.
        name: String,
        /// Why.
        source: io::Error,
    },
}
