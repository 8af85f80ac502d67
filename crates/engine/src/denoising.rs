//! Training a denoiser: the stages `pretrain` (from scratch) and `train` (a method on top of a backbone).

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use data::Examples;
use manifest::autoencoder::LatentSpace;
use manifest::dataset::Source;
use manifest::denoiser::Denoiser;
use manifest::digest::Digest;
use manifest::dit::DitConfig;
use manifest::method::{Backbone, Finetune, Method};
use manifest::scale::{Diffusion, Engine, Numerics, Optimisation};
use manifest::stage;
use manifest::unet::UnetNetwork;
use models::weights::{self, WeightFile, Weights};
use patches::unet::UnetPatch;
use patches::{Initial, Patch};

use crate::batch::{Batcher, Labels, TrainingBatch};
use crate::captions::{Captions, label};
use crate::checkpoint::Checkpoint;
use crate::images::Reader;
use crate::job::{Device, EngineError, Finished, Job};
use crate::latents::Latents;
use crate::losses::Losses;
use crate::sequences::Sequences;
use crate::trainables::{Layout, own_slots};
use crate::training::{Objective, Trained, follow, start, train as run};
use crate::trunk::{Setting, TrainingTrunk, UnetTrunk, captioned_trunk, fast, training_trunk};
use crate::{artifact, on_gpu, process, unet};

/// Trains a backbone from its initial values; the artifact holds the average of its weights where one is kept.
///
/// # Errors
/// Those of the data and of training.
pub fn pretrain(job: &Job, stage: &stage::Pretrain) -> Result<Finished, EngineError> {
    let method = Method::Finetune(Finetune { backbone: Backbone::FromScratch });
    let task = Task {
        denoiser: &stage.denoiser,
        method: &method,
        diffusion: &stage.diffusion,
        optimisation: &stage.optimisation,
        ema_halflife_iterations: stage.ema_halflife_iterations,
        seed: stage.seed,
        numerics: &stage.numerics,
    };
    let examples = examples(job, &stage.data, stage.latents.as_ref(), &stage.optimisation)?;
    task.run(job, examples, initial_weights(&stage.denoiser, stage.seed)?)
}

/// What a denoising network starts from under a seed.
fn initial_weights(denoiser: &Denoiser, seed: u64) -> Result<Weights> {
    Ok(match denoiser {
        Denoiser::Dit(dit) => models::dit::initial_weights(dit, seed),
        Denoiser::Unet(unet) => models::unet::initial_weights(&unet.shape, seed)?,
    })
}

