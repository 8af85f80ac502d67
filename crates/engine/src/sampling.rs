//! The stage `sample`: noise to images or latents, in batches whose finished ones survive a kill.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::DType;
use data::Images;
use diffusion::{Denoiser, History, Sampler};
use manifest::dit::DitConfig;
use manifest::scale::Engine;
use manifest::stage;
use models::weights::{self, Weights};
use random::{Draws, Stream};
use rayon::prelude::*;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::job::{Device, EngineError, Finished, Job, Progress};
use crate::network::{Network, Weighed};
use crate::on_gpu::{Painted, Painter};
use crate::{artifact, on_gpu, process, samples};

/// Images drawn at once. The images do not depend on it.
const BATCH: usize = 100;

/// Draws `stage.count` samples. Sample `i` is a function of (seed, i) and the weights alone.
///
/// # Errors
/// An input is missing or does not fit; [`EngineError::Interrupted`] with all finished batches kept.
pub fn sample(job: &Job, stage: &stage::Sample) -> Result<Finished, EngineError> {
    let sampler = process::sampler(&stage.diffusion, &stage.sampler, &stage.dit)?;
    let Weighed { dit, backbone, trained, captions } = Weighed::new(job, stage)?;
    let (weights, engine) = ((&backbone, &trained), stage.numerics.engine);
    if let (Engine::Fast, Device::Cuda(number)) = (engine, job.device) {
        let gpu = on_gpu::open(number)?;
        let mut painter = painter(&gpu, stage, &dit, weights, &sampler)?;
        return all(job, stage, |first, count| {
            let labels = sample_labels(stage, &captions, first, count);
            painter.draw(first, initial_noise(stage, first, count), labels, || job.stopping())
        });
    }
    let device = job.tensor_device()?;
    let mut network = Network::new(&dit, &stage.method, &stage.sampler, weights, engine, &device)?;
    all(job, stage, |first, count| {
        network.set_labels(sample_labels(stage, &captions, first, count));
        draw(job, stage, &sampler, &mut network, first, count)
    })
}

/// A painter of the stage's samples on a machine.
///
/// # Errors
/// As [`Painter::new`].
pub(crate) fn painter<'m, M: gpu::Machine>(
    machine: &'m M,
    stage: &stage::Sample,
    dit: &DitConfig,
    (backbone, trained): (&Weights, &Weights),
    sampler: &Sampler,
) -> Result<Painter<'m, M>> {
    let tensors = |weights: &Weights| weights::constants(weights, DType::F32, &candle_core::Device::Cpu);
    let applied = patches::apply(&stage.method, dit, &tensors(backbone)?, &tensors(trained)?)?;
    let painted = Painted {
        dit,
        method: &stage.method,
        weights: (&weights::from_tensors(&applied.trunk)?, trained),
        sampler,
        guidance: stage.sampler.guidance,
        batch: BATCH.min(stage.count),
        seed: stage.seed,
        dtype: stage.numerics.dtype,
    };
    Painter::new(machine, &painted)
}

/// All samples of a stage, by batches that `draw` draws.
fn all(
    job: &Job,
    stage: &stage::Sample,
    mut draw: impl FnMut(usize, usize) -> Result<Vec<f32>, EngineError>,
) -> Result<Finished, EngineError> {
    let dtype = if stage.latents.is_some() { Dtype::F32 } else { Dtype::U8 };
    let bytes = elements(&stage.dit) * dtype.bitsize() / 8;
    for first in (0..stage.count).step_by(BATCH) {
        let count = BATCH.min(stage.count - first);
        let file = batch_file(job.directory, first);
        if read_batch(&file, count * bytes).is_none() {
            let x = draw(first, count)?;
            write_batch(&file, &encoded(&stage.dit, dtype, &x))?;
        }
        let (done, total) = ((first + count) as u64, stage.count as u64);
        (job.progress)(Progress { done, total, unit: "images", note: String::new() });
    }
    let (channels, side) = (stage.dit.channels, stage.dit.image_size);
    let batches = (0..stage.count).step_by(BATCH).map(|first| {
        let file = batch_file(job.directory, first);
        read_batch(&file, BATCH.min(stage.count - first) * bytes)
            .with_context(|| format!("{} is damaged: start the stage again", file.display()))
    });
    let shape = [stage.count, channels, side, side];
    artifact::write_parts(&job.directory.join(artifact::SAMPLES), (samples::TENSOR, dtype, &shape), batches)?;
    for first in (0..stage.count).step_by(BATCH) {
        std::fs::remove_file(batch_file(job.directory, first)).context("cannot remove a finished batch")?;
    }
    Ok(Finished::completed(artifact::SAMPLES))
}

