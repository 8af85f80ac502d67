//! The chain of stages of a cell: backbone, further training, samples, features, distance and what else is measured.

use std::collections::BTreeMap;

use crate::autoencoder::LatentSpace;
use crate::captions::Encoder;
use crate::digest::Key;
use crate::files::Loaded;
use crate::gather::{Examples, Gather, Images, Network};
use crate::manifest::Measure;
use crate::method::Method;
use crate::networks::Judge;
use crate::plan::{CellRun, Input, PlannedStage, Reference, Unmeasured};
use crate::problem::Error;
use crate::recipe::Base;
use crate::reference::ReferenceFrom;
use crate::scale::{Evaluation, Optimisation, Scale};
use crate::stage::{
    Activation, Coverage, Decode, Extrapolation, FeatureKind, Features, InceptionScore, Metrics, Sample, Similarity,
    Stage, Statistics, Train,
};
use crate::stages::{Inputs, Stages};
use crate::tree::Node;

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
/// Samples that are shown: of a class, and of those that must be decoded first.
const SHOWN: usize = 16;

/// What a cell runs.
pub(crate) struct Run<'a> {
    /// The method, canonical.
    pub(crate) method: &'a Method,
    /// Iterations of its training.
    pub(crate) iterations: usize,
    /// Classes of which samples are shown.
    pub(crate) classes: &'a [u32],
}

/// Everything that the chains of a scale have in common.
pub(crate) struct Chains<'a> {
    scale: &'a Scale,
    backbone: &'a Base,
    judge: Judge,
    measures: &'a [Measure],
    examples: Examples,
    /// Nothing where its weights are a formula.
    backbone_input: Option<Input>,
    /// What samples are latents of; nothing in pixels.
    latents: Option<LatentSpace>,
    /// Nothing where its weights are a formula.
    extractor_input: Option<Input>,
    autoencoder: Inputs,
    /// Of a backbone that is conditioned on text.
    captions: Option<EmbeddedCaptions>,
    reference: Reference,
    /// Features that precision and recall are taken against; published statistics have none.
    coverage: Option<Key>,
    /// Features of the floor's images.
    floor: Option<Key>,
    stages: Stages,
}

/// The inputs of a scale's chains.
pub(crate) struct ChainInputs {
    backbone: Network,
    extractor: Network,
    examples: Examples,
    reference: GatheredReference,
    coverage: Option<Images>,
    floor: Option<Images>,
    autoencoder: Inputs,
    encoder: Option<Encoder>,
}

/// What distances are taken to, found.
enum GatheredReference {
    /// Real images.
    Images(Images),
    /// An archive of statistics; nothing where it is missing, which is noted.
    Statistics(Option<Input>),
}

/// The stages of embeddings.
struct EmbeddedCaptions {
    /// Of the training images' captions.
    data: Key,
    /// Of captions that are shown, and these.
    shown: Option<(Key, Vec<String>)>,
}

