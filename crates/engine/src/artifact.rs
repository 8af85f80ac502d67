//! The files that stages leave for others, besides weights: samples, features, statistics, activations.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use data::Images;
use manifest::method::Method;
use manifest::stage::FeatureKind;
use models::weights::{self, Tensor, Weights};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::job::{EngineError, Job};

/// Embedded captions: `embeddings` f32 `[captions + 1, W]`, the null caption's last, and `captions` i64 `[images]`.
pub const EMBEDDINGS: &str = "embeddings.safetensors";
/// Trained tensors.
pub const WEIGHTS: &str = "weights.safetensors";
/// Samples: `samples` u8 `[n, C, side, side]`.
pub const SAMPLES: &str = "samples.safetensors";
/// Features: `features` f32 `[n, F]`, and Inception's `spatial` f32 `[n, F']`.
pub const FEATURES: &str = "features.safetensors";
/// Statistics: `mean` `[F]`, `covariance` `[F, F]`, its `factor` `[k, F]` and `count` `[1]`, f64.
pub const STATISTICS: &str = "statistics.safetensors";
/// Gate weights: `weights` f32 `[timesteps, L', N]`, `timesteps` i64.
pub const ACTIVATION: &str = "activation.safetensors";

/// Weights of the job's input `backbone`; none for a method that starts from scratch.
///
/// # Errors
/// The file is missing or damaged.
pub(crate) fn backbone(job: &Job, method: &Method) -> Result<Weights, EngineError> {
    if method.from_scratch() {
        return Ok(Weights::new());
    }
    Ok(weights::read(job.input("backbone")?).map_err(anyhow::Error::from)?)
}

/// Writes tensors of any type into one safetensors file.
///
/// # Errors
/// The disk's, with the path.
pub fn write(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Result<()> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        Ok((*name, TensorView::new(*dtype, shape.clone(), bytes).with_context(|| (*name).to_owned())?))
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    weights::write_atomically(path, &safetensors::serialize(views, None)?)?;
    Ok(())
}

/// Reads one tensor of a file: its shape and bytes.
///
/// # Errors
/// The file is missing, damaged, or has no such tensor of that type.
pub fn read(path: &Path, name: &str, dtype: Dtype) -> Result<(Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let broken = || format!("{} is damaged; delete its stage so that it is made again", path.display());
    let tensors = SafeTensors::deserialize(&bytes).with_context(broken)?;
    let tensor = tensors.tensor(name).with_context(broken)?;
    ensure!(tensor.dtype() == dtype, "{}: {name} has type {:?}, not {dtype:?}", path.display(), tensor.dtype());
    Ok((tensor.shape().to_vec(), tensor.data().to_vec()))
}

/// Writes images as samples.
///
/// # Errors
/// The disk's.
pub fn write_images(path: &Path, images: &Images) -> Result<()> {
    let shape = vec![images.len(), images.channels, images.side, images.side];
    write(path, &[("samples", Dtype::U8, shape, images.pixels.clone())])
}

/// Reads samples.
///
/// # Errors
/// As [`read`], or they are not square images.
pub fn read_images(path: &Path) -> Result<Images> {
    let (shape, pixels) = read(path, "samples", Dtype::U8)?;
    let &[_, channels, side, width] = shape.as_slice() else {
        anyhow::bail!("{}: samples have shape {shape:?}", path.display())
    };
    ensure!(side == width, "{}: samples are {side} x {width}, not square", path.display());
    Ok(Images::new(channels, side, pixels))
}

/// Writes features of `n` images; without spatial ones their values are empty.
///
/// # Errors
/// The disk's.
pub fn write_features(path: &Path, n: usize, pooled: Vec<f32>, spatial: Vec<f32>) -> Result<()> {
    let kinds = [(FeatureKind::Pooled, pooled), (FeatureKind::Spatial, spatial)];
    let tensor = |(kind, values): (FeatureKind, Vec<f32>)| {
        let shape = vec![n, values.len() / n.max(1)];
        (!values.is_empty()).then(|| (tensor_name(kind).to_owned(), Tensor { shape, values }))
    };
    let tensors: Weights = kinds.into_iter().filter_map(tensor).collect();
    weights::write(path, &tensors)?;
    Ok(())
}

fn tensor_name(kind: FeatureKind) -> &'static str {
    match kind {
        FeatureKind::Pooled => "features",
        FeatureKind::Spatial => "spatial",
    }
}

/// Reads features: rows, their number and their length.
///
/// # Errors
/// As [`read`].
pub fn read_features(path: &Path, kind: FeatureKind) -> Result<(Vec<f32>, usize, usize)> {
    let (shape, bytes) = read(path, tensor_name(kind), Dtype::F32)?;
    let &[n, f] = shape.as_slice() else { anyhow::bail!("{}: features have shape {shape:?}", path.display()) };
    Ok((bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(), n, f))
}
