//! Weight files: safetensors on disk, one ordered map in memory, candle tensors on a device.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Var};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

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

/// candle tensors by name, in the order of their names.
pub type Tensors = BTreeMap<String, candle_core::Tensor>;

/// Why a weight file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not the one that is meant.
    #[error(
        "{} has sha256 {found}, expected {expected}: it is damaged or another version; restore it or delete it so that it is made again",
        path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// The hash it should have.
        expected: String,
        /// The hash it has.
        found: String,
    },
    /// The file is no sound safetensors file of 32-bit floats.
    #[error("{} cannot be read as weights: {reason}; restore it or delete it so that it is made again", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file holds other tensors than the model has.
    #[error("{} does not fit the model: {}", path.display(), faults.join("; "))]
    Keys {
        /// The file.
        path: PathBuf,
        /// Every missing, unexpected or mis-shaped tensor.
        faults: Vec<String>,
    },
}

impl WeightsError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }
}

/// SHA-256 of `bytes`, in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a weight file.
///
/// # Errors
/// The file is missing or no sound safetensors file of 32-bit floats.
pub fn read(path: &Path) -> Result<Weights, WeightsError> {
    let bytes = fs::read(path).map_err(WeightsError::io(path, "read"))?;
    parse(path, &bytes)
}

/// Reads a weight file whose SHA-256 must be `expected`; nothing of it is used otherwise.
///
/// # Errors
/// As [`read`], or the hash differs.
pub fn read_checked(path: &Path, expected: &str) -> Result<Weights, WeightsError> {
    let bytes = fs::read(path).map_err(WeightsError::io(path, "read"))?;
    let found = sha256(&bytes);
    if !found.eq_ignore_ascii_case(expected) {
        return Err(WeightsError::Hash { path: path.to_owned(), expected: expected.to_owned(), found });
    }
    parse(path, &bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Weights, WeightsError> {
    let fault = |reason: String| WeightsError::Format { path: path.to_owned(), reason };
    let file = SafeTensors::deserialize(bytes).map_err(|error| fault(error.to_string()))?;
    let mut weights = Weights::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(fault(format!("{name} has type {:?}, not F32", view.dtype())));
        }
        let values = view.data().as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        weights.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok(weights)
}

/// Checks that `weights`, read from `path`, are exactly the tensors `shapes`.
///
/// # Errors
/// Lists every missing, unexpected and mis-shaped tensor.
pub fn check(path: &Path, weights: &Weights, shapes: &[(String, Vec<usize>)]) -> Result<(), WeightsError> {
    let expected: BTreeMap<&str, &[usize]> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    let mut faults = Vec::new();
    for (name, shape) in &expected {
        match weights.get(*name) {
            None => faults.push(format!("missing {name} {shape:?}")),
            Some(found) if found.shape != *shape => {
                faults.push(format!("{name} has shape {:?}, expected {shape:?}", found.shape));
            }
            Some(_) => {}
        }
    }
    let unexpected = weights.keys().filter(|name| !expected.contains_key(name.as_str()));
    faults.extend(unexpected.map(|name| format!("unexpected {name}")));
    if faults.is_empty() { Ok(()) } else { Err(WeightsError::Keys { path: path.to_owned(), faults }) }
}

/// The bytes of a weight file: a function of names, shapes and values alone.
///
/// # Errors
/// A tensor has another number of values than its shape says; `path` is named.
pub fn to_bytes(path: &Path, weights: &Weights) -> Result<Vec<u8>, WeightsError> {
    let fault = |reason: String| WeightsError::Format { path: path.to_owned(), reason };
    let raw: Vec<Vec<u8>> = weights.values().map(|t| t.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = Vec::with_capacity(raw.len());
    for ((name, tensor), bytes) in weights.iter().zip(&raw) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        views.push((name, view.map_err(|error| fault(format!("{name}: {error}")))?));
    }
    safetensors::serialize(views, None).map_err(|error| fault(error.to_string()))
}

/// Writes a weight file whole and returns its SHA-256.
///
/// # Errors
/// As [`to_bytes`] and [`write_atomically`].
pub fn write(path: &Path, weights: &Weights) -> Result<String, WeightsError> {
    let bytes = to_bytes(path, weights)?;
    write_atomically(path, &bytes)?;
    Ok(sha256(&bytes))
}

/// Writes `bytes` to `path` so that a reader sees the old file or all of the new one, also after a crash.
///
/// # Errors
/// The file system's, with the path; what was written so far is removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_file_name(format!(".{name}.{}-{number}.partial", std::process::id()));
    let written = (|| {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // It may not exist; the first error is the one to report.
        fs::remove_file(&partial).ok();
    }
    written.map_err(WeightsError::io(path, "write"))
}

/// candle tensors of a type on a device, for tensors that do not learn.
///
/// # Errors
/// Those of candle (a shape that lies about the number of values, a device out of memory).
pub fn constants(weights: &Weights, dtype: DType, device: &Device) -> candle_core::Result<Tensors> {
    let tensor = |(name, t): (&String, &Tensor)| {
        let tensor = candle_core::Tensor::from_slice(&t.values, t.shape.as_slice(), device)?.to_dtype(dtype)?;
        Ok((name.clone(), tensor))
    };
    weights.iter().map(tensor).collect()
}

/// The same as [`constants`], for tensors whose gradients are wanted.
///
/// # Errors
/// As [`constants`].
pub fn variables(weights: &Weights, dtype: DType, device: &Device) -> candle_core::Result<Tensors> {
    let variable = |(name, tensor): (String, candle_core::Tensor)| Ok((name, Var::from_tensor(&tensor)?.into_inner()));
    constants(weights, dtype, device)?.into_iter().map(variable).collect()
}

/// Copies candle tensors back, rounded to 32 bits.
///
/// # Errors
/// Those of candle.
pub fn from_tensors(tensors: &Tensors) -> candle_core::Result<Weights> {
    let copy = |(name, tensor): (&String, &candle_core::Tensor)| {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok((name.clone(), Tensor { shape: tensor.dims().to_vec(), values }))
    };
    tensors.iter().map(copy).collect()
}

/// Gradients of the scalar `loss` with respect to `tensors`, by name; zeros where it does not depend on one.
///
/// # Errors
/// Those of candle's backward pass.
pub fn gradients(loss: &candle_core::Tensor, tensors: &Tensors) -> candle_core::Result<Tensors> {
    let found = loss.backward()?;
    let gradient = |(name, tensor): (&String, &candle_core::Tensor)| {
        let gradient = found.get(tensor).cloned().map_or_else(|| tensor.zeros_like(), Ok)?;
        Ok((name.clone(), gradient))
    };
    tensors.iter().map(gradient).collect()
}
