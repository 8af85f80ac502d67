//! What is measured of samples: features, distances and more, and of a gate.

use super::{Chains, stage_inputs};
use crate::digest::Key;
use crate::manifest::Measure;
use crate::method::Method;
use crate::plan::Unmeasured;
use crate::problem::Error;
use crate::scale::Evaluation;
use crate::stage::{
    Activation, Coverage, Extrapolation, FeatureKind, Features, InceptionScore, Metrics, Similarity, Stage,
};
use crate::stages::Inputs;

/// Samples behind a published distance: with fewer, the distance at infinitely many says something of its own.
const PUBLISHED_SAMPLES: usize = 50_000;
/// Parts through whose distances the line is laid, and samples of the smallest (Chong & Forsyth 2020).
const PARTS: usize = 15;
/// See [`PARTS`].
const SMALLEST_PART: usize = 5_000;
/// The neighbour that the manifold's balls reach to (Kynkaanniemi et al. 2019).
const NEIGHBOURS: usize = 3;
/// Samples of a split of the Inception score.
const SPLIT: usize = 5_000;
/// Samples whose pairs are compared (Table 5).
const COMPARED: usize = 1_000;

impl Chains<'_> {
    pub(super) fn features(&mut self, sample: Key) -> Result<Key, Error> {
        let stage = Stage::Features(Features {
            extractor: self.judge.network.clone(),
            data: None,
            latents: self.latents.clone(),
            numerics: self.scale.numerics.clone(),
        });
        let mut inputs = self.with_extractor(("samples", sample));
        inputs.extend(self.autoencoder.clone());
        self.stages.add(stage, inputs)
    }

    fn with_extractor(&self, other: (&str, Key)) -> Inputs {
        let extractor = self.extractor_input.clone().map(|input| ("extractor".to_owned(), input));
        stage_inputs([other]).into_iter().chain(extractor).collect()
    }

    pub(super) fn metrics(&mut self, features: Key) -> Result<Key, Error> {
        self.distance(features, self.reference.statistics, FeatureKind::Pooled)
    }

    fn distance(&mut self, features: Key, reference: Key, of: FeatureKind) -> Result<Key, Error> {
        let (stage, inputs) = self.distance_stage(features, reference, of);
        self.stages.add(stage, inputs)
    }

    fn distance_stage(&self, features: Key, reference: Key, of: FeatureKind) -> (Stage, Inputs) {
        let name = match of {
            FeatureKind::Pooled => self.judge.distance.clone(),
            FeatureKind::Spatial if self.judge.distance == "fid" => "sfid".to_owned(),
            FeatureKind::Spatial => format!("{}_spatial", self.judge.distance),
        };
        let Evaluation { subsets, subset_seed: seed, .. } = self.scale.evaluation;
        let stage = Stage::Metrics(Metrics { name, subsets, seed, of });
        (stage, stage_inputs([("features", features), ("reference", reference)]))
    }

    /// What is measured beside the distance, as far as reference, extractor and samples allow it.
    pub(super) fn measures(&mut self, sample: Key, features: Key) -> Result<Vec<Key>, Error> {
        let mut keys = Vec::new();
        for &measure in self.measures {
            if let Ok((stage, inputs)) = self.measure(measure, sample, features) {
                keys.push(self.stages.add(stage, inputs)?);
            }
        }
        Ok(keys)
    }

    /// What the others are, of whatever run.
    pub(crate) fn unmeasured(&self) -> Vec<Unmeasured> {
        let any = self.reference.statistics;
        let refused = |&measure: &Measure| {
            let reason = self.measure(measure, any, any).err()?.to_owned();
            Some(Unmeasured { measure, reason })
        };
        self.measures.iter().filter_map(refused).collect()
    }

    /// A measure's stage, or why it has none.
    fn measure(&self, measure: Measure, sample: Key, features: Key) -> Result<(Stage, Inputs), &'static str> {
        let count = self.scale.sample.count;
        let beside = |reference: Key| stage_inputs([("features", features), ("reference", reference)]);
        Ok(match measure {
            Measure::Infinity if count >= PUBLISHED_SAMPLES => return Err("there are as many samples as in the paper"),
            Measure::Infinity => {
                let stage = Stage::Extrapolation(Extrapolation {
                    name: format!("{}_infinity", self.judge.distance),
                    smallest: SMALLEST_PART.min(count / 2),
                    points: PARTS,
                    seed: self.scale.evaluation.subset_seed,
                });
                (stage, beside(self.reference.statistics))
            }
            Measure::PrecisionRecall => {
                let alone = "the reference is statistics alone, and the scale gives no images as `evaluation.coverage`";
                (Stage::Coverage(Coverage { neighbours: NEIGHBOURS }), beside(self.coverage.ok_or(alone)?))
            }
            Measure::InceptionScore if !self.judge.network.has_classes() => {
                return Err("the extractor tells no classes apart");
            }
            Measure::InceptionScore => {
                let (name, extractor) = (self.judge.score.clone(), self.judge.network.clone());
                let stage = Stage::InceptionScore(InceptionScore { name, extractor, split: SPLIT });
                (stage, self.with_extractor(("features", features)))
            }
            Measure::Similarity => {
                let stage = Stage::Similarity(Similarity { count: COMPARED.min(count) });
                (stage, stage_inputs([("samples", sample)]))
            }
            Measure::SpatialDistance => {
                let reference = self.reference.spatial.ok_or("the extractor has no spatial features")?;
                self.distance_stage(features, reference, FeatureKind::Spatial)
            }
        })
    }

    pub(super) fn activation(&mut self, method: &Method, trained: Key) -> Result<Key, Error> {
        let stage = Stage::Activation(Activation {
            denoiser: self.backbone.denoiser.clone(),
            method: method.clone(),
            timesteps: self.scale.evaluation.activation_timesteps,
            diffusion: self.backbone.diffusion.clone(),
            numerics: self.backbone.denoiser.numerics(&self.scale.numerics),
        });
        let inputs = self.backbone_and(method, [("trained", trained)].into_iter().chain(self.embeddings()));
        self.stages.add(stage, inputs)
    }
}
