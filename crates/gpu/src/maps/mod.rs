//! Networks of feature maps: convolutions, poolings, group normalisations, attention over all places, in any order; an autoencoder's decoder,
//! and Inception.
//!
//! A [`Program`] says which layers a network has, with their weights; a [`MapNetwork`] is one on a machine. Maps have their channels last,
//! padded with zeros to a multiple of 8, so that a convolution is a product: of the map as it lies where its window is one place, else of
//! windows that are gathered, some rows at a time, into room that a GPU's cache holds. A doubled map exists only where a window looks at it.

mod arguments;
mod launch;
mod network;
mod program;
mod slots;

pub use network::{GATHERED, MapNetwork};
pub use program::{Map, Pooling, Program, Size, Window};
