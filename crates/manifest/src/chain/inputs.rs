//! What the chains of a scale read: data and weights, found.

use crate::captions::Encoder;
use crate::digest::Key;
use crate::files::Loaded;
use crate::gather::{Examples, Gather, Images, Network};
use crate::manifest::Measure;
use crate::plan::Input;
use crate::problem::Error;
use crate::recipe::Base;
use crate::reference::ReferenceFrom;
use crate::scale::{Evaluation, Scale};
use crate::stages::{Inputs, Stages};
use crate::tree::Node;

/// The inputs of a scale's chains.
pub(crate) struct ChainInputs {
    pub(super) backbone: Network,
    pub(super) extractor: Network,
    pub(super) examples: Examples,
    pub(super) reference: GatheredReference,
    pub(super) coverage: Option<Images>,
    pub(super) floor: Option<Images>,
    pub(super) autoencoder: Inputs,
    pub(super) encoder: Option<Encoder>,
}

/// What distances are taken to, found.
pub(super) enum GatheredReference {
    /// Real images.
    Images(Images),
    /// An archive of statistics; nothing where it is missing, which is noted.
    Statistics(Option<Input>),
}

/// The stages of embeddings.
pub(super) struct EmbeddedCaptions {
    /// Of the training images' captions.
    pub(super) data: Key,
    /// Of captions that are shown, and these.
    pub(super) shown: Option<(Key, Vec<String>)>,
}

impl EmbeddedCaptions {
    /// A manifest's captions are shown, or those that the scale has in their place.
    pub(super) fn plan(
        encoder: &Encoder,
        data: &Images,
        captions: &[String],
        stages: &mut Stages,
    ) -> Result<Self, Error> {
        let mut add = |(stage, inputs)| stages.add(stage, inputs);
        let shown = (!captions.is_empty()).then(|| add(encoder.of_listed(captions))).transpose()?;
        Ok(Self { data: add(encoder.of_data(data))?, shown: shown.map(|key| (key, captions.to_vec())) })
    }
}

impl ChainInputs {
    /// Looks up all data that a scale asks for.
    pub(crate) fn gather(
        scale: &Loaded<Scale>,
        base: &Base,
        recipe: &Node,
        backbone: Network,
        extractor: Network,
        measures: &[Measure],
        gather: &mut Gather<'_>,
    ) -> Self {
        let Evaluation { reference, coverage, floor, .. } = &scale.value.evaluation;
        let coverage = coverage.as_ref().filter(|_| measures.contains(&Measure::PrecisionRecall));
        let floor = floor.as_ref().map(|floor| floor.head(scale.value.sample.count));
        let (space, numerics) = (&base.space, &scale.value.numerics);
        let autoencoder = gather.autoencoder(space, recipe);
        let images = gather.labelled(&scale.value.data, &scale.node, "data", base.denoiser.classes());
        let flips = scale.value.train.horizontal_flip;
        Self {
            backbone,
            extractor,
            examples: Examples::new(images, space, autoencoder.clone(), flips, numerics),
            reference: match reference {
                ReferenceFrom::Images(images) => {
                    GatheredReference::Images(gather.images(images, &scale.node, "evaluation.reference"))
                }
                ReferenceFrom::Statistics(file) => GatheredReference::Statistics(
                    gather.weights(file, &scale.node.place_of("evaluation.reference.file")),
                ),
            },
            coverage: coverage.map(|images| gather.images(images, &scale.node, "evaluation.coverage")),
            floor: floor.map(|floor| gather.images(&floor, &scale.node, "evaluation.floor")),
            autoencoder,
            encoder: (base.text.as_ref()).map(|text| Encoder::gather(text, &base.denoiser, recipe, numerics, gather)),
        }
    }
}
