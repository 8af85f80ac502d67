//! Tensors from the artifacts of stages.

use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::error::Error;

/// An artifact that is not what it should be.
pub(crate) fn odd(path: &Path, reason: &str) -> Error {
    Error::Artifact { path: path.to_owned(), reason: reason.to_owned() }
}

/// A file's bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| odd(path, &format!("cannot read: {error}")))
}

/// The tensors in them.
pub(crate) fn open<'a>(bytes: &'a [u8], path: &Path) -> Result<SafeTensors<'a>, Error> {
    SafeTensors::deserialize(bytes).map_err(|error| odd(path, &format!("not a safetensors file: {error}")))
}

/// Shape and bytes of a tensor.
pub(crate) fn tensor<'a>(
    tensors: &SafeTensors<'a>,
    path: &Path,
    name: &str,
    dtype: Dtype,
) -> Result<(Vec<usize>, &'a [u8]), Error> {
    let tensor = tensors.tensor(name).map_err(|error| odd(path, &error.to_string()))?;
    if tensor.dtype() != dtype {
        return Err(odd(path, &format!("`{name}` has type {:?}, not {dtype:?}", tensor.dtype())));
    }
    Ok((tensor.shape().to_vec(), tensor.data()))
}
