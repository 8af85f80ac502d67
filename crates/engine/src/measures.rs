//! The stages that measure samples beside their distance: `extrapolation`, `coverage`, `inception_score`, `similarity`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use manifest::stage;
use manifest::stage::FeatureKind::Pooled;
use metrics::{Coverage, Manifold, PairStatistics, Similarity, extrapolate_parts, part_sizes};

use crate::artifact;
use crate::distance::read_statistics;
use crate::features::Judge;
use crate::job::{EngineError, Finished, Job};
use crate::samples::Samples;

/// The distance at infinitely many samples, `stage.name`.
///
/// # Errors
/// An input is missing, or the two come from different extractors.
pub fn extrapolation(job: &Job, stage: &stage::Extrapolation) -> Result<Finished, EngineError> {
    let (features, n, width) = artifact::read_features(job.input("features")?, Pooled)?;
    let (reference, _) = read_statistics(job.input("reference")?)?;
    let sizes = part_sizes(n, stage.smallest, stage.points);
    let line = extrapolate_parts(&reference, &features, width, &sizes, stage.seed).map_err(anyhow::Error::from)?;
    let line = line.with_context(|| format!("parts of {} to {n} samples make no line", stage.smallest))?;
    Ok(Finished::measured([(stage.name.clone(), line.at_infinity)].into()))
}

/// `precision` and `recall`.
///
/// # Errors
/// An input is missing, too small, or the two come from different extractors.
pub fn coverage(job: &Job, stage: &stage::Coverage) -> Result<Finished, EngineError> {
    let (samples, _, width) = artifact::read_features(job.input("features")?, Pooled)?;
    let (real, _, real_width) = artifact::read_features(job.input("reference")?, Pooled)?;
    let of = || -> Result<Coverage, metrics::FeatureError> {
        let real = Manifold::new(&real, real_width, stage.neighbours)?;
        Coverage::of(&real, &Manifold::new(&samples, width, stage.neighbours)?)
    };
    let coverage = of().map_err(anyhow::Error::from)?;
    let numbers = [("precision", coverage.precision()), ("recall", coverage.recall())];
    Ok(Finished::measured(numbers.map(|(name, value)| (name.to_owned(), value)).into()))
}

/// The Inception score, `stage.name`.
///
/// # Errors
/// An input is missing, or the features are not the extractor's.
pub fn inception_score(job: &Job, stage: &stage::InceptionScore) -> Result<Finished, EngineError> {
    let (features, n, width) = artifact::read_features(job.input("features")?, Pooled)?;
    let judge = Judge::open(job, &stage.extractor, &Device::Cpu)?;
    let of = || -> Result<f64> {
        let features = Tensor::from_vec(features, (n, width), &Device::Cpu)?;
        let (probabilities, classes) = judge.probabilities(&features)?;
        Ok(metrics::inception_score(&probabilities, classes, stage.split)?)
    };
    Ok(Finished::measured([(stage.name.clone(), of()?)].into()))
}

/// `correlation_*` and `similarity_*`: `max`, `min`, `mean` and `std` over all pairs of the first `stage.count` samples.
///
/// # Errors
/// The input is missing; a sample is constant.
pub fn similarity(job: &Job, stage: &stage::Similarity) -> Result<Finished, EngineError> {
    let samples = Samples::open(job.input("samples")?)?;
    let elements = samples.elements();
    let values = samples.values(0..stage.count.min(samples.len()))?;
    let mut numbers = BTreeMap::new();
    for (name, similarity) in [("correlation", Similarity::Pearson), ("similarity", Similarity::Cosine)] {
        let of = PairStatistics::of(&values, elements, similarity).map_err(anyhow::Error::from)?;
        for (which, value) in [("max", of.max), ("min", of.min), ("mean", of.mean), ("std", of.sd)] {
            numbers.insert(format!("{name}_{which}"), value);
        }
    }
    Ok(Finished::measured(numbers))
}
