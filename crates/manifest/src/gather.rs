//! What stages read: data and weights looked up, what is missing remembered, networks that must be trained first.

use crate::captions::Encoder;
use crate::content;
use crate::dataset::{Dataset, ImageFolder, Source};
use crate::digest::Key;
use crate::lookup::Lookup;
use crate::plan::Input;
use crate::problem::{Error, Missing, MissingReason, Place};
use crate::recipe::{Base, ExtractorRecipe, Pretraining, Space};
use crate::scale::{Numerics, Weights};
use crate::stage::{Encode, Pretrain, Stage, TrainExtractor};
use crate::stages::{Inputs, Stages};
use crate::tree::Node;

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

    /// Images whose labels condition a network of so many classes, if it has any.
    pub(crate) fn labelled(&mut self, dataset: &Dataset, node: &Node, path: &str, classes: Option<usize>) -> Images {
        let images = self.images(dataset, node, path);
        // The first `count` images may be of fewer classes than there are folders.
        if let (Dataset::ClassFolders(ImageFolder { folder, count: None, .. }), Some(classes)) = (dataset, classes)
            && let Some(Input::File { path: found_at, .. }) = images.inputs.get("folder")
            && let Ok(folders) = content::folders(found_at)
            && folders.len() > classes
        {
            let reason = MissingReason::Classes { path: found_at.clone(), found: folders.len(), classes };
            let place = node.place_of(&format!("{path}.folder"));
            self.missing.push(Missing { place, wanted: folder.clone(), reason, remedy: None });
        }
        images
    }

    /// An error if anything is missing.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.missing.is_empty() { Ok(()) } else { Err(Error::Missing(self.missing)) }
    }

    pub(crate) fn weights(&mut self, weights: &Weights, place: &Place) -> Option<Input> {
        self.lookup.weights(weights, place).map_err(|missing| self.missing.push(*missing)).ok()
    }

    /// The autoencoder's file, an input of every stage that crosses between images and latents.
    pub(crate) fn autoencoder(&mut self, space: &Space, node: &Node) -> Inputs {
        let weights = match space {
            Space::Pixels(_) => None,
            Space::Latents(latents) => latents.autoencoder.weights(),
        };
        let place = node.place_of("space.autoencoder.weights.file");
        let input = weights.and_then(|weights| self.weights(weights, &place));
        input.map(|input| ("autoencoder".to_owned(), input)).into_iter().collect()
    }
}

/// What a network is trained on: images, or the latents that a stage makes of them.
pub(crate) struct Examples {
    images: Images,
    /// That stage; nothing for a network that sees pixels.
    encode: Option<Encode>,
    autoencoder: Inputs,
}

impl Examples {
    /// Those of a network that sees `space`, whose autoencoder has the inputs `autoencoder`.
    pub(crate) fn new(
        images: Images,
        space: &Space,
        autoencoder: Inputs,
        horizontal_flip: bool,
        numerics: &Numerics,
    ) -> Self {
        let encode = space.latents().map(|latents| Encode {
            autoencoder: latents.autoencoder,
            data: images.source.clone(),
            horizontal_flip,
            numerics: numerics.clone(),
        });
        Self { images, encode, autoencoder }
    }

    /// The images.
    pub(crate) fn images(&self) -> &Images {
        &self.images
    }

    /// Where they come from.
    pub(crate) fn source(&self) -> Source {
        self.images.source.clone()
    }

    /// What a stage that trains on them reads: the images' files, or the latents, whose stage is planned.
    pub(crate) fn inputs(&self, stages: &mut Stages) -> Result<Inputs, Error> {
        let files = self.images.inputs.clone();
        match &self.encode {
            None => Ok(files),
            Some(encode) => {
                let inputs = files.into_iter().chain(self.autoencoder.clone()).collect();
                let latents = stages.add(Stage::Encode(encode.clone()), inputs)?;
                Ok([("latents".to_owned(), Input::Stage(latents))].into())
            }
        }
    }
}

/// A recipe's stage, ready to be added.
pub(crate) struct Training {
    stage: Stage,
    examples: Examples,
    /// The stage of its captions' embeddings, where it is conditioned on text.
    embeddings: Option<(Stage, Inputs)>,
}

impl Training {
    /// Of the recipe at `node`: a UNet's says it under `training`, a diffusion transformer's among its other keys.
    pub(crate) fn backbone(
        base: &Base,
        training: &Pretraining,
        node: &Node,
        numerics: &Numerics,
        gather: &mut Gather<'_>,
    ) -> Self {
        let Base { denoiser, space, text, diffusion } = base;
        let images = gather.labelled(&training.data, node.descend("training"), "data", denoiser.classes());
        let encoder = text.as_ref().map(|text| Encoder::gather(text, denoiser, node, numerics, gather));
        let embeddings = encoder.map(|encoder| encoder.of_data(&images));
        let autoencoder = gather.autoencoder(space, node);
        let examples = Examples::new(images, space, autoencoder, training.optimisation.horizontal_flip, numerics);
        let stage = Stage::Pretrain(Pretrain {
            denoiser: denoiser.clone(),
            data: examples.source(),
            latents: space.latents(),
            diffusion: diffusion.clone(),
            optimisation: training.optimisation.clone(),
            ema_halflife_iterations: training.ema_halflife_iterations,
            seed: training.seed,
            numerics: denoiser.numerics(numerics),
        });
        Self { stage, examples, embeddings }
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
            data: images.source.clone(),
            held_out: recipe.held_out,
            optimisation: recipe.optimisation.clone(),
            seed: recipe.seed,
            numerics: numerics.clone(),
        });
        let examples = Examples { images, encode: None, autoencoder: Inputs::new() };
        Self { stage, examples, embeddings: None }
    }

    /// Plans the stage, and what it reads before it.
    pub(crate) fn plan(self, stages: &mut Stages) -> Result<Key, Error> {
        let mut inputs = self.examples.inputs(stages)?;
        if let Some((stage, files)) = self.embeddings {
            inputs.insert("embeddings".to_owned(), Input::Stage(stages.add(stage, files)?));
        }
        stages.add(self.stage, inputs)
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
