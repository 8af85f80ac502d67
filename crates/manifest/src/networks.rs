//! The networks that a scale names: their recipes, and their weights or the stages that train them.

use crate::chain::ChainInputs;
use crate::extractor::{FeatureNetwork, InceptionNetwork, WeightsFrom};
use crate::files::{Files, Loaded};
use crate::gather::{Gather, Network, Training};
use crate::manifest::Measure;
use crate::problem::{Error, Problems};
use crate::recipe::{Base, ExtractorRecipe, Recipe};
use crate::scale::{Extractor, Scale};
use crate::validate::Checked;

/// The recipes that a scale names, checked together with it.
pub(crate) struct Networks {
    /// The backbone's.
    recipe: Loaded<Recipe>,
    /// The backbone.
    pub(crate) base: Base,
    extractor: Option<Loaded<ExtractorRecipe>>,
}

impl Networks {
    pub(crate) fn load(files: &Files, scale: &Loaded<Scale>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let backbone = problems.keep(backbone(files, scale))?;
        let extractor = match &scale.value.extractor {
            Extractor::Cnn(network) => problems.keep(extractor(files, scale, &network.recipe))?,
            Extractor::Inception(_) | Extractor::InceptionFormula(_) => None,
        };
        let Some((recipe, base)) = backbone else { return Err(problems.into_error()) };
        let config = extractor.as_ref().map(|extractor| &extractor.value.extractor);
        Checked { node: &scale.node, problems: &mut problems }.scale(&scale.value, &base, config);
        problems.finish(Self { recipe, base, extractor })
    }

    /// Looks up everything that the scale's chains read.
    pub(crate) fn gather(&self, scale: &Loaded<Scale>, measures: &[Measure], gather: &mut Gather<'_>) -> ChainInputs {
        let numerics = &scale.value.numerics;
        let backbone = match (&scale.value.backbone.weights, self.recipe.value.pretraining()) {
            (Some(weights), _) => Network::shipped(weights, &scale.node.place_of("backbone.weights.file"), gather),
            (None, Some(training)) => {
                let node = &self.recipe.node;
                Network::Trained(Training::backbone(&self.base, &training, node, numerics, gather).into())
            }
            (None, None) => Network::Formula,
        };
        let weights = match &scale.value.extractor {
            Extractor::Cnn(network) => network.weights.as_ref(),
            Extractor::Inception(inception) => Some(&inception.weights),
            Extractor::InceptionFormula(_) => None,
        };
        let extractor = match (weights, &self.extractor) {
            (None, Some(Loaded { node, value, .. })) => {
                Network::Trained(Training::extractor(value, node, numerics, gather).into())
            }
            (None, None) => Network::Formula,
            (Some(weights), _) => Network::shipped(weights, &scale.node.place_of("extractor.weights.file"), gather),
        };
        ChainInputs::gather(scale, &self.base, &self.recipe.node, backbone, extractor, measures, gather)
    }

    /// The extractor's network and what its numbers are called.
    pub(crate) fn judge(&self, scale: &Loaded<Scale>) -> Judge {
        let inception = |inception| FeatureNetwork::Inception(InceptionNetwork { inception });
        let other =
            |network, name: &str| Judge { network, distance: format!("fd_{name}"), score: format!("is_{name}") };
        match &scale.value.extractor {
            Extractor::Inception(file) if file.is_published() => Judge {
                network: inception(WeightsFrom::File),
                distance: "fid".to_owned(),
                score: "inception_score".to_owned(),
            },
            Extractor::Inception(_) => other(inception(WeightsFrom::File), "inception"),
            Extractor::InceptionFormula(_) => other(inception(WeightsFrom::Formula), "inception_formula"),
            Extractor::Cnn(_) => {
                let cnn = &self.extractor.as_ref().expect("loaded with the scale").value.extractor;
                other(FeatureNetwork::Cnn(cnn.clone()), &cnn.name)
            }
        }
    }
}

/// What judges samples.
pub(crate) struct Judge {
    pub(crate) network: FeatureNetwork,
    /// Name of its Frechet distance.
    pub(crate) distance: String,
    /// Name of its Inception score.
    pub(crate) score: String,
}

/// The backbone's recipe, and what it and the scale say of it.
fn backbone(files: &Files, scale: &Loaded<Scale>) -> Result<(Loaded<Recipe>, Base), Error> {
    let place = scale.node.place_of("backbone.recipe");
    let loaded = files.recipe(&scale.value.backbone.recipe, &place, &[])?;
    let base = match &loaded.value {
        Recipe::Backbone(recipe) => recipe.base(),
        Recipe::Unet(recipe) => recipe.base(scale.value.backbone.weights.is_some()),
        Recipe::Extractor(_) => {
            return Err(Error::at(&place, format!("`{}` is the recipe of an extractor, no backbone", loaded.file)));
        }
    };
    Ok((loaded, base))
}

fn extractor(files: &Files, scale: &Loaded<Scale>, name: &str) -> Result<Loaded<ExtractorRecipe>, Error> {
    let place = scale.node.place_of("extractor.recipe");
    let Loaded { file, node, value } = files.recipe(name, &place, &[])?;
    match value {
        Recipe::Extractor(value) => Ok(Loaded { file, node, value }),
        Recipe::Backbone(_) | Recipe::Unet(_) => {
            Err(Error::at(&place, format!("`{file}` is the recipe of a backbone, no extractor")))
        }
    }
}