/// Trains a method on top of the input `backbone`, whose bytes are the same before and after, on weights by formula, or from
/// scratch.
///
/// # Errors
/// Those of the data, of the backbone's file and of training.
pub fn train(job: &Job, stage: &stage::Train) -> Result<Finished, EngineError> {
    let task = Task {
        denoiser: &stage.denoiser,
        method: &stage.method,
        diffusion: &stage.diffusion,
        optimisation: &stage.optimisation,
        ema_halflife_iterations: 0.0,
        seed: stage.seed,
        numerics: &stage.numerics,
    };
    let examples = examples(job, &stage.data, stage.latents.as_ref(), &stage.optimisation)?;
    if stage.method.from_scratch() {
        return task.run(job, examples, initial_weights(&stage.denoiser, stage.seed)?);
    }
    // None where the weights are a formula.
    let file = job.inputs.get("backbone");
    let hash = |when: &str| -> Result<Option<Digest>> {
        let cannot = |path: &PathBuf| format!("cannot read {} {when} training", path.display());
        file.map(|path| Digest::of_file(path).with_context(|| cannot(path))).transpose()
    };
    let before = hash("before")?;
    let backbone = match &stage.denoiser {
        Denoiser::Dit(dit) => {
            let path = job.input("backbone")?;
            let expected = before.map(|hash| hash.to_string()).unwrap_or_default();
            let file = WeightFile::open_checked(path, &expected, None).map_err(anyhow::Error::from)?;
            artifact::read_backbone(path, file, dit).map_err(anyhow::Error::from)?
        }
        Denoiser::Unet(unet) => unet::weights(job, unet)?,
    };
    let finished = task.run(job, examples, backbone)?;
    if let Some(path) = file {
        ensure_unchanged(hash("after")? == before, path)?;
    }
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
    pub(crate) denoiser: &'a Denoiser,
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
    fn run(&self, job: &Job, examples: Box<dyn Examples>, backbone: Weights) -> Result<Finished, EngineError> {
        let half_life = self.ema_halflife_iterations;
        let (trained, layout) = match self.denoiser {
            Denoiser::Dit(dit) => self.learn_dit(job, dit, examples, backbone)?,
            Denoiser::Unet(unet) => self.learn_unet(job, unet, examples, backbone)?,
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

    fn learn_dit(
        &self,
        job: &Job,
        dit: &DitConfig,
        examples: Box<dyn Examples>,
        backbone: Weights,
    ) -> Result<(Trained, Layout), EngineError> {
        let captions = Captions::open(job, dit)?;
        let examples = match &captions {
            Some(captions) => label(examples, &captions.of_images)?,
            None => examples,
        };
        let examples = &*examples;
        self.fit(examples)?;
        let (layout, initial) = self.start(&backbone)?;
        // Of a large network, each copy of the weights is a good part of the memory.
        let flat = layout.flatten(&initial)?;
        drop(initial);
        let backbone = if layout.has_positions() { Weights::new() } else { backbone };
        let (half_life, backbone) = (self.ema_halflife_iterations, &backbone);
        let trained = match (self.numerics.engine, job.device) {
            (Engine::Fast, Device::Cuda(number)) => {
                if captions.is_some() {
                    let said =
                        "the fast engine does not train under captions on a GPU: run it with `--engine reference`";
                    return Err(EngineError::Failed(anyhow!(said)));
                }
                let gpu = on_gpu::open(number)?;
                let state = start(job, &layout, flat, half_life)?;
                let mut course = self.course(&gpu, dit, examples, backbone, &layout, &state)?;
                follow(job, state, self.optimisation, &mut course)?
            }
            _ => {
                let mut objective =
                    self.objective(dit, examples, captions, backbone, &layout, &job.tensor_device()?)?;
                run(job, &layout, flat, self.optimisation, half_life, &mut objective)?
            }
        };
        Ok((trained, layout))
    }

    fn learn_unet(
        &self,
        job: &Job,
        UnetNetwork { shape, .. }: &UnetNetwork,
        examples: Box<dyn Examples>,
        backbone: Weights,
    ) -> Result<(Trained, Layout), EngineError> {
        let captions = Sequences::open(job, shape)?;
        let examples = label(examples, &captions.of_images)?;
        self.fit(&*examples)?;
        let (layout, initial) = self.start(&backbone)?;
        let initial = layout.flatten(&initial)?;
        let labels = Labels { classes: Some(captions.null() as usize), dropout: shape.label_dropout };
        let (loss, device) = (process::training_loss(self.diffusion)?, job.tensor_device()?);
        let trunk = UnetTrunk::new(shape, self.method, backbone, &layout, loss, captions, &device)?;
        let mut objective = self.batches(&*examples, labels, Box::new(trunk))?;
        let half_life = self.ema_halflife_iterations;
        let trained = run(job, &layout, initial, self.optimisation, half_life, &mut objective)?;
        Ok((trained, layout))
    }

    /// This task on a machine, from where `state` stands.
    ///
    /// # Errors
    /// As [`on_gpu::MachineTraining::new`].
    pub(crate) fn course<'m, 'i, M: gpu::Machine>(
        &'i self,
        machine: &'m M,
        dit: &DitConfig,
        examples: &'i dyn Examples,
        backbone: &Weights,
        layout: &Layout,
        state: &Checkpoint,
    ) -> Result<on_gpu::MachineTraining<'m, 'i, M>> {
        let parameters = if layout.has_positions() { None } else { Some(fast::parameters(dit, backbone)?) };
        on_gpu::MachineTraining::new(machine, self, dit, examples, parameters.as_ref(), layout, state)
    }

    /// Examples have the network's size, and every label is one of its classes.
    fn fit(&self, examples: &dyn Examples) -> Result<()> {
        let (found, elements) = (examples.elements(), self.denoiser.elements());
        ensure!(found == elements, "an example has {found} numbers, but the network sees {elements}");
        let (Some(classes), Some(labels)) = (self.denoiser.classes(), examples.labels()) else { return Ok(()) };
        let beyond = labels.iter().position(|&label| label as usize >= classes);
        beyond.map_or(Ok(()), |i| {
            let label = labels[i];
            bail!("image {i} has label {label}, but the network has {classes} classes: set its `classes`, or take other data")
        })
    }

    /// The loss of a DiT on random batches of `examples`, whose labels are `captions` for a network conditioned on text.
    ///
    /// # Errors
    /// The backbone or the method does not fit the network.
    pub(crate) fn objective<'i>(
        &self,
        dit: &DitConfig,
        examples: &'i dyn Examples,
        captions: Option<Captions>,
        backbone: &Weights,
        layout: &Layout,
        device: &candle_core::Device,
    ) -> Result<DenoisingObjective<'i>> {
        let labels = captions.as_ref().map_or_else(|| dit.into(), |captions| (&captions.network(dit)).into());
        let setting = Setting {
            dit,
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
        self.batches(examples, labels, trunk)
    }

    /// What `trunk` loses on random batches of `examples`.
    fn batches<'i>(
        &self,
        examples: &'i dyn Examples,
        labels: Labels,
        trunk: Box<dyn TrainingTrunk>,
    ) -> Result<DenoisingObjective<'i>> {
        let (process, flips) = (process::process(self.diffusion)?, self.optimisation.horizontal_flip);
        let (batch, draws) = (self.optimisation.batch, self.gate_draws()?);
        let empty = || Batcher::empty(batch, self.denoiser.elements(), draws);
        Ok(DenoisingObjective {
            batcher: Batcher::new(examples, process, labels, flips, self.seed),
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
        let tensors = match self.denoiser {
            Denoiser::Dit(dit) => patches::trainable(self.method, dit),
            Denoiser::Unet(unet) => patches::unet::trainable(self.method, &unet.shape)?,
        };
        ensure!(!tensors.is_empty(), "this method trains nothing");
        let mut initial = patches::initial_weights(&tensors, backbone, self.seed);
        let backbone_learns = tensors.iter().any(|tensor| tensor.initial == Initial::Backbone);
        let mut slots = Vec::new();
        if backbone_learns {
            match self.denoiser {
                Denoiser::Dit(dit) => {
                    // Positions are stored, and do not learn.
                    initial.extend(backbone.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
                    slots = fast::full_slots(dit)?;
                }
                Denoiser::Unet(_) => slots.extend(tensors.iter().map(|t| (t.name.clone(), t.shape.clone(), 1.0))),
            }
        }
        slots.extend(own_slots(tensors));
        Ok((Layout::new(slots), initial))
    }

    /// Draws of gate noise per iteration, `L' B N`; none where there is no patch.
    fn gate_draws(&self) -> Result<usize> {
        let batch = self.optimisation.batch;
        Ok(match self.denoiser {
            Denoiser::Dit(dit) => Patch::size(self.method, dit).map_or(0, |(blocks, prompts)| blocks * batch * prompts),
            Denoiser::Unet(unet) => UnetPatch::noise_shape(self.method, &unet.shape, batch)?.iter().product(),
        })
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
