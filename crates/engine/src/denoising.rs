//! Training a denoiser: the stages `pretrain` (from scratch) and `train` (a method on top of a backbone).

use anyhow::{Context, Result, bail, ensure};
use data::Examples;
use manifest::autoencoder::LatentSpace;
use manifest::dataset::Source;
use manifest::dit::DitConfig;
use manifest::method::{Backbone, Finetune, Method};
use manifest::scale::{Diffusion, Engine, Numerics, Optimisation};
use manifest::stage;
use models::weights::{self, Weights};
use patches::{Initial, Patch};

use crate::batch::{Batcher, TrainingBatch};
use crate::captions::Captions;
use crate::checkpoint::Checkpoint;
use crate::images::Reader;
use crate::job::{Device, EngineError, Finished, Job};
use crate::latents::Latents;
use crate::losses::Losses;
use crate::trainables::{Layout, own_slots};
use crate::training::{Objective, Trained, follow, start, train as run};
use crate::trunk::{Setting, TrainingTrunk, captioned_trunk, fast, training_trunk};
use crate::{artifact, on_gpu, process};

/// Trains a DiT from its initial values; the artifact holds the average of its weights where one is kept.
///
/// # Errors
/// Those of the data and of training.
pub fn pretrain(job: &Job, stage: &stage::Pretrain) -> Result<Finished, EngineError> {
    let method = Method::Finetune(Finetune { backbone: Backbone::FromScratch });
    let task = Task {
        dit: &stage.dit,
        method: &method,
        diffusion: &stage.diffusion,
        optimisation: &stage.optimisation,
        ema_halflife_iterations: stage.ema_halflife_iterations,
        seed: stage.seed,
        numerics: &stage.numerics,
    };
    let examples = examples(job, &stage.data, stage.latents.as_ref(), &stage.optimisation)?;
    task.run(job, examples, &models::dit::initial_weights(&stage.dit, stage.seed))
}

/// Trains a method on top of the input `backbone`, whose bytes are the same before and after, or from scratch.
///
/// # Errors
/// Those of the data, of the backbone's file and of training.
pub fn train(job: &Job, stage: &stage::Train) -> Result<Finished, EngineError> {
    let task = Task {
        dit: &stage.dit,
        method: &stage.method,
        diffusion: &stage.diffusion,
        optimisation: &stage.optimisation,
        ema_halflife_iterations: 0.0,
        seed: stage.seed,
        numerics: &stage.numerics,
    };
    let examples = examples(job, &stage.data, stage.latents.as_ref(), &stage.optimisation)?;
    if stage.method.from_scratch() {
        return task.run(job, examples, &models::dit::initial_weights(&stage.dit, stage.seed));
    }
    let path = job.input("backbone")?;
    let hash = |when: &str| -> Result<String> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {} {when} training", path.display()))?;
        Ok(weights::sha256(&bytes))
    };
    let before = hash("before")?;
    let backbone = weights::read_checked(path, &before).map_err(anyhow::Error::from)?;
    weights::check(path, &backbone, &models::dit::named_shapes(&stage.dit)).map_err(anyhow::Error::from)?;
    let finished = task.run(job, examples, &backbone)?;
    let unchanged = hash("after")? == before;
    ensure_unchanged(unchanged, path)?;
    Ok(finished)
}

/// What a network is trained on: images in memory, or the job's input `latents` on disk.
fn examples(
    job: &Job,
    data: &Source,
    latents: Option<&LatentSpace>,
    optimisation: &Optimisation,
) -> Result<Box<dyn Examples>, EngineError> {
    let Some(space) = latents else { return Ok(Box::new(Reader::open(job, data)?.load()?)) };
    let index = job.input("latents")?;
    let latents = Latents::open(index, space.scale_factor)?;
    let enough = || -> Result<()> {
        let flips = optimisation.horizontal_flip && latents.shape().orientations < 2;
        ensure!(!flips, "{} holds no mirrored latents, which `horizontal_flip` asks for", index.display());
        Ok(())
    };
    enough()?;
    Ok(Box::new(latents))
}

