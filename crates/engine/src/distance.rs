//! The stages `statistics` (a reference's mean, covariance and its factor) and `metrics` (the distance of features to it).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use manifest::stage;
use metrics::{Gaussian, Reference, subsets};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::job::{EngineError, Finished, Job};
use crate::{archive, artifact};

/// Summarises features by mean and covariance, or reads those that others have published, and factors the covariance once for all
/// distances to it. `count` is the number of images, 0 where an archive does not say.
///
/// # Errors
/// The features are missing, too few or not finite; the archive is damaged, or not of the extractor's features.
pub fn statistics(job: &Job, stage: &stage::Statistics) -> Result<Finished, EngineError> {
    let (gaussian, n) = match &stage.published {
        Some(network) => (archive::read_statistics(job.input("published")?, stage.of, network)?, 0),
        None => {
            let (features, n, width) = artifact::read_features(job.input("features")?, stage.of)?;
            (Gaussian::from_features(&features, width).map_err(anyhow::Error::from)?, n)
        }
    };
    let width = gaussian.dimensions();
    let reference = Reference::new(gaussian).map_err(anyhow::Error::from)?;
    let (gaussian, factor) = (reference.gaussian(), reference.factor());
    let bytes = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let tensors = [
        ("mean", Dtype::F64, vec![width], bytes(gaussian.mean())),
        ("covariance", Dtype::F64, vec![width, width], bytes(&gaussian.covariance())),
        ("factor", Dtype::F64, vec![factor.len() / width, width], bytes(&factor)),
        ("count", Dtype::F64, vec![1], bytes(&[n as f64])),
    ];
    artifact::write(&job.directory.join(artifact::STATISTICS), &tensors)?;
    Ok(Finished::completed(artifact::STATISTICS))
}

/// The Frechet distance of `features` to `reference`, `stage.name`; over half-size subsets that all cells share,
/// `stage.name.subset.K`; and the counts `samples` and, where it is known, `reference`.
///
/// # Errors
/// An input is missing, or the two come from different extractors.
pub fn metrics(job: &Job, stage: &stage::Metrics) -> Result<Finished, EngineError> {
    let (features, n, width) = artifact::read_features(job.input("features")?, stage.of)?;
    let (reference, count) = read_statistics(job.input("reference")?)?;
    let distance =
        |gaussian: Result<Gaussian, metrics::FeatureError>| -> Result<f64> { Ok(reference.distance(&gaussian?)?) };
    let mut metrics = BTreeMap::from([
        (stage.name.clone(), distance(Gaussian::from_features(&features, width))?),
        ("samples".to_owned(), n as f64),
    ]);
    if count > 0.0 {
        metrics.insert("reference".to_owned(), count);
    }
    let halves = subsets::halves(n, stage.subsets, stage.seed);
    let over: Vec<Result<f64>> =
        halves.par_iter().map(|half| distance(Gaussian::from_subset(&features, width, half))).collect();
    for (number, value) in over.into_iter().enumerate() {
        metrics.insert(format!("{}.subset.{number:02}", stage.name), value?);
    }
    Ok(Finished::measured(metrics))
}

/// A reference and the number of images behind it, 0 where that is not known.
pub(crate) fn read_statistics(path: &Path) -> Result<(Reference, f64)> {
    let read = |name| -> Result<Vec<f64>> {
        let (_, bytes) = artifact::read(path, name, Dtype::F64)?;
        Ok(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
    };
    let reference = Reference::from_parts(read("mean")?, &read("covariance")?, &read("factor")?)?;
    Ok((reference, read("count")?[0]))
}
