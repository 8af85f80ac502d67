//! Datasets, image decoding and batches.
//!
//! A source ([`faces`], [`idx`], [`folder`]) gives [`Images`], all of them in memory as bytes; [`Batches`] turns these
//! into training batches whose content is a pure function of (seed, iteration); [`grid`] writes images for people.

pub mod batches;
mod crop;
mod error;
pub mod faces;
pub mod folder;
pub mod grid;
pub mod idx;
mod images;

pub use batches::{Batch, Batches, Order};
pub use error::{Error, Result};
pub use grid::grid_png;
pub use images::Images;
