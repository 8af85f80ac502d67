//! The networks that a scale names: their recipes, and their weights or the stages that train them.

use crate::chain::ChainInputs;
use crate::extractor::{FeatureNetwork, InceptionNetwork, WeightsFrom};
use crate::files::{Files, Loaded};
use crate::gather::{Gather, Network, Training};
use crate::manifest::Measure;
use crate::problem::{Error, Problems};
use crate::recipe::{BackboneRecipe, ExtractorRecipe, Recipe};
use crate::scale::{Extractor, Scale};
use crate::validate::Checked;

/// The recipes that a scale names, checked together with it.
pub(crate) struct Networks {
    pub(crate) backbone: Loaded<BackboneRecipe>,
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
        let Some(backbone) = backbone else { return Err(problems.into_error()) };
        let config = extractor.as_ref().map(|extractor| &extractor.value.extractor);
        Checked { node: &scale.node, problems: &mut problems }.scale(&scale.value, &backbone.value, config);
        problems.finish(Self { backbone, extractor })
    }

    /// Looks up everything that the scale's chains read.
    pub(crate) fn gather(&self, scale: &Loaded<Scale>, measures: &[Measure], gather: &mut Gather<'_>) -> ChainInputs {
        let numerics = &scale.value.numerics;
        let backbone = match &scale.value.backbone.weights {
            Some(weights) => Network::shipped(weights, &scale.node.place_of("backbone.weights.file"), gather),
            None => {
                let Loaded { node, value, .. } = &self.backbone;
                Network::Trained(Training::backbone(value, node, numerics, gather).into())
            }
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
        ChainInputs::gather(scale, &self.backbone, backbone, extractor, measures, gather)
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

fn backbone(files: &Files, scale: &Loaded<Scale>) -> Result<Loaded<BackboneRecipe>, Error> {
    let place = scale.node.place_of("backbone.recipe");
    let Loaded { file, node, value } = files.recipe(&scale.value.backbone.recipe, &place, &[])?;
    match value {
        Recipe::Backbone(value) => Ok(Loaded { file, node, value }),
        Recipe::Extractor(_) => Err(Error::at(&place, format!("`{file}` is the recipe of an extractor, no backbone"))),
    }
}

fn extractor(files: &Files, scale: &Loaded<Scale>, name: &str) -> Result<Loaded<ExtractorRecipe>, Error> {
    let place = scale.node.place_of("extractor.recipe");
    let Loaded { file, node, value } = files.recipe(name, &place, &[])?;
    match value {
        Recipe::Extractor(value) => Ok(Loaded { file, node, value }),
        Recipe::Backbone(_) => Err(Error::at(&place, format!("`{file}` is the recipe of a backbone, no extractor"))),
    }
}
