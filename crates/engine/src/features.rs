//! The stage `features`: a network looks at images.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use data::Images;
use manifest::denoiser::Denoiser;
use manifest::extractor::{FeatureNetwork, WeightsFrom};
use manifest::plan::{Input, PlannedStage};
use manifest::stage::{self, Sample, Stage, Train};
use models::extractor::Extractor;
use models::inception::{self, Inception};
use models::weights;
use rayon::prelude::*;

use crate::autoencoder::Autoencoder;
use crate::extractor::{BATCH, PART, network, pixels};
use crate::images::Reader;
use crate::job::{EngineError, Finished, Job, Progress};
use crate::samples::Samples;
use crate::{artifact, autoencoder, embeddings, unet};

/// Features of some images: pooled ones, and spatial ones where the network has them.
type Seen = (Vec<f32>, Vec<f32>);

/// A network with its weights.
pub(crate) enum Judge {
    /// A small CNN.
    Cnn(Extractor),
    /// Inception v3.
    Inception(Box<Inception>),
}

impl Judge {
    /// Reads the weights of `network`, the job's input `extractor`, unless they are a formula.
    ///
    /// # Errors
    /// The input is missing, damaged, or another network's.
    pub(crate) fn open(job: &Job, network: &FeatureNetwork, device: &Device) -> Result<Self, EngineError> {
        let read =
            || -> Result<_, EngineError> { Ok(weights::read(job.input("extractor")?).map_err(anyhow::Error::from)?) };
        match network {
            FeatureNetwork::Cnn(config) => Ok(Self::Cnn(self::network(config, &read()?, device)?)),
            FeatureNetwork::Inception(config) => {
                let weights = match config.inception {
                    WeightsFrom::File => read_inception(job)?,
                    WeightsFrom::Formula => {
                        inception::formula_weights(models::formula::FORMULA_SEED).map_err(anyhow::Error::from)?
                    }
                };
                let network = weights::constants(&weights, DType::F32, device).and_then(|w| Inception::new(&w));
                Ok(Self::Inception(Box::new(network.map_err(anyhow::Error::from)?)))
            }
        }
    }

    fn see(&self, images: &Images, indices: &[usize], device: &Device) -> Result<Seen> {
        match self {
            Self::Cnn(network) => {
                let features = network.features(&pixels(images, indices, device)?)?;
                Ok((features.flatten_all()?.to_vec1()?, Vec::new()))
            }
            Self::Inception(network) => {
                let x = inception::resized(&coloured(&pixels(images, indices, device)?)?)?;
                let features = network.features(&x)?;
                let values = |tensor: Tensor| tensor.flatten_all()?.to_vec1();
                Ok((values(features.pool2048)?, values(features.spatial)?))
            }
        }
    }

    /// Probabilities of the classes, `[n, F]` to `[n, classes]`, and the number of classes: softmax of the head's logits.
    ///
    /// Of Inception without the bias, as the published scores have it.
    ///
    /// # Errors
    /// The features are another network's.
    pub(crate) fn probabilities(&self, features: &Tensor) -> Result<(Vec<f32>, usize)> {
        let logits = match self {
            Self::Cnn(network) => network.head(features)?,
            Self::Inception(network) => network.logits_without_bias(features)?,
        };
        let classes = logits.dim(1)?;
        let probabilities = candle_nn::ops::softmax(&logits, 1)?;
        Ok((probabilities.flatten_all()?.to_vec1()?, classes))
    }
}

/// Inception's weights from a file under any of their published names.
fn read_inception(job: &Job) -> Result<weights::Weights, EngineError> {
    Ok(open_inception(job.input("extractor")?)?.read().map_err(anyhow::Error::from)?)
}

/// A file that holds Inception's weights. No number is read.
fn open_inception(path: &Path) -> Result<weights::WeightFile> {
    let mut file = weights::WeightFile::open(path, None)?;
    file.translate(weights::names::Family::Inception);
    file.keep(&inception::named_shapes()?)?;
    Ok(file)
}

