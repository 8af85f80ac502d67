//! The stage `activation`: the gate's weight of every prompt in every prompted block over the timesteps (Figure 5).

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use manifest::denoiser::Denoiser;
use manifest::dit::DitConfig;
use manifest::stage;
use manifest::unet::UnetNetwork;
use models::Dit;
use models::unet::Unet;
use models::weights::{self, Weights};
use patches::Applied;
use patches::unet::UnetPatch;
use safetensors::Dtype;

use crate::captions::Captions;
use crate::job::{EngineError, Finished, Job};
use crate::{artifact, unet};

/// Writes `weights` f32 `[timesteps, L', N]` and `timesteps` i64 for label 0 (or the first caption), without the noise of training.
///
/// # Errors
/// An input is missing, or the method has no patch.
pub fn activation(job: &Job, stage: &stage::Activation) -> Result<Finished, EngineError> {
    let trained = weights::read(job.input("trained")?).map_err(anyhow::Error::from)?;
    let steps = timesteps(stage.timesteps, stage.diffusion.timesteps);
    let weights = match &stage.denoiser {
        Denoiser::Dit(dit) => of_dit(job, stage, dit, trained, &steps)?,
        Denoiser::Unet(unet) => of_unet(job, stage, unet, trained, &steps)?,
    };
    let weights = weights.transpose(0, 1).and_then(|weights| weights.contiguous()).map_err(anyhow::Error::from)?;
    let shape = weights.dims().to_vec();
    let values: Vec<f32> = weights.flatten_all().and_then(|w| w.to_vec1()).map_err(anyhow::Error::from)?;
    let tensors = [
        ("weights", Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("timesteps", Dtype::I64, vec![steps.len()], steps.iter().flat_map(|&t| (t as i64).to_le_bytes()).collect()),
    ];
    artifact::write(&job.directory.join(artifact::ACTIVATION), &tensors)?;
    Ok(Finished::completed(artifact::ACTIVATION))
}

/// The gate's weights on a DiT, `[L', timesteps, N]`.
fn of_dit(
    job: &Job,
    stage: &stage::Activation,
    dit: &DitConfig,
    mut trained: Weights,
    steps: &[usize],
) -> Result<Tensor, EngineError> {
    let mut backbone = artifact::backbone(job, &stage.method, dit)?;
    let (dit, _) = Captions::resolve(job, dit, [&mut backbone, &mut trained])?;
    let device = job.tensor_device()?;
    let weights = || -> Result<Tensor> {
        let tensors = |weights| weights::constants(weights, DType::F32, &device);
        let Applied { trunk, patch } = patches::apply(&stage.method, &dit, &tensors(&backbone)?, &tensors(&trained)?)?;
        let (dit, patch) = (Dit::new(&dit, &trunk)?, patch.context("this method has no gate")?);
        let labels = Tensor::zeros(steps.len(), DType::U32, &device)?;
        Ok(patch.mix(&dit.condition(&timesteps_tensor(steps, &device)?, &labels)?, None)?.weights()?)
    };
    Ok(weights()?)
}

/// The gate's weights on a UNet, which no caption changes, `[L, timesteps, G]`.
fn of_unet(
    job: &Job,
    stage: &stage::Activation,
    unet: &UnetNetwork,
    trained: Weights,
    steps: &[usize],
) -> Result<Tensor, EngineError> {
    let (backbone, device) = (unet::weights(job, unet)?, job.tensor_device()?);
    let weights = || -> Result<Tensor> {
        let trained = weights::constants(&trained, DType::F32, &device)?;
        let patch = UnetPatch::build(&stage.method, &unet.shape, &trained)?.context("this method has no gate")?;
        let unet = Unet::new(&unet.shape, &weights::into_constants(backbone, &device)?)?;
        Ok(patch.mix(&unet.embed(&timesteps_tensor(steps, &device)?)?, None)?.weights().clone())
    };
    Ok(weights()?)
}

/// Timesteps as an embedder reads them.
fn timesteps_tensor(steps: &[usize], device: &Device) -> candle_core::Result<Tensor> {
    Tensor::from_iter(steps.iter().map(|&t| t as f32), device)
}

/// `count` timesteps, evenly spaced over `0..length`, both ends included.
fn timesteps(count: usize, length: usize) -> Vec<usize> {
    (0..count).map(|i| i * (length - 1) / (count - 1).max(1)).collect()
}
