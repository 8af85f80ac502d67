//! One stage of an experiment: embeddings, pretrain, encode, train, import, sample, decode, features, statistics, metrics and other
//! measures, activation.
//!
//! [`execute`] takes a stage's typed parameters and the files of its inputs, and leaves artifacts in a working directory.
//! It knows no command line, no YAML and no results tree. Called again in the same directory after an interruption it
//! goes on from the last checkpoint and ends in the same bits.

mod activation;
pub mod archive;
pub mod artifact;
mod autoencoder;
mod batch;
pub mod bench;
mod captions;
mod causes;
mod checkpoint;
mod decoder;
mod denoising;
mod distance;
mod embeddings;
mod encoding;
mod execute;
pub mod export;
mod extractor;
mod features;
mod images;
mod import;
mod inspection;
mod job;
pub mod latents;
mod loss;
mod losses;
mod mapped;
mod measures;
mod network;
mod on_gpu;
mod parts;
mod pictures;
mod process;
mod samples;
mod sampling;
mod sequences;
mod sight;
pub mod size;
mod trainables;
mod training;
mod trunk;
mod unet;

pub use causes::causes;
pub use execute::execute;
pub use inspection::Inspection;
pub use job::{CurvePoint, Device, EngineError, Finished, Job, Outcome, Progress};
pub use losses::Losses;
pub use on_gpu::self_test;
