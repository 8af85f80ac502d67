//! The types of every YAML file, their validation and expansion into cells, and canonical hashes.

pub mod dataset;
pub mod dit;
pub mod extractor;
pub mod gate;
pub mod method;
pub mod scale;
pub mod stage;
