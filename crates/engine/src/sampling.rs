//! The stage `sample`: noise to images or latents, in batches whose finished ones survive a kill.

use anyhow::Result;
use candle_core::DType;
use data::Images;
use diffusion::Sampler;
use manifest::denoiser::Denoiser;
use manifest::dit::DitConfig;
use manifest::scale::Engine;
use manifest::stage;
use models::weights::{self, Weights};
use random::{Draws, Stream};
use safetensors::Dtype;

use crate::job::{Device, EngineError, Finished, Job};
use crate::network::{self, Network, SampleInputs};
use crate::on_gpu::{MachineSampler, SamplerSetting};
use crate::parts::Parts;
use crate::{artifact, on_gpu, process, samples};

/// Images drawn at once. The images do not depend on it.
const BATCH: usize = 100;

/// Draws `stage.count` samples. Sample `i` is a function of (seed, i) and the weights alone.
///
/// # Errors
/// An input is missing or does not fit; [`EngineError::Interrupted`] with all finished batches kept.
pub fn sample(job: &Job, stage: &stage::Sample) -> Result<Finished, EngineError> {
    let sampler = process::sampler(&stage.diffusion, &stage.sampler, stage.denoiser.learn_sigma())?;
    let (mut network, captions) = match &stage.denoiser {
        Denoiser::Dit(dit) => {
            let SampleInputs { dit, backbone, trained, captions } = SampleInputs::new(job, stage, dit)?;
            let (weights, engine) = ((&backbone, &trained), stage.numerics.engine);
            if let (Engine::Fast, Device::Cuda(number)) = (engine, job.device) {
                let gpu = on_gpu::open(number)?;
                let mut gpu_sampler = machine_sampler(&gpu, stage, &dit, weights, &sampler)?;
                return all(job, stage, |first, count| {
                    let labels = sample_labels(stage, &captions, first, count);
                    gpu_sampler.draw(first, initial_noise(stage, first, count), labels, || job.stopping())
                });
            }
            let device = job.tensor_device()?;
            (Network::new(&dit, &stage.method, &stage.sampler, weights, engine, &device)?, captions)
        }
        Denoiser::Unet(unet) => Network::of_unet(job, stage, unet)?,
    };
    all(job, stage, |first, count| {
        network.set_labels(sample_labels(stage, &captions, first, count));
        draw(job, stage, &sampler, &mut network, first, count)
    })
}

/// A sampler of the stage's samples on a machine.
///
/// # Errors
/// As [`MachineSampler::new`].
pub(crate) fn machine_sampler<'m, M: gpu::Machine>(
    machine: &'m M,
    stage: &stage::Sample,
    dit: &DitConfig,
    (backbone, trained): (&Weights, &Weights),
    sampler: &Sampler,
) -> Result<MachineSampler<'m, M>> {
    let tensors = |weights: &Weights| weights::constants(weights, DType::F32, &candle_core::Device::Cpu);
    let applied = patches::apply(&stage.method, dit, &tensors(backbone)?, &tensors(trained)?)?;
    let setting = SamplerSetting {
        dit,
        method: &stage.method,
        weights: (&weights::from_tensors(&applied.trunk)?, trained),
        sampler,
        guidance: network::guidance(&stage.sampler),
        batch: BATCH.min(stage.count),
        seed: stage.seed,
        dtype: stage.numerics.dtype,
    };
    MachineSampler::new(machine, &setting)
}

/// All samples of a stage, by batches that `draw` draws: the first sample's number, and how many.
fn all(
    job: &Job,
    stage: &stage::Sample,
    mut draw: impl FnMut(usize, usize) -> Result<Vec<f32>, EngineError>,
) -> Result<Finished, EngineError> {
    let dtype = if stage.latents.is_some() { Dtype::F32 } else { Dtype::U8 };
    let bytes = stage.denoiser.elements() * dtype.bitsize() / 8;
    let parts = Parts { job, name: "samples", unit: "images", count: stage.count, size: BATCH, bytes };
    for range in parts.left() {
        let x = draw(range.start, range.len())?;
        let finite = |image: &[f32]| image.iter().all(|value| value.is_finite());
        if let Some(bad) = x.chunks(stage.denoiser.elements()).position(|image| !finite(image)) {
            return Err(not_finite(job, range.start + bad).into());
        }
        parts.keep(range.start, &encoded(&stage.denoiser, dtype, &x))?;
    }
    let side = stage.denoiser.image_size();
    let shape = vec![stage.count, stage.denoiser.channels(), side, side];
    let tensors = [(samples::TENSOR, dtype, shape)];
    artifact::write_parts(&job.directory.join(artifact::SAMPLES), &tensors, parts.all())?;
    parts.remove()?;
    Ok(Finished::completed(artifact::SAMPLES))
}

/// Black images would be measured as if they were samples.
fn not_finite(job: &Job, number: usize) -> anyhow::Error {
    let files: Vec<String> = job.inputs.values().map(|path| path.display().to_string()).collect();
    anyhow::anyhow!(
        "sample {number} is not finite: the weights that it was drawn with are damaged or went astray; make or fetch them again: {}",
        files.join(", ")
    )
}

/// The noise that samples `first..first + count` begin as.
pub(crate) fn initial_noise(stage: &stage::Sample, first: usize, count: usize) -> Vec<f32> {
    let elements = stage.denoiser.elements();
    let mut x = vec![0.0; count * elements];
    diffusion::initial_noise(&mut x, elements, first as u64, stage.seed);
    x
}

/// Samples `first..first + count` under the network's labels.
///
/// # Errors
/// [`EngineError::Interrupted`], and those of the network.
pub(crate) fn draw(
    job: &Job,
    stage: &stage::Sample,
    sampler: &Sampler,
    network: &mut Network,
    first: usize,
    count: usize,
) -> Result<Vec<f32>, EngineError> {
    let elements = stage.denoiser.elements();
    let mut x = vec![0.0; count * elements];
    let going_on = |_| if job.stopping() { Err(EngineError::Interrupted) } else { Ok(()) };
    sampler.sample(network, &mut x, elements, first as u64, stage.seed, going_on)?;
    Ok(x)
}

/// Samples as they are kept: images in bytes, latents as they are.
fn encoded(denoiser: &Denoiser, dtype: Dtype, x: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::U8 => Images::from_normalised(denoiser.channels(), denoiser.image_size(), x).pixels,
        _ => x.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// Labels of samples: the stage's class, or those of images drawn uniformly from the dataset (`captions`), or drawn
/// uniformly from the classes, or the one label of an unconditional model.
pub(crate) fn sample_labels(stage: &stage::Sample, captions: &[u32], first: usize, count: usize) -> Vec<u32> {
    if let Some(class) = stage.class {
        return vec![class; count];
    }
    let draws = Draws::new(stage.seed, Stream::SampleLabel, 0);
    let label = |i: usize| match (captions.len(), stage.denoiser.classes()) {
        (images @ 1.., _) => captions[draws.below(i as u64, images as u32) as usize],
        (0, classes) => classes.map_or(0, |classes| draws.below(i as u64, classes as u32)),
    };
    (first..first + count).map(label).collect()
}
