//! The types of every YAML file, their validation and expansion into cells, and canonical hashes.
//!
//! Data path: `read` (text to a tree with places) -> `files` (merging, `check` against the schema, types) -> `artifact`: for
//! each `block` (a table) `expand` (cells with every field explicit) -> `chain` and `table` (stages with keys) ->
//! [`plan::Plan`]. The way in is [`Workspace`].

pub mod autoencoder;
pub mod canonical;
pub mod claim;
pub mod content;
pub mod count;
pub mod dataset;
pub mod denoiser;
pub mod digest;
pub mod dit;
pub mod extractor;
pub mod gate;
pub mod manifest;
pub mod method;
pub mod plan;
pub mod preset;
pub mod problem;
pub mod published;
pub mod recipe;
pub mod reference;
pub mod scale;
pub mod schema;
pub mod stage;
pub mod text;
pub mod unet;
pub mod workspace;

mod artifact;
mod block;
mod captions;
mod chain;
mod check;
mod equivalence;
mod expand;
mod files;
mod gather;
mod lookup;
mod networks;
mod overrides;
mod read;
mod stages;
mod table;
mod tree;
mod validate;
mod yaml;

pub use lookup::HashFile;
pub use plan::Plan;
pub use problem::Error;
pub use workspace::{Request, Workspace};
pub use yaml::to_text as to_yaml;
