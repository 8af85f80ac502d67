//! Why a report cannot be written.

use std::path::PathBuf;

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A plan of a recipe: it has no cells.
    #[error("{0} is a recipe: it has no cells to report on\n  `runner show` shows what its stages have left")]
    NoTable(String),
    /// A plan without any result: an empty report must not take the place of one that says something.
    #[error(
        "{}: nothing of {artifact} has been run here; no report was written, an earlier one stays\n  `{next}` runs it first",
        results.display()
    )]
    NothingRun {
        /// The artifact.
        artifact: String,
        /// The results tree.
        results: PathBuf,
        /// The command that runs it.
        next: String,
    },
    /// Records that must not stand in one column or be subtracted from each other.
    #[error(
        "{first} and {second} cannot be compared: they differ in {what} ({first_value} and {second_value})\n  \
         `runner show` prints either record; run both cells with the same scale, engine and device"
    )]
    Mixed {
        /// What differs.
        what: String,
        /// One record.
        first: String,
        /// What it has.
        first_value: String,
        /// The other record.
        second: String,
        /// What that has.
        second_value: String,
    },
    /// A record without the number that it is there for.
    #[error(
        "{record} has no usable {what}\n  it was written by another version; `runner run ARTIFACT --cell CELL --mode force` makes it anew"
    )]
    Lacks {
        /// The record.
        record: String,
        /// What it lacks.
        what: String,
    },
    /// An artifact that is not what its stage promises.
    #[error("{}: {reason}\n  `runner run ARTIFACT --cell CELL --mode force` makes it anew", path.display())]
    Artifact {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The results tree could not be read, or a file could not be written.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// A figure could not be drawn.
    #[error("figure {name} cannot be drawn: {reason}\n  this is a fault of the program, not of its input")]
    Figure {
        /// Its name.
        name: &'static str,
        /// Why not.
        reason: String,
    },
    /// A table could not be made.
    #[error("a table cannot be made: {0}\n  this is a fault of the program, not of its input")]
    Table(#[from] polars::error::PolarsError),
    /// A folder could not be made.
    #[error("{}: cannot create: {source}\n  give another folder with `--reports DIR`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}
