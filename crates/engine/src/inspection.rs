//! A look into the files of weights and statistics of a planned stage before anything runs.

use anyhow::Result;
use manifest::denoiser::Denoiser;
use manifest::extractor::FeatureNetwork;
use manifest::plan::{Input, PlannedStage};
use manifest::stage::Stage;
use models::weights::WeightFile;

use crate::{archive, artifact, autoencoder, embeddings, features, import, unet};

/// Looks into the files of weights and statistics of a planned stage: a damaged file, or another network's, is found here and not an hour later. No
/// number is read.
///
/// # Errors
/// Names the file, and every tensor that it lacks or has in another shape.
pub fn inspect(planned: &PlannedStage) -> Result<()> {
    let file = |name: &str| match planned.inputs.get(name) {
        Some(Input::File { path, .. }) => Some(path.as_path()),
        _ => None,
    };
    let backbone = |denoiser: &Denoiser| match (file("backbone"), denoiser) {
        (Some(path), Denoiser::Dit(dit)) => {
            Ok(artifact::checked_backbone(WeightFile::open(path, None)?, dit).map(|_| ())?)
        }
        (Some(path), Denoiser::Unet(network)) => unet::open_file(path, &network.shape).map(|_| ()),
        (None, _) => Ok(()),
    };
    let (extractor, autoencoder) = match &planned.stage {
        Stage::Train(stage) => return backbone(&stage.denoiser),
        Stage::Sample(stage) => return backbone(&stage.denoiser),
        Stage::Import(stage) => {
            file("trained").map_or(Ok(()), |path| import::inspect(path, stage))?;
            return backbone(&stage.denoiser);
        }
        Stage::Embeddings(_) => return embeddings::inspect(&planned.inputs),
        Stage::Statistics(stage) => {
            return match (&stage.published, file("published")) {
                (Some(network), Some(path)) => archive::open_statistics(path, stage.of, network).map(|_| ()),
                _ => Ok(()),
            };
        }
        Stage::Features(stage) => (Some(&stage.extractor), stage.latents.as_ref().map(|space| &space.autoencoder)),
        Stage::InceptionScore(stage) => (Some(&stage.extractor), None),
        Stage::Encode(stage) => (None, Some(&stage.autoencoder)),
        Stage::Decode(stage) => (None, Some(&stage.latents.autoencoder)),
        _ => return Ok(()),
    };
    if let (Some(FeatureNetwork::Inception(_)), Some(path)) = (extractor, file("extractor")) {
        features::open_inception(path)?;
    }
    if let (Some(network), Some(path)) = (autoencoder, file("autoencoder")) {
        autoencoder::open_file(path, &network.shape)?;
    }
    Ok(())
}
