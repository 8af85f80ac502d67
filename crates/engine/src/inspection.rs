//! A look into the files of weights and statistics of a planned stage before anything runs.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use anyhow::Result;
use manifest::denoiser::Denoiser;
use manifest::extractor::FeatureNetwork;
use manifest::plan::{Input, PlannedStage};
use manifest::stage::Stage;
use models::weights::WeightFile;

use crate::{archive, artifact, autoencoder, embeddings, features, import, unet};

/// Looks into the files of weights and statistics of planned stages before they run: a damaged file, or another network's, is found
/// here and not an hour later. No number is read, and no file of weights twice for the same network.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Files that have been looked into, and as what.
    seen: BTreeSet<(PathBuf, String)>,
}

impl Inspection {
    /// Looks into the files of a stage.
    ///
    /// # Errors
    /// Names the file, and every tensor that it lacks or has in another shape.
    pub fn look(&mut self, planned: &PlannedStage) -> Result<()> {
        let file = |name: &str| match planned.inputs.get(name) {
            Some(Input::File { path, .. }) => Some(path.as_path()),
            _ => None,
        };
        let mut backbone = |denoiser: &Denoiser| match (file("backbone"), denoiser) {
            (Some(path), Denoiser::Dit(dit)) => {
                self.once(path, dit, || Ok(artifact::checked_backbone(WeightFile::open(path, None)?, dit).map(|_| ())?))
            }
            (Some(path), Denoiser::Unet(network)) => {
                self.once(path, network, || unet::open_file(path, &network.shape).map(|_| ()))
            }
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
        if let (Some(FeatureNetwork::Inception(network)), Some(path)) = (extractor, file("extractor")) {
            self.once(path, network, || features::open_inception(path).map(|_| ()))?;
        }
        if let (Some(network), Some(path)) = (autoencoder, file("autoencoder")) {
            self.once(path, network, || autoencoder::open_file(path, &network.shape).map(|_| ()))?;
        }
        Ok(())
    }

    fn once(&mut self, path: &Path, network: &impl Debug, look: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.seen.insert((path.to_owned(), format!("{network:?}"))) { look() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_into_once_for_each_network() {
        let (mut inspection, mut looks) = (Inspection::default(), Vec::new());
        for (path, network) in [("a", 1), ("a", 1), ("b", 1), ("a", 2), ("b", 1)] {
            let look = || {
                looks.push((path, network));
                Ok(())
            };
            inspection.once(Path::new(path), &network, look).unwrap();
        }
        assert_eq!(looks, [("a", 1), ("b", 1), ("a", 2)]);
    }
}
