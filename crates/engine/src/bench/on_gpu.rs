//! Works on a GPU: whole steps and calls of the sampler as the stages do them there, by the GPU's own clock.

use anyhow::Context;
use gpu::Machine;
use kernels::Shape;
use manifest::denoiser::Denoiser;
use manifest::scale::{Dtype, Numerics};

use super::clock::median;
use super::count::Count;
use super::inputs::{DIFFUSION, Inputs, numerics};
use super::sampling;
use super::work::Work;
use super::{Measurement, Setting, step};
use crate::checkpoint::Checkpoint;
use crate::job::EngineError;
use crate::sampling::{initial_noise, machine_sampler};
use crate::trunk::fast;
use crate::{on_gpu, process};

/// Steps between two looks at the clock: a graph after the other, without the host.
const STEPS: usize = 16;

/// Side of the matrices whose product is the peak.
const SIDE: usize = 8192;

/// Times `work` on a machine.
///
/// # Errors
/// It does not fit, or the machine failed.
pub fn measure<M: Machine>(work: Work, setting: &Setting, machine: &M) -> Result<Measurement, EngineError> {
    let numerics = numerics(setting);
    let network = work.network().context("what looks at features does not run on a GPU: leave `--device` out")?;
    let free = machine.free().map_err(anyhow::Error::from)?;
    let inputs = Inputs::new(work, network);
    let precision = on_gpu::precision(numerics.dtype);
    let peak = gpu::peak(machine, precision, SIDE).map_err(anyhow::Error::from)?;
    let (times, held) = match work {
        Work::Sample(_) => samples(&inputs, setting, &numerics, machine, free)?,
        _ => steps(&inputs, setting, &numerics, machine, free)?,
    };
    let count = Count::of(work);
    let gflop = count.flops / 1e9;
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let (repetitions, ms) = (times.len(), median(times));
    let weights = inputs.weight_bytes() / if numerics.dtype == Dtype::Bf16 { 2 } else { 1 };
    Ok(Measurement {
        work: work.name().to_owned(),
        title: work.title(),
        engine: setting.engine,
        threads: setting.threads,
        repetitions,
        step_ms: ms,
        least_ms: least,
        images_per_s: work.images().map(|images| 1e3 * images as f64 / ms),
        gflop,
        gflop_per_s: 1e3 * gflop / ms,
        peak_gflop_per_s: peak,
        share_of_peak: 1e3 * gflop / ms / peak,
        floor_ms: 1e3 * gflop / peak,
        peak_bytes: Some(held),
        step_bytes: Some(held.saturating_sub(weights + pool_bytes(&inputs, &fast::shape(&network.dit())))),
        activation_bytes: count.activation_bytes.map(|bytes| match numerics.dtype {
            Dtype::F32 => bytes,
            Dtype::Bf16 => bytes / 2,
        }),
    })
}

/// Images in the machine's memory, as they are and mirrored.
fn pool_bytes(inputs: &Inputs, shape: &Shape) -> u64 {
    (2 * inputs.images.len() * shape.image() * size_of::<f32>()) as u64
}

/// Times `each` of something that was done often enough before, and what the machine holds then.
fn repeat<M: Machine>(
    machine: &M,
    seconds: f64,
    free: usize,
    share: usize,
    mut each: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<(Vec<f64>, u64)> {
    // the first kernel by kernel, the second captured
    for _ in 0..2 {
        each()?;
    }
    let held = free.saturating_sub(machine.free()?) as u64;
    let (start, mut times) = (std::time::Instant::now(), Vec::new());
    while times.is_empty() || start.elapsed().as_secs_f64() < seconds {
        let mut failed = Ok(());
        let ms = machine.time(&mut || {
            failed = each();
            Ok(())
        })?;
        failed?;
        times.push(ms / share as f64);
    }
    Ok((times, held))
}

fn steps<M: Machine>(
    inputs: &Inputs,
    setting: &Setting,
    numerics: &Numerics,
    machine: &M,
    free: usize,
) -> anyhow::Result<(Vec<f64>, u64)> {
    let (dit, optimisation) = (inputs.network.dit(), step::optimisation(inputs.network));
    let denoiser = Denoiser::Dit(dit.clone());
    let task = step::task(inputs, &denoiser, &optimisation, numerics);
    let (layout, initial) = task.start(&inputs.backbone)?;
    let state = Checkpoint::start(layout.flatten(&initial)?, false);
    let mut course = task.course(machine, &dit, &inputs.images, &inputs.backbone, &layout, &state)?;
    let mut number = 0;
    let times = repeat(machine, setting.seconds, free, STEPS, || {
        course.launch(number, STEPS)?;
        number += STEPS;
        Ok(())
    })?;
    course.finite()?;
    Ok(times)
}

fn samples<M: Machine>(
    inputs: &Inputs,
    setting: &Setting,
    numerics: &Numerics,
    machine: &M,
    free: usize,
) -> anyhow::Result<(Vec<f64>, u64)> {
    let (stage, trained) = sampling::stage(inputs, numerics);
    let dit = inputs.network.dit();
    let sampler = process::sampler(&DIFFUSION, &stage.sampler, dit.learn_sigma)?;
    let mut gpu_sampler = machine_sampler(machine, &stage, &dit, (&inputs.backbone, &trained), &sampler)?;
    let count = stage.count;
    repeat(machine, setting.seconds, free, 1, || {
        let labels = crate::sampling::sample_labels(&stage, &[], 0, count);
        gpu_sampler.draw(0, initial_noise(&stage, 0, count), labels, || false)?;
        Ok(())
    })
}
