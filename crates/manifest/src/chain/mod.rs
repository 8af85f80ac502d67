//! The chain of stages of a cell: backbone, further training, samples, features, distance and what else is measured.

mod inputs;
mod measured;

use std::collections::BTreeMap;

use crate::autoencoder::LatentSpace;
use crate::digest::Key;
use crate::gather::{Examples, Images, Network};
use crate::manifest::Measure;
use crate::method::Method;
use crate::networks::Judge;
use crate::plan::{CellRun, Input, PlannedStage, Reference};
use crate::problem::Error;
use crate::recipe::Base;
use crate::scale::{Optimisation, Scale};
use crate::stage::{Decode, FeatureKind, Features, Import, Sample, Stage, Statistics, Train};
use crate::stages::{Inputs, Stages};
use inputs::{EmbeddedCaptions, GatheredReference};

pub(crate) use inputs::ChainInputs;

/// Samples that are shown: of a class, and of those that must be decoded first.
const SHOWN: usize = 16;

/// What a cell runs.
pub(crate) struct Run<'a> {
    /// The method, canonical.
    pub(crate) method: &'a Method,
    /// The file of what was trained elsewhere.
    pub(crate) trained: Option<&'a Input>,
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
        let trained = match method {
            Method::Pretrained(_) => None,
            _ => Some(self.trained(run, seed)?),
        };
        let activation = match (method, trained) {
            (Method::Dmp(_), Some(trained)) => Some(self.activation(method, trained)?),
            _ => None,
        };
        let mut planned = self.judge(method, seed, trained, 0.0)?;
        planned.activation = activation;
        planned.measures = self.measures(planned.sample, planned.features)?;
        planned.decoded = self.decode(planned.sample, self.scale.sample.count)?;
        for &class in run.classes {
            let classes = self.backbone.denoiser.classes().unwrap_or(1) as u32;
            let stage = Sample { class: Some(class % classes), count: SHOWN, ..self.sampling(method, seed, 0.0) };
            let sample = self.sample(stage, trained)?;
            planned.classes.push((class, self.images(sample)?));
        }
        planned.captions = self.shown(method, seed, trained)?;
        Ok(planned)
    }

    /// Samples of each caption that is shown.
    fn shown(&mut self, method: &Method, seed: u64, trained: Option<Key>) -> Result<Vec<(String, Key)>, Error> {
        let Some((embeddings, captions)) = self.captions.as_ref().and_then(|c| c.shown.clone()) else {
            return Ok(Vec::new());
        };
        let mut of = |(number, caption): (u32, String)| {
            let stage = Sample { class: Some(number), count: SHOWN, ..self.sampling(method, seed, 0.0) };
            let sample = self.sample_with(stage, trained, Some(("embeddings", embeddings)))?;
            Ok((caption, self.images(sample)?))
        };
        (0..).zip(captions).map(&mut of).collect()
    }

    /// The positive control: a trained patch with noise on its prompts.
    pub(crate) fn control(&mut self, run: &Run<'_>, seed: u64) -> Result<CellRun, Error> {
        let trained = self.trained(run, seed)?;
        self.judge(run.method, seed, Some(trained), self.scale.evaluation.positive_control_noise)
    }

    fn judge(&mut self, method: &Method, seed: u64, trained: Option<Key>, prompt_noise: f64) -> Result<CellRun, Error> {
        let sample = self.sample(self.sampling(method, seed, prompt_noise), trained)?;
        let features = self.features(sample)?;
        let metrics = self.metrics(features)?;
        let (measures, classes, captions) = (Vec::new(), Vec::new(), Vec::new());
        let (decoded, activation) = (None, None);
        Ok(CellRun { seed, trained, sample, decoded, features, metrics, activation, measures, classes, captions })
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

    /// The stage that leaves what the method trains.
    fn trained(&mut self, run: &Run<'_>, seed: u64) -> Result<Key, Error> {
        let Some(file) = run.trained else { return self.train(run, seed) };
        let (denoiser, method) = (self.backbone.denoiser.clone(), run.method.clone());
        let file = [("trained".to_owned(), file.clone())];
        let inputs = self.backbone_and(run.method, []).into_iter().chain(file).collect();
        self.stages.add(Stage::Import(Import { denoiser, method }), inputs)
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

    fn sample(&mut self, stage: Sample, trained: Option<Key>) -> Result<Key, Error> {
        self.sample_with(stage, trained, self.embeddings())
    }

    fn sample_with(
        &mut self,
        stage: Sample,
        trained: Option<Key>,
        embeddings: Option<(&'static str, Key)>,
    ) -> Result<Key, Error> {
        let others = trained.map(|key| ("trained", key)).into_iter().chain(embeddings);
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
}

/// Inputs that are all stages.
fn stage_inputs<const N: usize>(inputs: [(&str, Key); N]) -> BTreeMap<String, Input> {
    inputs.map(|(name, key)| (name.to_owned(), Input::Stage(key))).into()
}
