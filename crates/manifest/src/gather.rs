//! What stages read: data and weights looked up, what is missing remembered, networks that must be trained first.

use std::collections::BTreeMap;

use crate::captions::Encoder;
use crate::dataset::{Dataset, Source};
use crate::lookup::Lookup;
use crate::plan::{Input, PlannedStage};
use crate::problem::{Error, Missing, Place};
use crate::recipe::{BackboneRecipe, ExtractorRecipe, Space};
use crate::scale::{Numerics, Weights};
use crate::stage::{Pretrain, Stage, TrainExtractor};
use crate::tree::Node;

/// Inputs of a stage by name.
pub(crate) type Inputs = BTreeMap<String, Input>;

/// A dataset that has been found.
#[derive(Clone)]
pub(crate) struct Images {
    pub(crate) source: Source,
    pub(crate) inputs: Inputs,
}

/// Looks inputs up and remembers all that are missing.
pub(crate) struct Gather<'a> {
    pub(crate) lookup: Lookup<'a>,
    pub(crate) missing: Vec<Missing>,
}

impl Gather<'_> {
    pub(crate) fn images(&mut self, dataset: &Dataset, node: &Node, path: &str) -> Images {
        let (source, files) = dataset.source();
        let mut inputs = Inputs::new();
        for (name, wanted) in files {
            let place = node.place_of(&format!("{path}.{name}"));
            match self.lookup.input(wanted, &place) {
                Ok(input) => _ = inputs.insert(name.to_owned(), input),
                Err(missing) => self.missing.push(*missing),
            }
        }
        Images { source, inputs }
    }

    /// An error if anything is missing.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.missing.is_empty() { Ok(()) } else { Err(Error::Missing(self.missing)) }
    }

    pub(crate) fn weights(&mut self, weights: &Weights, place: &Place) -> Option<Input> {
        self.lookup.weights(weights, place).map_err(|missing| self.missing.push(*missing)).ok()
    }

    /// The autoencoder is an input of every stage that crosses between images and latents.
    pub(crate) fn autoencoder(&mut self, space: &Space, node: &Node) -> Inputs {
        match space {
            Space::Pixels(_) => Inputs::new(),
            Space::Latents(latents) => {
                let input = self.weights(&latents.autoencoder, &node.place_of("space.autoencoder.file"));
                input.map(|input| ("autoencoder".to_owned(), input)).into_iter().collect()
            }
        }
    }
}

/// A recipe's stage, ready to be added.
pub(crate) struct Training {
    stage: Stage,
    inputs: Inputs,
    /// The stage of its captions' embeddings, where it is conditioned on text.
    embeddings: Option<(Stage, Inputs)>,
}

impl Training {
    pub(crate) fn backbone(recipe: &BackboneRecipe, node: &Node, numerics: &Numerics, gather: &mut Gather<'_>) -> Self {
        let images = gather.images(&recipe.data, node, "data");
        let encoder = recipe.text.as_ref().map(|text| Encoder::gather(text, node, numerics, gather));
        let embeddings = encoder.map(|encoder| encoder.of_data(&images));
        let mut inputs = images.inputs;
        inputs.extend(gather.autoencoder(&recipe.space, node));
        let stage = Stage::Pretrain(Pretrain {
            dit: recipe.dit.clone(),
            data: images.source,
            diffusion: recipe.diffusion.clone(),
            optimisation: recipe.optimisation.clone(),
            ema_halflife_iterations: recipe.ema_halflife_iterations,
            seed: recipe.seed,
            numerics: numerics.clone(),
        });
        Self { stage, inputs, embeddings }
    }

    pub(crate) fn extractor(
        recipe: &ExtractorRecipe,
        node: &Node,
        numerics: &Numerics,
        gather: &mut Gather<'_>,
    ) -> Self {
        let images = gather.images(&recipe.data, node, "data");
        let stage = Stage::TrainExtractor(TrainExtractor {
            extractor: recipe.extractor.clone(),
            data: images.source,
            held_out: recipe.held_out,
            optimisation: recipe.optimisation.clone(),
            seed: recipe.seed,
            numerics: numerics.clone(),
        });
        Self { stage, inputs: images.inputs, embeddings: None }
    }

    /// The stage with its key, behind those that it needs.
    pub(crate) fn plan(mut self) -> Result<Vec<PlannedStage>, Error> {
        let embeddings = self.embeddings.take().map(|(stage, inputs)| planned(stage, inputs)).transpose()?;
        let input = embeddings.as_ref().map(|embeddings| ("embeddings".to_owned(), Input::Stage(embeddings.key)));
        self.inputs.extend(input);
        Ok(embeddings.into_iter().chain([planned(self.stage, self.inputs)?]).collect())
    }
}

/// Weights that are shipped, or the stage that trains them.
pub(crate) enum Network {
    Shipped(Input),
    Trained(Box<Training>),
    /// Weights by formula: nothing is read.
    Formula,
    /// Weights that are missing: noted, and the plan ends before they are needed.
    Missing,
}

impl Network {
    pub(crate) fn shipped(weights: &Weights, place: &Place, gather: &mut Gather<'_>) -> Self {
        gather.weights(weights, place).map_or(Self::Missing, Self::Shipped)
    }
}

/// A stage with its key. Its numbers are finite, since the files were checked.
pub(crate) fn planned(stage: Stage, inputs: Inputs) -> Result<PlannedStage, Error> {
    PlannedStage::new(stage, inputs).map_err(|error| Error::at(&Place::Nowhere, error.to_string()))
}
