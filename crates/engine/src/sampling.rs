//! The stage `sample`: noise to images or latents, in batches whose finished ones survive a kill.

use data::Images;
use diffusion::Sampler;
use manifest::{denoiser, stage};
use random::{Draws, Stream};
use safetensors::Dtype;

use crate::job::{EngineError, Finished, Job};
use crate::network::Network;
use crate::parts::Parts;
use crate::{artifact, process, samples};

/// Images drawn at once. The images do not depend on it.
const BATCH: usize = 100;

/// Draws `stage.count` samples. Sample `i` is a function of (seed, i) and the weights alone.
///
/// # Errors
/// An input is missing or does not fit; [`EngineError::Interrupted`] with all finished batches kept.
pub fn sample(job: &Job, stage: &stage::Sample) -> Result<Finished, EngineError> {
    let sampler = process::sampler(&stage.diffusion, &stage.sampler, stage.denoiser.learn_sigma())?;
    let mut network = Network::for_sampling(job, stage)?;
    let dtype = if stage.latents.is_some() { Dtype::F32 } else { Dtype::U8 };
    let bytes = stage.denoiser.elements() * dtype.bitsize() / 8;
    let parts = Parts { job, name: "samples", unit: "images", count: stage.count, size: BATCH, bytes };
    for range in parts.left() {
        let x = draw(job, stage, &sampler, &mut network, range.start, range.len())?;
        parts.keep(range.start, &encoded(&stage.denoiser, dtype, &x))?;
    }
    let side = stage.denoiser.image_size();
    let shape = vec![stage.count, stage.denoiser.channels(), side, side];
    let tensors = [(samples::TENSOR, dtype, shape)];
    artifact::write_parts(&job.directory.join(artifact::SAMPLES), &tensors, parts.all())?;
    parts.remove()?;
    Ok(Finished::completed(artifact::SAMPLES))
}

/// Samples `first..first + count`.
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
    network.set_labels(sample_labels(stage, network.captions(), first, count));
    let mut x = vec![0.0; count * elements];
    let going_on = |_| if job.stopping() { Err(EngineError::Interrupted) } else { Ok(()) };
    sampler.sample(network, &mut x, elements, first as u64, stage.seed, going_on)?;
    Ok(x)
}

/// Samples as they are kept: images in bytes, latents as they are.
fn encoded(denoiser: &denoiser::Denoiser, dtype: Dtype, x: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::U8 => Images::from_normalised(denoiser.channels(), denoiser.image_size(), x).pixels,
        _ => x.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// Labels of samples: the stage's class, or those of images drawn uniformly from the dataset (`captions`), or drawn
/// uniformly from the classes, or the one label of an unconditional model.
fn sample_labels(stage: &stage::Sample, captions: &[u32], first: usize, count: usize) -> Vec<u32> {
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
