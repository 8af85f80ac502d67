//! The stages that embed captions, for a backbone that is conditioned on text.

use crate::denoiser::Denoiser;
use crate::gather::{Gather, Images};
use crate::scale::Numerics;
use crate::stage::{Captions, Embeddings, Stage};
use crate::stages::Inputs;
use crate::text::{TextEncoder, TextNetwork, TextVectors};
use crate::tree::Node;

/// An encoder that has been found.
pub(crate) struct Encoder {
    network: TextNetwork,
    of: TextVectors,
    inputs: Inputs,
    numerics: Numerics,
}

impl Encoder {
    /// Looks its files up, as the recipe at `node` names them. Its vectors are those that `denoiser` reads.
    pub(crate) fn gather(
        text: &TextEncoder,
        denoiser: &Denoiser,
        node: &Node,
        numerics: &Numerics,
        gather: &mut Gather<'_>,
    ) -> Self {
        let of = match denoiser {
            Denoiser::Dit(_) => TextVectors::Pooled,
            Denoiser::Unet(_) => TextVectors::Tokens,
        };
        let (network, files) = text.network();
        let mut inputs = Inputs::new();
        for (name, key, file) in files {
            let input = gather.weights(file, &node.place_of(&format!("text.{key}.file")));
            inputs.extend(input.map(|input| (name.to_owned(), input)));
        }
        Self { network, of, inputs, numerics: numerics.clone() }
    }

    /// The stage that embeds the captions of a dataset.
    pub(crate) fn of_data(&self, images: &Images) -> (Stage, Inputs) {
        let (stage, mut inputs) = self.stage(Captions::Of(images.source.clone()));
        inputs.extend(images.inputs.clone());
        (stage, inputs)
    }

    /// The stage that embeds these captions.
    pub(crate) fn of_listed(&self, captions: &[String]) -> (Stage, Inputs) {
        self.stage(Captions::Listed(captions.to_vec()))
    }

    fn stage(&self, captions: Captions) -> (Stage, Inputs) {
        let (encoder, numerics) = (self.network.clone(), self.numerics.clone());
        (Stage::Embeddings(Embeddings { encoder, captions, of: self.of, numerics }), self.inputs.clone())
    }
}
