//! Sampling: a batch of noise to images, by the loop of the stage `sample`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use diffusion::Denoiser as _;
use manifest::denoiser::Denoiser;
use manifest::scale::{GuidanceChannels, Numerics, Sampler, SamplerKind};
use manifest::stage::{Sample, Stage};
use models::weights::Weights;

use super::inputs::{DIFFUSION, Inputs, numerics, random_weights};
use super::work::Work;
use super::{Repeat, Setting};
use crate::job::{Device, EngineError, Job};
use crate::network;
use crate::{process, sampling};

/// A network with its sampler.
pub struct Samples {
    stage: Sample,
    /// The same, as a job carries it.
    job: Stage,
    sampler: diffusion::Sampler,
    network: network::Network,
    count: usize,
    threads: usize,
    device: Device,
}

impl Samples {
    /// # Errors
    /// The device is missing.
    pub fn new(inputs: &Inputs, setting: &Setting) -> Result<Self, EngineError> {
        let (stage, trained) = stage(inputs, &numerics(setting));
        let (dit, settings) = (inputs.network.dit(), &stage.sampler);
        let weights = (&inputs.backbone, &trained);
        let device = setting.device.tensors()?;
        let network = network::Network::new(&dit, &stage.method, settings, weights, setting.engine, &device)?;
        Ok(Self {
            sampler: process::sampler(&DIFFUSION, settings, dit.learn_sigma)?,
            network,
            count: stage.count,
            threads: setting.threads,
            device: setting.device,
            job: Stage::Sample(stage.clone()),
            stage,
        })
    }
}

/// The stage of a work, and what was trained before it.
pub fn stage(inputs: &Inputs, numerics: &Numerics) -> (Sample, Weights) {
    let Inputs { network, method, .. } = inputs;
    let dit = network.dit();
    let sampler = Sampler {
        kind: SamplerKind::Ddpm,
        steps: Work::SAMPLING_STEPS,
        clip_x0: true,
        guidance: 1.0,
        guidance_channels: GuidanceChannels::All,
    };
    let patch = patches::trainable(method, &dit).into_iter().map(|tensor| (tensor.name, tensor.shape));
    let trained = random_weights(patch.collect());
    let stage = Sample {
        denoiser: Denoiser::Dit(dit),
        method: method.clone(),
        diffusion: DIFFUSION,
        latents: None,
        sampler,
        count: network.batch(),
        seed: 0,
        prompt_noise: 0.0,
        class: None,
        numerics: numerics.clone(),
    };
    (stage, trained)
}

impl Repeat for Samples {
    /// One step of the sampler.
    fn warm_up(&mut self) -> Result<(), EngineError> {
        let elements = self.stage.denoiser.elements();
        let x = vec![0.0; self.count * elements];
        let mut output = vec![0.0; self.sampler.outputs(x.len())];
        self.network.set_labels(vec![0; self.count]);
        self.network.denoise(&x, 0, &mut output)
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let job = Job {
            stage: &self.job,
            inputs: BTreeMap::new(),
            directory: Path::new("."),
            threads: self.threads,
            device: self.device,
            progress: &|_| {},
            stop: &AtomicBool::new(false),
        };
        self.network.set_labels(sampling::sample_labels(&self.stage, &[], 0, self.count));
        sampling::draw(&job, &self.stage, &self.sampler, &mut self.network, 0, self.count)?;
        Ok(())
    }
}
