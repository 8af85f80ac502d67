//! A look into the files of weights and statistics of a planned stage before anything runs.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use anyhow::Result;
use manifest::denoiser::Denoiser;
use manifest::dit::DitConfig;
use manifest::extractor::FeatureNetwork;
use manifest::plan::{Input, PlannedStage};
use manifest::stage::Stage;
use models::weights::WeightFile;

use crate::{archive, autoencoder, embeddings, features, unet};

/// Looks into the files of weights and statistics of planned stages: a damaged file, or another network's, is found here and not an hour later. No
/// number is read, and no file of weights twice for the same network.
///
/// # Errors
/// Names the file, and every tensor that it lacks or has in another shape.
pub fn inspect<'p>(stages: impl IntoIterator<Item = &'p PlannedStage>) -> Result<()> {
    let mut seen = Seen::default();
    stages.into_iter().try_for_each(|planned| inspect_stage(planned, &mut seen))
}

/// Files that have been looked into, and as what.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    fn once(&mut self, path: &Path, network: &impl Debug, look: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.0.insert(format!("{} {network:?}", path.display())) { look() } else { Ok(()) }
    }
}

fn inspect_stage(planned: &PlannedStage, seen: &mut Seen) -> Result<()> {
    let file = |name: &str| match planned.inputs.get(name) {
        Some(Input::File { path, .. }) => Some(path.as_path()),
        _ => None,
    };
    let mut backbone = |denoiser: &Denoiser| match (file("backbone"), denoiser) {
        (Some(path), Denoiser::Dit(dit)) => seen.once(path, dit, || dit_file(path, dit)),
        (Some(path), Denoiser::Unet(network)) => {
            seen.once(path, network, || unet::open_file(path, &network.shape).map(|_| ()))
        }
        (None, _) => Ok(()),
    };
    let (extractor, autoencoder) = match &planned.stage {
        Stage::Train(stage) => return backbone(&stage.denoiser),
        Stage::Sample(stage) => return backbone(&stage.denoiser),
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
        seen.once(path, network, || features::open_inception(path).map(|_| ()))?;
    }
    if let (Some(network), Some(path)) = (autoencoder, file("autoencoder")) {
        seen.once(path, network, || autoencoder::open_file(path, &network.shape).map(|_| ()))?;
    }
    Ok(())
}

/// A file that must hold the weights of a diffusion transformer, and nothing else.
fn dit_file(path: &Path, dit: &DitConfig) -> Result<()> {
    Ok(WeightFile::open(path, None)?.check(&models::dit::named_shapes(dit))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_into_once_for_each_network() {
        let (mut seen, mut looks) = (Seen::default(), Vec::new());
        for (path, network) in [("a", 1), ("a", 1), ("b", 1), ("a", 2), ("b", 1)] {
            seen.once(Path::new(path), &network, || {
                looks.push((path, network));
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(looks, [("a", 1), ("b", 1), ("a", 2)]);
    }
}
