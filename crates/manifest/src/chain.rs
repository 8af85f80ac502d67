//! The chain of stages of a cell: backbone, further training, samples, features, distance.

use indexmap::IndexMap;

use crate::digest::Key;
use crate::extractor::ExtractorConfig;
use crate::files::Loaded;
use crate::gather::{Gather, Images, Inputs, Network, planned};
use crate::method::Method;
use crate::plan::{CellRun, Input, PlannedStage, Reference};
use crate::problem::Error;
use crate::recipe::BackboneRecipe;
use crate::scale::{Evaluation, Optimisation, Scale};
use crate::stage::{Activation, Features, Metrics, Sample, Stage, Statistics, Train};

/// Every stage once, inputs before those who need them.
#[derive(Default)]
struct Stages(IndexMap<Key, PlannedStage>);

impl Stages {
    fn add(&mut self, stage: Stage, inputs: Inputs) -> Result<Key, Error> {
        Ok(self.put(planned(stage, inputs)?))
    }

    fn put(&mut self, planned: PlannedStage) -> Key {
        let key = planned.key;
        self.0.entry(key).or_insert(planned);
        key
    }

    fn into_vec(self) -> Vec<PlannedStage> {
        self.0.into_values().collect()
    }
}

/// Everything that the chains of a scale have in common.
pub(crate) struct Chains<'a> {
    scale: &'a Scale,
    backbone: &'a BackboneRecipe,
    extractor: &'a ExtractorConfig,
    data: Images,
    backbone_input: Input,
    extractor_input: Input,
    autoencoder: Inputs,
    reference: Reference,
    /// Features of the floor's images.
    floor: Option<Key>,
    stages: Stages,
}

/// The inputs of a scale's chains.
pub(crate) struct ChainInputs {
    backbone: Network,
    extractor: Network,
    data: Images,
    reference: Images,
    floor: Option<Images>,
    autoencoder: Inputs,
}

impl ChainInputs {
    /// Looks up all data that a scale asks for.
    pub(crate) fn gather(
        scale: &Loaded<Scale>,
        recipe: &Loaded<BackboneRecipe>,
        backbone: Network,
        extractor: Network,
        gather: &mut Gather<'_>,
    ) -> Self {
        let Evaluation { reference, floor, .. } = &scale.value.evaluation;
        let floor = floor.as_ref().map(|floor| floor.head(scale.value.sample.count));
        Self {
            backbone,
            extractor,
            data: gather.images(&scale.value.data, &scale.node, "data"),
            reference: gather.images(reference, &scale.node, "evaluation.reference"),
            floor: floor.map(|floor| gather.images(&floor, &scale.node, "evaluation.floor")),
            autoencoder: gather.autoencoder(&recipe.value.space, &recipe.node),
        }
    }
}

impl<'a> Chains<'a> {
    /// Plans what all cells share. Nothing is missing any more.
    pub(crate) fn new(
        scale: &'a Scale,
        backbone: &'a BackboneRecipe,
        extractor: &'a ExtractorConfig,
        inputs: ChainInputs,
    ) -> Result<Self, Error> {
        let mut stages = Stages::default();
        let mut input = |network| match network {
            Network::Shipped(input) => Ok(input),
            Network::Trained(training) => Ok(Input::Stage(stages.put(training.plan()?))),
            Network::Missing => unreachable!("missing inputs are reported before"),
        };
        let (backbone_input, extractor_input) = (input(inputs.backbone)?, input(inputs.extractor)?);
        let mut real = |images: Images| {
            let stage =
                Features { extractor: extractor.clone(), data: Some(images.source), numerics: scale.numerics.clone() };
            let mut inputs = images.inputs;
            inputs.insert("extractor".to_owned(), extractor_input.clone());
            stages.add(Stage::Features(stage), inputs)
        };
        let features = real(inputs.reference)?;
        let floor = inputs.floor.map(real).transpose()?;
        let statistics = Stage::Statistics(Statistics {});
        let statistics = stages.add(statistics, Inputs::from([("features".to_owned(), Input::Stage(features))]))?;
        let reference = Reference { features, statistics };
        let (data, autoencoder) = (inputs.data, inputs.autoencoder);
        Ok(Self {
            scale,
            backbone,
            extractor,
            data,
            backbone_input,
            extractor_input,
            autoencoder,
            reference,
            floor,
            stages,
        })
    }

    /// What was planned: the reference, the distance of real images to it, and all stages.
    pub(crate) fn finish(mut self) -> Result<(Reference, Option<Key>, Vec<PlannedStage>), Error> {
        let floor = self.floor.map(|features| self.metrics(features)).transpose()?;
        // Where all cells start from scratch, nobody reads the backbone.
        if let Input::Stage(key) = self.backbone_input
            && !self.stages.0.values().any(|planned| planned.dependencies().any(|needed| needed == key))
        {
            self.stages.0.shift_remove(&key);
        }
        Ok((self.reference, floor, self.stages.into_vec()))
    }