fn ensure_unchanged(unchanged: bool, path: &std::path::Path) -> Result<()> {
    ensure!(unchanged, "{} changed while it was trained on; run the stage again", path.display());
    Ok(())
}

/// What both stages have in common.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    /// The network.
    pub(crate) dit: &'a DitConfig,
    /// What learns.
    pub(crate) method: &'a Method,
    /// The diffusion process.
    pub(crate) diffusion: &'a Diffusion,
    /// Iterations, batch, learning rate.
    pub(crate) optimisation: &'a Optimisation,
    /// Half-life of the average of the weights; 0 where there is none.
    pub(crate) ema_halflife_iterations: f64,
    /// Seed of all draws.
    pub(crate) seed: u64,
    /// Engine, precision and device.
    pub(crate) numerics: &'a Numerics,
}

impl Task<'_> {
    fn run(&self, job: &Job, examples: Box<dyn Examples>, backbone: &Weights) -> Result<Finished, EngineError> {
        let captions = Captions::open(job, self.dit)?;
        let examples = match &captions {
            Some(captions) => captions.label(examples)?,
            None => examples,
        };
        let examples = &*examples;
        self.fit(examples)?;
        let (layout, initial) = self.start(backbone)?;
        let (half_life, initial) = (self.ema_halflife_iterations, layout.flatten(&initial)?);
        let trained = match (self.numerics.engine, job.device) {
            (Engine::Fast, Device::Cuda(number)) => {
                self.refuse_captions(captions.is_some())?;
                let gpu = on_gpu::open(number)?;
                self.run_on(&gpu, job, examples, backbone, &layout, initial)?
            }
            _ => {
                let mut objective = self.objective(examples, captions, backbone, &layout, &job.tensor_device()?)?;
                run(job, &layout, initial, self.optimisation, half_life, &mut objective)?
            }
        };
        match trained {
            Trained::Completed(state) => {
                let values = if half_life > 0.0 { &state.average } else { &state.values };
                let path = job.directory.join(artifact::WEIGHTS);
                weights::write(&path, &layout.unflatten(values)).map_err(anyhow::Error::from)?;
                Ok(Finished { curve: state.curve, ..Finished::completed(artifact::WEIGHTS) })
            }
            Trained::Diverged(iteration, curve) => Ok(Finished::diverged(iteration, curve)),
        }
    }

    /// Runs the whole of each step on a machine.
    fn run_on<M: gpu::Machine>(
        &self,
        machine: &M,
        job: &Job,
        examples: &dyn Examples,
        backbone: &Weights,
        layout: &Layout,
        initial: Vec<f32>,
    ) -> Result<Trained, EngineError> {
        let state = start(job, layout, initial, self.ema_halflife_iterations)?;
        let mut course = self.course(machine, examples, backbone, layout, &state)?;
        follow(job, state, self.optimisation, &mut course)
    }

    /// This task on a machine, from where `state` stands.
    ///
    /// # Errors
    /// As [`on_gpu::OnMachine::new`].
    pub(crate) fn course<'m, 'i, M: gpu::Machine>(
        &'i self,
        machine: &'m M,
        examples: &'i dyn Examples,
        backbone: &Weights,
        layout: &Layout,
        state: &Checkpoint,
    ) -> Result<on_gpu::OnMachine<'m, 'i, M>> {
        let learns = layout.slots.iter().any(|slot| slot.name == models::dit::POSITION_EMBEDDING);
        let parameters = if learns { None } else { Some(fast::parameters(self.dit, backbone)?) };
        on_gpu::OnMachine::new(machine, self, examples, parameters.as_ref(), layout, state)
    }

    fn refuse_captions(&self, captions: bool) -> Result<()> {
        ensure!(!captions, "the fast engine does not train under captions on a GPU: run it with `--engine reference`");
        Ok(())
    }

    /// Examples have the network's size, and every label is one of its classes.
    fn fit(&self, examples: &dyn Examples) -> Result<()> {
        let (found, elements) = (examples.elements(), self.dit.channels * self.dit.image_size.pow(2));
        ensure!(found == elements, "an example has {found} numbers, but the network sees {elements}");
        let (Some(classes), Some(labels)) = (self.dit.classes, examples.labels()) else { return Ok(()) };
        let beyond = labels.iter().position(|&label| label as usize >= classes);
        beyond.map_or(Ok(()), |i| {
            let label = labels[i];
            bail!("image {i} has label {label}, but the network has {classes} classes: set its `classes`, or take other data")
        })
    }

    /// The loss of this task on random batches of `examples`, whose labels are `captions` for a network conditioned on text.
    ///
    /// # Errors
    /// The backbone or the method does not fit the network.
    pub(crate) fn objective<'i>(
        &self,
        examples: &'i dyn Examples,
        captions: Option<Captions>,
        backbone: &Weights,
        layout: &Layout,
        device: &candle_core::Device,
    ) -> Result<DenoisingObjective<'i>> {
        let network = captions.as_ref().map_or_else(|| self.dit.clone(), |captions| captions.network(self.dit));
        let setting = Setting {
            dit: self.dit,
            method: self.method,
            backbone,
            layout,
            loss: process::training_loss(self.diffusion)?,
            batch: self.optimisation.batch,
        };
        let trunk = match captions {
            None => training_trunk(setting, self.numerics, device)?,
            Some(captions) => captioned_trunk(setting, captions, self.numerics, device)?,
        };
        let (process, flips) = (process::process(self.diffusion)?, self.optimisation.horizontal_flip);
        let draws = self.gate_draws();
        let empty = || Batcher::empty(self.optimisation.batch, self.dit, draws);
        Ok(DenoisingObjective {
            batcher: Batcher::new(examples, process, &network, flips, self.seed),
            batch: empty(),
            next: (empty(), None),
            trunk,
        })
    }

    /// Places and initial values of what learns.
    ///
    /// # Errors
    /// The method trains nothing, or the shape is unsound.
    pub(crate) fn start(&self, backbone: &Weights) -> Result<(Layout, Weights)> {
        let tensors = patches::trainable(self.method, self.dit);
        ensure!(!tensors.is_empty(), "this method trains nothing");
        let mut initial = patches::initial_weights(&tensors, backbone, self.seed);
        let backbone_learns = tensors.iter().any(|tensor| tensor.initial == Initial::Backbone);
        let mut slots = Vec::new();
        if backbone_learns {
            initial.extend(backbone.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
            slots = fast::full_slots(self.dit)?;
        }
        slots.extend(own_slots(tensors));
        Ok((Layout::new(slots), initial))
    }

    /// Draws of gate noise per iteration, `L' B N`; none where there is no patch.
    fn gate_draws(&self) -> usize {
        Patch::size(self.method, self.dit).map_or(0, |(blocks, prompts)| blocks * self.optimisation.batch * prompts)
    }
}

/// The denoising loss of a method on random batches.
pub(crate) struct DenoisingObjective<'a> {
    batcher: Batcher<'a>,
    batch: TrainingBatch,
    /// What is trained on next, and at which iteration.
    next: (TrainingBatch, Option<usize>),
    trunk: Box<dyn TrainingTrunk>,
}

impl Objective for DenoisingObjective<'_> {
    /// The next batch is made beside the gate, which keeps one thread only.
    fn gradient(&mut self, iteration: usize, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        let Self { batcher, batch, next: (next, prepared), trunk } = self;
        if *prepared != Some(iteration) {
            batcher.fill(iteration, next);
        }
        std::mem::swap(batch, next);
        let (losses, ()) =
            rayon::join(|| trunk.gradient(batch, values, gradient), || batcher.fill(iteration + 1, next));
        *prepared = Some(iteration + 1);
        losses
    }
}
