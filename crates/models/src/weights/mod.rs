//! Weight files: safetensors and PyTorch's on disk, one ordered map in memory, candle tensors on a device.

mod check;
mod device;
mod disk;
mod element;
mod error;
mod file;
pub mod names;
mod original;
mod pickle;
mod safetensors;
mod source;
pub mod torch;
mod view;

use std::collections::BTreeMap;
use std::path::Path;

pub use check::check;
pub use device::{Tensors, constants, from_tensors, gradients, into_constants, variables};
pub use disk::{sha256, write_atomically, write_atomically_with};
pub use element::Element;
pub use error::WeightsError;
pub use file::{Format, WeightFile};
pub use safetensors::{to_bytes, write};

/// One tensor in memory, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values; as many as the shape says.
    pub values: Vec<f32>,
}

/// Tensors by name, in the order of their names.
pub type Weights = BTreeMap<String, Tensor>;

/// Reads a weight file of any format.
///
/// # Errors
/// As [`WeightFile::open`] and [`WeightFile::read`].
pub fn read(path: &Path) -> Result<Weights, WeightsError> {
    WeightFile::open(path, None)?.read()
}
