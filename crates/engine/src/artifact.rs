//! The files that stages leave for others, besides weights: samples, features, statistics, activations.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use data::Images;
use manifest::method::Method;
use manifest::stage::FeatureKind;
use models::weights::{self, Tensor, Weights};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::job::{EngineError, Job};
use crate::mapped::{Mapped, floats};
use crate::samples::{self, Samples};

/// Embedded captions: `embeddings` f32 `[captions + 1, W]`, or `[captions + 1, tokens, W]`, the null caption's last, and
/// `captions` i64 `[images]`.
pub const EMBEDDINGS: &str = "embeddings.safetensors";
/// Trained tensors.
pub const WEIGHTS: &str = "weights.safetensors";
/// Samples: `samples` u8 `[n, C, side, side]`, or f32 where they are latents.
pub const SAMPLES: &str = "samples.safetensors";
/// Features: `features` f32 `[n, F]`, and Inception's `spatial` f32 `[n, F']`.
pub const FEATURES: &str = "features.safetensors";
/// Statistics: `mean` `[F]`, `covariance` `[F, F]`, its `factor` `[k, F]` and `count` `[1]`, f64.
pub const STATISTICS: &str = "statistics.safetensors";
/// Gate weights: `weights` f32 `[timesteps, L', N]` (of a UNet, `N` are the places of its largest map), `timesteps` i64.
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
    let file = Mapped::open(path)?;
    let (shape, place) = file.place(name, dtype)?;
    Ok((shape, file.bytes(place).to_vec()))
}

/// Writes one tensor whose bytes come in parts, of which one is in memory. The file is that of [`write`].
///
/// # Errors
/// The disk's, with the path; the parts are not of the shape's length together; theirs, which leave no file.
pub fn write_parts(
    path: &Path,
    (name, dtype, shape): (&str, Dtype, &[usize]),
    parts: impl Iterator<Item = Result<Vec<u8>>>,
) -> Result<()> {
    let length = shape.iter().product::<usize>() * dtype.bitsize() / 8;
    let header = format!(r#"{{"{name}":{{"dtype":"{dtype:?}","shape":{shape:?},"data_offsets":[0,{length}]}}}}"#);
    let header = header.replace(", ", ",");
    let padded = header.len().next_multiple_of(8);
    weights::write_atomically_with(path, |file| {
        let mut left = length;
        file.write_all(&(padded as u64).to_le_bytes())?;
        file.write_all(format!("{header:padded$}").as_bytes())?;
        for part in parts {
            let part = part.map_err(std::io::Error::other)?;
            left =
                left.checked_sub(part.len()).ok_or_else(|| std::io::Error::other("more bytes than the shape has"))?;
            file.write_all(&part)?;
        }
        if left == 0 { Ok(()) } else { Err(std::io::Error::other(format!("{left} bytes are missing"))) }
    })?;
    Ok(())
}

/// Writes images as samples.
///
/// # Errors
/// The disk's.
pub fn write_images(path: &Path, images: &Images) -> Result<()> {
    let shape = vec![images.len(), images.channels, images.side, images.side];
    write(path, &[(samples::TENSOR, Dtype::U8, shape, images.pixels.clone())])
}

/// Reads samples.
///
/// # Errors
/// As [`read`], or they are not square images.
pub fn read_images(path: &Path) -> Result<Images> {
    let samples = Samples::open(path)?;
    samples.images(0..samples.len())
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
    Ok((floats(&bytes).collect(), n, f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_in_parts_is_the_file_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (dtype, shape) in [(Dtype::U8, vec![5, 3, 2, 2]), (Dtype::F32, vec![3, 1, 1, 1]), (Dtype::F32, vec![1, 12])]
        {
            let bytes: Vec<u8> = (0..shape.iter().product::<usize>() * dtype.bitsize() / 8).map(|i| i as u8).collect();
            let in_parts = |bytes: &[u8]| {
                write_parts(&path("parts"), ("x", dtype, &shape), bytes.chunks(7).map(|part| Ok(part.to_vec())))
            };
            in_parts(&bytes).unwrap();
            write(&path("whole"), &[("x", dtype, shape.clone(), bytes.clone())]).unwrap();
            assert_eq!(std::fs::read(path("parts")).unwrap(), std::fs::read(path("whole")).unwrap());
            std::fs::remove_file(path("parts")).unwrap();
            assert!(in_parts(&bytes[1..]).is_err() && in_parts(&[&bytes[..], &[0]].concat()).is_err());
            assert!(!path("parts").exists());
        }
    }
}
