//! The stage `features`: a network looks at images.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use data::Images;
use manifest::extractor::{FeatureNetwork, WeightsFrom};
use manifest::stage::{self, FeatureKind};
use models::extractor::Extractor;
use models::inception::{self, Inception};
use models::weights;

use crate::artifact;
use crate::extractor::{network, pixels};
use crate::job::{EngineError, Finished, Job};
use crate::parts::Parts;
use crate::pictures::Pictures;
use crate::sight::Sight;

/// Features of some images: pooled ones, and spatial ones where the network has them.
pub(crate) type Seen = (Vec<f32>, Vec<f32>);

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

    /// Numbers of an image's pooled features, and of its spatial ones.
    pub(crate) fn widths(&self) -> [usize; 2] {
        match self {
            Self::Cnn(network) => [network.width(), 0],
            Self::Inception(_) => [inception::POOLED, inception::SPATIAL],
        }
    }

    /// Features of the images `indices`.
    ///
    /// # Errors
    /// The images are of another size than the network's.
    pub(crate) fn see(&self, images: &Images, indices: &[usize], device: &Device) -> Result<Seen> {
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
pub(crate) fn open_inception(path: &Path) -> Result<weights::WeightFile> {
    let mut file = weights::WeightFile::open(path, None)?;
    file.translate(weights::names::Family::Inception);
    file.keep(&inception::named_shapes()?)?;
    Ok(file)
}

/// Numbers of an image's features in `network`; none of a kind that it does not have.
pub(crate) fn width(network: &FeatureNetwork, of: FeatureKind) -> usize {
    match (network, of) {
        (FeatureNetwork::Inception(_), FeatureKind::Pooled) => inception::POOLED,
        (FeatureNetwork::Inception(_), FeatureKind::Spatial) => inception::SPATIAL,
        (FeatureNetwork::Cnn(cnn), FeatureKind::Pooled) => models::extractor::feature_count(cnn),
        (FeatureNetwork::Cnn(_), FeatureKind::Spatial) => 0,
    }
}

/// One channel as three alike.
pub(crate) fn coloured(x: &Tensor) -> Result<Tensor> {
    Ok(if x.dim(1)? == 1 { x.repeat((1, 3, 1, 1))? } else { x.clone() })
}

/// Features of samples or of a dataset, `features` `[n, F]`, and Inception's `spatial` `[n, F']`. Samples in latents are
/// decoded on the way: no more than a few images are in memory. Parts that are finished are kept: a killed stage goes on at
/// the next one, to the same bits.
///
/// # Errors
/// An input is missing or of another size than the network's; [`EngineError::Interrupted`] with all finished parts kept.
pub fn features(job: &Job, stage: &stage::Features) -> Result<Finished, EngineError> {
    let mut pictures = Pictures::open(job, stage)?;
    let mut sight = Sight::open(job, stage, pictures.side())?;
    let (widths, size) = (sight.widths(), pictures.at_once(sight.at_once()));
    let bytes = size_of::<f32>() * widths.iter().sum::<usize>();
    let parts = Parts { job, name: "features", unit: "images", count: pictures.len(), size, bytes };
    pictures.each_from(parts.done(), size, |first, images| {
        if job.stopping() {
            return Err(EngineError::Interrupted);
        }
        let (pooled, spatial) = sight.see(&images)?;
        let values = pooled.iter().chain(&spatial);
        Ok(parts.keep(first, &values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?)
    })?;
    artifact::write_features(&job.directory.join(artifact::FEATURES), &parts, widths)?;
    parts.remove()?;
    Ok(Finished::completed(artifact::FEATURES))
}
