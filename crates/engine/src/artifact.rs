//! The files that stages leave for others, besides weights: samples, features, statistics, activations.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use data::Images;
use manifest::dit::DitConfig;
use manifest::method::Method;
use manifest::stage::FeatureKind;
use models::weights::names::Family;
use models::weights::{self, WeightFile, Weights, WeightsError};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::job::{EngineError, Job};
use crate::mapped::{Mapped, floats};
use crate::parts::Parts;
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

/// Weights of the job's input `backbone`, a `dit`'s; none for a method that starts from scratch.
///
/// # Errors
/// The file is missing or damaged, holds other tensors than the network has, or numbers that are not finite.
pub(crate) fn backbone(job: &Job, method: &Method, dit: &DitConfig) -> Result<Weights, EngineError> {
    if method.from_scratch() {
        return Ok(Weights::new());
    }
    let path = job.input("backbone")?;
    let read = || read_backbone(path, WeightFile::open(path, None)?, dit);
    read().map_err(|error: WeightsError| anyhow::Error::from(error).into())
}

/// The weights of a `dit` that a file at `path` holds, alone or with a patch beside them, which is left out.
///
/// # Errors
/// The file is damaged, holds other tensors than the network has, or numbers that are not finite.
pub(crate) fn read_backbone(path: &Path, file: WeightFile, dit: &DitConfig) -> Result<Weights, WeightsError> {
    let backbone = checked_backbone(file, dit)?.read()?;
    weights::check(path, &backbone, &models::dit::named_shapes(dit))?;
    Ok(backbone)
}

/// A file of the weights of a `dit`, without a patch that lies beside them. No number is read.
///
/// # Errors
/// Names the file, and every tensor that it lacks, has in another shape, or has too many.
pub(crate) fn checked_backbone(mut file: WeightFile, dit: &DitConfig) -> Result<WeightFile, WeightsError> {
    file.translate(Family::Dit);
    file.check(&models::dit::named_shapes(dit))?;
    Ok(file)
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

/// Writes tensors whose bytes come one behind the other in parts, of which one is in memory. The file is that of [`write`],
/// if they stand as safetensors orders them: those of longer numbers first, then by name.
///
/// # Errors
/// The disk's, with the path; the parts are not of the shapes' length together; theirs, which leave no file.
pub fn write_parts(
    path: &Path,
    tensors: &[(&str, Dtype, Vec<usize>)],
    parts: impl Iterator<Item = Result<Vec<u8>>>,
) -> Result<()> {
    let mut length = 0;
    let entries = tensors.iter().map(|(name, dtype, shape)| {
        let start = length;
        length += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        format!(r#""{name}":{{"dtype":"{dtype:?}","shape":{shape:?},"data_offsets":[{start},{length}]}}"#)
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(",")).replace(", ", ",");
    let padded = header.len().next_multiple_of(8);
    weights::write_atomically_with(path, |file| {
        let mut left = length;
        file.write_all(&(padded as u64).to_le_bytes())?;
        file.write_all(format!("{header:padded$}").as_bytes())?;
        for part in parts {
            let part = part.map_err(std::io::Error::other)?;
            left =
                left.checked_sub(part.len()).ok_or_else(|| std::io::Error::other("more bytes than the shapes have"))?;
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

/// Writes the features that parts hold, each of them the pooled ones of its images, then the spatial ones where their width
/// is not 0. One part is in memory at a time.
///
/// # Errors
/// The disk's; that of a part.
pub(crate) fn write_features(path: &Path, parts: &Parts, widths: [usize; 2]) -> Result<()> {
    let kinds = [FeatureKind::Pooled, FeatureKind::Spatial].into_iter().zip(widths).filter(|(_, width)| *width > 0);
    let tensors: Vec<_> =
        kinds.map(|(kind, width)| (tensor_name(kind), Dtype::F32, vec![parts.count, width])).collect();
    let [pooled, spatial] = widths;
    let columns = |from: usize, to: usize| {
        parts.all().map(move |part| {
            let part = part?;
            let images = part.len() / (pooled + spatial);
            Ok(part[from * images..to * images].to_vec())
        })
    };
    write_parts(path, &tensors, columns(0, pooled).chain(columns(pooled, pooled + spatial)))
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
    fn tensors_in_parts_are_the_file_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let cases = [
            vec![("x", Dtype::U8, vec![5, 3, 2, 2])],
            vec![("x", Dtype::F32, vec![3, 1, 1, 1])],
            vec![("x", Dtype::F32, vec![1, 12])],
            vec![("features", Dtype::F32, vec![3, 4]), ("spatial", Dtype::F32, vec![3, 5])],
        ];
        for tensors in cases {
            let length =
                |(_, dtype, shape): &(&str, Dtype, Vec<usize>)| shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let mut bytes: Vec<u8> = (0..tensors.iter().map(length).sum()).map(|i| i as u8).collect();
            let in_parts =
                |bytes: &[u8]| write_parts(&path("parts"), &tensors, bytes.chunks(7).map(|part| Ok(part.to_vec())));
            in_parts(&bytes).unwrap();
            let whole = bytes.clone();
            let whole: Vec<_> = tensors
                .iter()
                .scan(0, |start, tensor| {
                    let (name, dtype, shape) = tensor.clone();
                    let range = *start..*start + length(tensor);
                    *start = range.end;
                    Some((name, dtype, shape, whole[range].to_vec()))
                })
                .collect();
            write(&path("whole"), &whole).unwrap();
            assert_eq!(std::fs::read(path("parts")).unwrap(), std::fs::read(path("whole")).unwrap());
            std::fs::remove_file(path("parts")).unwrap();
            assert!(in_parts(&bytes[1..]).is_err());
            bytes.push(0);
            assert!(in_parts(&bytes).is_err());
            assert!(!path("parts").exists());
        }
    }
    #[test]
    fn features_in_parts_are_rows_of_each_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FEATURES);
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        crate::parts::tests::with_job(folder.path(), |job| {
            let parts = Parts { job, name: "features", unit: "images", count: 3, size: 2, bytes: 12 };
            parts.keep(0, &bytes(&[1.0, 2.0, 3.0, 4.0, 10.0, 20.0])).unwrap();
            parts.keep(2, &bytes(&[5.0, 6.0, 30.0])).unwrap();
            write_features(&path, &parts, [2, 1]).unwrap();
            assert_eq!(read_features(&path, FeatureKind::Pooled).unwrap(), (vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2));
            assert_eq!(read_features(&path, FeatureKind::Spatial).unwrap(), (vec![10.0, 20.0, 30.0], 3, 1));
            write_features(&path, &parts, [3, 0]).unwrap();
            assert_eq!(read_features(&path, FeatureKind::Pooled).unwrap().2, 3);
            assert!(read_features(&path, FeatureKind::Spatial).is_err());
        });
    }
}
