//! One stage of an experiment: embeddings, pretrain, train, sample, features, statistics, metrics and other measures, activation.
//!
//! [`execute`] takes a stage's typed parameters and the files of its inputs, and leaves artifacts in a working directory.
//! It knows no command line, no YAML and no results tree. Called again in the same directory after an interruption it
//! goes on from the last checkpoint and ends in the same bits.

mod activation;
pub mod artifact;
mod batch;
pub mod bench;
mod captions;
mod checkpoint;
mod denoising;
mod distance;
mod embeddings;
mod execute;
mod extractor;
mod features;
mod images;
mod job;
mod loss;
mod losses;
mod measures;
mod network;
mod process;
mod sampling;
pub mod size;
mod trainables;
mod training;
mod trunk;

pub use execute::execute;
pub use features::inspect;
pub use job::{CurvePoint, Device, EngineError, Finished, Job, Outcome, Progress};
pub use losses::Losses;