impl EmbeddedCaptions {
    /// A manifest's captions are shown, or those that the scale has in their place.
    fn plan(encoder: &Encoder, data: &Images, captions: &[String], stages: &mut Stages) -> Result<Self, Error> {
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

impl<'a> Chains<'a> {
    /// Plans what all cells share. Nothing is missing any more.
    pub(crate) fn new(
        scale: &'a Scale,
        backbone: &'a Base,
        judge: Judge,
        measures: &'a [Measure],
        shown: &[String],
        inputs: ChainInputs,
    ) -> Result<Self, Error> {
        let mut stages = Stages::default();
        let mut input = |network| match network {
            Network::Shipped(input) => Ok(Some(input)),
            Network::Trained(training) => Ok(Some(Input::Stage(training.plan(&mut stages)?))),
            Network::Formula => Ok(None),
            Network::Missing => unreachable!("missing inputs are reported before"),
        };
        let backbone_input = input(inputs.backbone)?;
        let extractor_input = input(inputs.extractor)?;
        let mut real = |images: Images| {
            let stage = Features {
                extractor: judge.network.clone(),
                data: Some(images.source),
                latents: None,
                numerics: scale.numerics.clone(),
            };
            let mut inputs = images.inputs;
            inputs.extend(extractor_input.clone().map(|input| ("extractor".to_owned(), input)));
            stages.add(Stage::Features(stage), inputs)
        };
        let (features, published) = match inputs.reference {
            GatheredReference::Images(images) => (Some(real(images)?), None),
            GatheredReference::Statistics(archive) => (None, archive),
        };
        let coverage = inputs.coverage.map(&mut real).transpose()?.or(features);
        let floor = inputs.floor.map(real).transpose()?;
        let mut statistics = |of| {
            let own = features.map(|key| ("features".to_owned(), Input::Stage(key)));
            let inputs = own.into_iter().chain(published.clone().map(|file| ("published".to_owned(), file))).collect();
            let published = published.as_ref().map(|_| judge.network.clone());
            stages.add(Stage::Statistics(Statistics { of, published }), inputs)
        };
        let (pooled, spatial) = (FeatureKind::Pooled, FeatureKind::Spatial);
        let has_spatial = measures.contains(&Measure::SpatialDistance) && judge.network.has_spatial();
        let (statistics, spatial) = (statistics(pooled)?, has_spatial.then(|| statistics(spatial)).transpose()?);
        let reference = Reference { features, statistics, spatial };
        let own = &scale.sample.captions;
        let shown = if shown.is_empty() || own.is_empty() { shown } else { own };
        let ChainInputs { examples, autoencoder, encoder, .. } = inputs;
        let captions = encoder.map(|encoder| EmbeddedCaptions::plan(&encoder, examples.images(), shown, &mut stages));
        Ok(Self {
            scale,
            backbone,
            judge,
            measures,
            examples,
            backbone_input,
            latents: backbone.space.latents(),
            extractor_input,
            autoencoder,
            captions: captions.transpose()?,
            reference,
            coverage,
            floor,
            stages,
        })
    }

    /// A method as it is run here.
    pub(crate) fn canonical(&self, method: &Method) -> Method {
        method.canonical(&self.backbone.denoiser)
    }

    /// What was planned: the reference, the distance of real images to it, and all stages.
    pub(crate) fn finish(mut self) -> Result<(Reference, Option<Key>, Vec<PlannedStage>), Error> {
        let floor = self.floor.map(|features| self.metrics(features)).transpose()?;
        // Where all cells start from scratch, nobody reads the backbone.
        if let Some(Input::Stage(key)) = self.backbone_input {
            self.stages.remove_unread(key);
        }
        Ok((self.reference, floor, self.stages.into_vec()))
    }

    /// A cell at one seed.
    pub(crate) fn run(&mut self, run: &Run<'_>, seed: u64) -> Result<CellRun, Error> {
        let method = run.method;
        let train = match method {
            Method::Pretrained(_) => None,
            _ => Some(self.train(run, seed)?),
        };
        let activation = match (method, train) {
            (Method::Dmp(_), Some(train)) => Some(self.activation(method, train)?),
            _ => None,
        };
        let mut planned = self.judge(method, seed, train, 0.0)?;
        planned.activation = activation;
        planned.measures = self.measures(planned.sample, planned.features)?;
        planned.decoded = self.decode(planned.sample, self.scale.sample.count)?;
        for &class in run.classes {
            let classes = self.backbone.denoiser.classes().unwrap_or(1) as u32;
            let stage = Sample { class: Some(class % classes), count: SHOWN, ..self.sampling(method, seed, 0.0) };
            let sample = self.sample(stage, train)?;
            planned.classes.push((class, self.images(sample)?));
        }
        planned.captions = self.shown(method, seed, train)?;
        Ok(planned)
    }

    /// Samples of each caption that is shown.
    fn shown(&mut self, method: &Method, seed: u64, train: Option<Key>) -> Result<Vec<(String, Key)>, Error> {
        let Some((embeddings, captions)) = self.captions.as_ref().and_then(|c| c.shown.clone()) else {
            return Ok(Vec::new());
        };
        let mut of = |(number, caption): (u32, String)| {
            let stage = Sample { class: Some(number), count: SHOWN, ..self.sampling(method, seed, 0.0) };
            let sample = self.sample_with(stage, train, Some(("embeddings", embeddings)))?;
            Ok((caption, self.images(sample)?))
        };
        (0..).zip(captions).map(&mut of).collect()
    }

    /// The positive control: a trained patch with noise on its prompts.
    pub(crate) fn control(&mut self, run: &Run<'_>, seed: u64) -> Result<CellRun, Error> {
        let train = self.train(run, seed)?;
        self.judge(run.method, seed, Some(train), self.scale.evaluation.positive_control_noise)
    }

    fn judge(&mut self, method: &Method, seed: u64, train: Option<Key>, prompt_noise: f64) -> Result<CellRun, Error> {
        let sample = self.sample(self.sampling(method, seed, prompt_noise), train)?;
        let features = self.features(sample)?;
        let metrics = self.metrics(features)?;
        let (measures, classes, captions) = (Vec::new(), Vec::new(), Vec::new());
        let (decoded, activation) = (None, None);
        Ok(CellRun { seed, train, sample, decoded, features, metrics, activation, measures, classes, captions })
    }

    /// The backbone, unless the method starts from none or it is a formula, and `others`.
    fn backbone_and(&self, method: &Method, others: impl IntoIterator<Item = (&'static str, Key)>) -> Inputs {
        let stages = others.into_iter().map(|(name, key)| (name.to_owned(), Input::Stage(key)));
        let backbone = self.backbone_input.clone().filter(|_| !method.from_scratch());
        stages.chain(backbone.map(|input| ("backbone".to_owned(), input))).collect()
    }

    /// The input of stages that read the training images' captions.
    fn embeddings(&self) -> Option<(&'static str, Key)> {
        self.captions.as_ref().map(|captions| ("embeddings", captions.data))
    }

    fn train(&mut self, run: &Run<'_>, seed: u64) -> Result<Key, Error> {
        let train = &self.scale.train;
        let learning_rate = train.learning_rate * train.learning_rate_multiplier;
        let optimisation = Optimisation {
            iterations: run.iterations,
            batch: train.batch,
            learning_rate,
            final_learning_rate: learning_rate,
            warmup_iterations: 0,
            weight_decay: 0.0,
            horizontal_flip: train.horizontal_flip,
            micro_batch: train.micro_batch,
        };
        let stage = Stage::Train(Train {
            denoiser: self.backbone.denoiser.clone(),
            method: run.method.clone(),
            data: self.examples.source(),
            latents: self.latents.clone(),
            diffusion: self.backbone.diffusion.clone(),
            optimisation,
            seed,
            numerics: self.backbone.denoiser.numerics(&self.scale.numerics),
        });
        let mut inputs = self.backbone_and(run.method, self.embeddings());
        inputs.extend(self.examples.inputs(&mut self.stages)?);
        self.stages.add(stage, inputs)
    }

    fn sampling(&self, method: &Method, seed: u64, prompt_noise: f64) -> Sample {
        Sample {
            denoiser: self.backbone.denoiser.clone(),
            method: method.clone(),
            diffusion: self.backbone.diffusion.clone(),
            latents: self.latents.clone(),
            sampler: self.scale.sample.sampler.canonical(),
            count: self.scale.sample.count,
            seed: self.scale.sample.seed.wrapping_add(seed),
            prompt_noise,
            class: None,
            numerics: self.backbone.denoiser.numerics(&self.scale.numerics),
        }
    }

    fn sample(&mut self, stage: Sample, train: Option<Key>) -> Result<Key, Error> {
        self.sample_with(stage, train, self.embeddings())
    }

    fn sample_with(
        &mut self,
        stage: Sample,
        train: Option<Key>,
        embeddings: Option<(&'static str, Key)>,
    ) -> Result<Key, Error> {
        let others = train.map(|key| ("trained", key)).into_iter().chain(embeddings);
        let inputs = self.backbone_and(&stage.method, others);
        self.stages.add(Stage::Sample(stage), inputs)
    }

    /// The first samples as images, `count` at most; nothing where samples are images anyway.
    fn decode(&mut self, sample: Key, count: usize) -> Result<Option<Key>, Error> {
        let Some(latents) = self.latents.clone() else { return Ok(None) };
        let stage = Stage::Decode(Decode { latents, count: SHOWN.min(count), numerics: self.scale.numerics.clone() });
        let mut inputs = stage_inputs([("samples", sample)]);
        inputs.extend(self.autoencoder.clone());
        self.stages.add(stage, inputs).map(Some)
    }

    /// The stage whose artifact shows samples as images: their own, or that of their decoding.
    fn images(&mut self, sample: Key) -> Result<Key, Error> {
        Ok(self.decode(sample, SHOWN)?.unwrap_or(sample))
    }

    fn features(&mut self, sample: Key) -> Result<Key, Error> {
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

    fn metrics(&mut self, features: Key) -> Result<Key, Error> {
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
    fn measures(&mut self, sample: Key, features: Key) -> Result<Vec<Key>, Error> {
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

    fn activation(&mut self, method: &Method, train: Key) -> Result<Key, Error> {
        let stage = Stage::Activation(Activation {
            denoiser: self.backbone.denoiser.clone(),
            method: method.clone(),
            timesteps: self.scale.evaluation.activation_timesteps,
            diffusion: self.backbone.diffusion.clone(),
            numerics: self.backbone.denoiser.numerics(&self.scale.numerics),
        });
        let inputs = self.backbone_and(method, [("trained", train)].into_iter().chain(self.embeddings()));
        self.stages.add(stage, inputs)
    }
}

/// Inputs that are all stages.
fn stage_inputs<const N: usize>(inputs: [(&str, Key); N]) -> BTreeMap<String, Input> {
    inputs.map(|(name, key)| (name.to_owned(), Input::Stage(key))).into()
}