/// Looks into the weight files of a planned stage before anything runs: a damaged file, or another network's, is found here
/// and not an hour later.
///
/// # Errors
/// Names the file, and every tensor that it lacks or has in another shape.
pub fn inspect(planned: &PlannedStage) -> Result<()> {
    let (extractor, autoencoder) = match &planned.stage {
        Stage::Features(stage) => (Some(&stage.extractor), stage.latents.as_ref().map(|space| &space.autoencoder)),
        Stage::InceptionScore(stage) => (Some(&stage.extractor), None),
        Stage::Encode(stage) => (None, Some(&stage.autoencoder)),
        Stage::Decode(stage) => (None, Some(&stage.latents.autoencoder)),
        Stage::Embeddings(_) => return embeddings::inspect(&planned.inputs),
        Stage::Train(Train { denoiser: Denoiser::Unet(network), .. })
        | Stage::Sample(Sample { denoiser: Denoiser::Unet(network), .. }) => {
            return match planned.inputs.get("backbone") {
                Some(Input::File { path, .. }) => unet::open_file(path, &network.shape).map(|_| ()),
                _ => Ok(()),
            };
        }
        _ => return Ok(()),
    };
    if let (Some(FeatureNetwork::Inception(_)), Some(Input::File { path, .. })) =
        (extractor, planned.inputs.get("extractor"))
    {
        open_inception(path)?;
    }
    if let (Some(network), Some(Input::File { path, .. })) = (autoencoder, planned.inputs.get("autoencoder")) {
        autoencoder::open_file(path, &network.shape)?;
    }
    Ok(())
}

/// One channel as three alike.
fn coloured(x: &Tensor) -> Result<Tensor> {
    Ok(if x.dim(1)? == 1 { x.repeat((1, 3, 1, 1))? } else { x.clone() })
}

/// Features of samples or of a dataset, `features` `[n, F]`, and Inception's `spatial` `[n, F']`. Samples in latents are
/// decoded on the way: no more than a few images are in memory.
///
/// # Errors
/// An input is missing or of another size than the network's.
pub fn features(job: &Job, stage: &stage::Features) -> Result<Finished, EngineError> {
    let device = job.tensor_device()?;
    let judge = Judge::open(job, &stage.extractor, &device)?;
    let (mut pooled, mut spatial) = (Vec::new(), Vec::new());
    let mut look = |first: usize, images: &Images, total: usize| -> Result<(), EngineError> {
        if job.stopping() {
            return Err(EngineError::Interrupted);
        }
        let all: Vec<usize> = (0..images.len()).collect();
        let parts = all.par_chunks(PART).map(|part| judge.see(images, part, &device));
        for (some, more) in parts.collect::<Result<Vec<_>>>().context("cannot look at the images")? {
            pooled.extend(some);
            spatial.extend(more);
        }
        let done = (first + images.len()) as u64;
        (job.progress)(Progress { done, total: total as u64, unit: "images", note: String::new() });
        Ok(())
    };
    let count = match (&stage.data, &stage.latents) {
        (Some(source), _) => {
            let reader = Reader::open(job, source)?;
            let count = reader.len();
            reader.each(0..count, BATCH, |first, images| look(first, &images, count))?;
            count
        }
        (None, None) => {
            let samples = Samples::open(job.input("samples")?)?;
            for range in parts(samples.len(), BATCH) {
                look(range.start, &samples.images(range)?, samples.len())?;
            }
            samples.len()
        }
        (None, Some(space)) => {
            let samples = Samples::open(job.input("samples")?)?;
            let autoencoder = Autoencoder::open(job, &space.autoencoder)?;
            for range in parts(samples.len(), PART) {
                let latents = samples.latents(range.clone())?;
                look(range.start, &autoencoder.decode(&latents, samples.side(), space)?, samples.len())?;
            }
            samples.len()
        }
    };
    artifact::write_features(&job.directory.join(artifact::FEATURES), count, pooled, spatial)?;
    Ok(Finished::completed(artifact::FEATURES))
}

/// `0..count` in ranges of `most`.
fn parts(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(most).map(move |first| first..(first + most).min(count))
}
