//! Datasets, image decoding and batches.
//!
//! A source gives [`Images`], all of them in memory as bytes: [`faces`] and [`idx`] at once, [`folder`], [`captions`] and
//! [`shards`] by way of [`Photographs`], which are still on disk. [`Batches`] turns [`Examples`] (images, or what others
//! make of them) into training batches whose content is a pure function of (seed, iteration); [`grid`] writes images for
//! people.

pub mod batches;
pub mod captions;
mod crop;
mod decode;
mod error;
pub mod faces;
pub mod folder;
pub mod grid;
mod gzip;
pub mod idx;
mod images;
pub mod jpeg;
mod photographs;
pub mod resample;
pub mod shards;

pub use batches::{Batch, Batches, Examples, Order};
pub use error::{Error, Result};
pub use grid::grid_png;
pub use images::Images;
pub use photographs::Photographs;