/// The noise that samples `first..first + count` begin as.
pub(crate) fn initial_noise(stage: &stage::Sample, first: usize, count: usize) -> Vec<f32> {
    let elements = elements(&stage.dit);
    let mut x = vec![0.0; count * elements];
    Draws::new(stage.seed, Stream::InitialNoise, 0).fill_normal((first * elements) as u64, &mut x);
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
    let elements = elements(&stage.dit);
    let mut x = initial_noise(stage, first, count);
    let mut output = vec![0.0; sampler.outputs(x.len())];
    let mut histories = vec![History::default(); count];
    for call in 0..sampler.calls() {
        if job.stopping() {
            return Err(EngineError::Interrupted);
        }
        network.denoise(&x, sampler.timestep(call), &mut output)?;
        let samples = x.par_chunks_mut(elements).zip(output.par_chunks(sampler.outputs(elements)));
        samples.zip(&mut histories).enumerate().for_each(|(i, ((x, output), history))| {
            sampler.advance(call, x, output, std::slice::from_mut(history), (first + i) as u64, stage.seed);
        });
    }
    Ok(x)
}

/// Samples as they are kept: images in bytes, latents as they are.
fn encoded(dit: &DitConfig, dtype: Dtype, x: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::U8 => Images::from_normalised(dit.channels, dit.image_size, x).pixels,
        _ => x.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// Keeps a finished batch until all are: its bytes, then their hash.
fn write_batch(file: &Path, images: &[u8]) -> Result<()> {
    let bytes = [images, &Sha256::digest(images)[..]].concat();
    Ok(models::weights::write_atomically(file, &bytes)?)
}

/// A batch of `length` bytes that was kept; `None` where there is none or its hash is off, which only costs its time.
fn read_batch(file: &Path, length: usize) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(file).ok()?;
    let (images, hash) = bytes.split_at_checked(length)?;
    if hash != &Sha256::digest(images)[..] {
        return None;
    }
    bytes.truncate(length);
    Some(bytes)
}

/// Labels of samples: the stage's class, or those of images drawn uniformly from the dataset (`captions`), or drawn
/// uniformly from the classes, or the one label of an unconditional model.
pub(crate) fn sample_labels(stage: &stage::Sample, captions: &[u32], first: usize, count: usize) -> Vec<u32> {
    if let Some(class) = stage.class {
        return vec![class; count];
    }
    let draws = Draws::new(stage.seed, Stream::SampleLabel, 0);
    let label = |i: usize| match (captions.len(), stage.dit.classes) {
        (images @ 1.., _) => captions[draws.below(i as u64, images as u32) as usize],
        (0, classes) => classes.map_or(0, |classes| draws.below(i as u64, classes as u32)),
    };
    (first..first + count).map(label).collect()
}

fn elements(dit: &DitConfig) -> usize {
    dit.channels * dit.image_size * dit.image_size
}

fn batch_file(directory: &Path, first: usize) -> PathBuf {
    directory.join(format!("samples-{first:06}.part"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_taken_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = batch_file(folder.path(), 0);
        let images: Vec<u8> = (0..100).collect();
        assert_eq!(read_batch(&file, 100), None);
        write_batch(&file, &images).unwrap();
        assert_eq!(read_batch(&file, 100), Some(images));
        assert_eq!(read_batch(&file, 99), None);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[7] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(read_batch(&file, 100), None);
        std::fs::write(&file, &bytes[..50]).unwrap();
        assert_eq!(read_batch(&file, 100), None);
    }
}