    /// A cell at one seed. The method is canonical.
    pub(crate) fn run(&mut self, method: &Method, seed: u64) -> Result<CellRun, Error> {
        let train = match method {
            Method::Pretrained(_) => None,
            _ => Some(self.train(method, seed)?),
        };
        let activation = match (method, train) {
            (Method::Dmp(_), Some(train)) => Some(self.activation(method, train)?),
            _ => None,
        };
        self.judge(method, seed, train, activation, 0.0)
    }

    /// The positive control: a trained patch with noise on its prompts.
    pub(crate) fn control(&mut self, method: &Method, seed: u64) -> Result<CellRun, Error> {
        let train = self.train(method, seed)?;
        self.judge(method, seed, Some(train), None, self.scale.evaluation.positive_control_noise)
    }

    fn judge(
        &mut self,
        method: &Method,
        seed: u64,
        train: Option<Key>,
        activation: Option<Key>,
        prompt_noise: f64,
    ) -> Result<CellRun, Error> {
        let sample = self.sample(method, seed, train, prompt_noise)?;
        let features = self.features(sample)?;
        let metrics = self.metrics(features)?;
        Ok(CellRun { seed, train, sample, features, metrics, activation })
    }

    /// The backbone, unless the method starts from none, and `others`.
    fn backbone_and(&self, method: &Method, others: impl IntoIterator<Item = (&'static str, Key)>) -> Inputs {
        let stages = others.into_iter().map(|(name, key)| (name.to_owned(), Input::Stage(key)));
        let backbone = (!method.from_scratch()).then(|| ("backbone".to_owned(), self.backbone_input.clone()));
        stages.chain(backbone).collect()
    }

    fn train(&mut self, method: &Method, seed: u64) -> Result<Key, Error> {
        let train = &self.scale.train;
        let learning_rate = train.learning_rate * train.learning_rate_multiplier;
        let optimisation = Optimisation {
            iterations: train.iterations,
            batch: train.batch,
            learning_rate,
            final_learning_rate: learning_rate,
            warmup_iterations: 0,
            weight_decay: 0.0,
            horizontal_flip: train.horizontal_flip,
        };
        let stage = Stage::Train(Train {
            dit: self.backbone.dit.clone(),
            method: method.clone(),
            data: self.data.source.clone(),
            diffusion: self.backbone.diffusion.clone(),
            optimisation,
            seed,
            numerics: self.scale.numerics.clone(),
        });
        let mut inputs = self.backbone_and(method, []);
        inputs.extend(self.data.inputs.clone());
        inputs.extend(self.autoencoder.clone());
        self.stages.add(stage, inputs)
    }

    fn sample(&mut self, method: &Method, seed: u64, train: Option<Key>, prompt_noise: f64) -> Result<Key, Error> {
        let stage = Stage::Sample(Sample {
            dit: self.backbone.dit.clone(),
            method: method.clone(),
            diffusion: self.backbone.diffusion.clone(),
            sampler: self.scale.sample.sampler.canonical(),
            count: self.scale.sample.count,
            seed: self.scale.sample.seed.wrapping_add(seed),
            prompt_noise,
            numerics: self.scale.numerics.clone(),
        });
        let mut inputs = self.backbone_and(method, train.map(|key| ("trained", key)));
        inputs.extend(self.autoencoder.clone());
        self.stages.add(stage, inputs)
    }

    fn features(&mut self, sample: Key) -> Result<Key, Error> {
        let stage = Stage::Features(Features {
            extractor: self.extractor.clone(),
            data: None,
            numerics: self.scale.numerics.clone(),
        });
        let inputs = [("samples", Input::Stage(sample)), ("extractor", self.extractor_input.clone())];
        self.stages.add(stage, inputs.map(|(name, input)| (name.to_owned(), input)).into())
    }

    fn metrics(&mut self, features: Key) -> Result<Key, Error> {
        let stage = Stage::Metrics(Metrics {
            name: format!("fd_{}", self.extractor.name),
            subsets: self.scale.evaluation.subsets,
            seed: self.scale.evaluation.subset_seed,
        });
        let inputs = [("features", features), ("reference", self.reference.statistics)];
        self.stages.add(stage, inputs.map(|(name, key)| (name.to_owned(), Input::Stage(key))).into())
    }

    fn activation(&mut self, method: &Method, train: Key) -> Result<Key, Error> {
        let stage = Stage::Activation(Activation {
            dit: self.backbone.dit.clone(),
            method: method.clone(),
            timesteps: self.scale.evaluation.activation_timesteps,
            diffusion: self.backbone.diffusion.clone(),
            numerics: self.scale.numerics.clone(),
        });
        let inputs = self.backbone_and(method, [("trained", train)]);
        self.stages.add(stage, inputs)
    }
}
