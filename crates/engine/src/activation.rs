//! The stage `activation`: the gate's weight of every prompt in every prompted block over the timesteps (Figure 5).

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};
use manifest::stage;
use models::Dit;
use models::weights;
use patches::Applied;
use safetensors::Dtype;

use crate::artifact;
use crate::captions::Captions;
use crate::job::{EngineError, Finished, Job};

/// Writes `weights` f32 `[timesteps, L', N]` and `timesteps` i64 for label 0 (or the first caption), without the noise of training.
///
/// # Errors
/// An input is missing, or the method has no patch.
pub fn activation(job: &Job, stage: &stage::Activation) -> Result<Finished, EngineError> {
    let mut backbone = artifact::backbone(job, &stage.method)?;
    let mut trained = weights::read(job.input("trained")?).map_err(anyhow::Error::from)?;
    let (dit, _) = Captions::resolve(job, &stage.dit, [&mut backbone, &mut trained])?;
    let device = job.tensor_device()?;
    let steps = timesteps(stage.timesteps, stage.diffusion.timesteps);
    let weights = (|| -> Result<Tensor> {
        let tensors = |weights| weights::constants(weights, DType::F32, &device);
        let Applied { trunk, patch } = patches::apply(&stage.method, &dit, &tensors(&backbone)?, &tensors(&trained)?)?;
        let (dit, patch) = (Dit::new(&dit, &trunk)?, patch.context("this method has no gate")?);
        let t = Tensor::from_iter(steps.iter().map(|&t| t as f32), &device)?;
        let labels = Tensor::zeros(steps.len(), DType::U32, &device)?;
        let mixture = patch.mix(&dit.condition(&t, &labels)?, None)?;
        Ok(mixture.weights()?.transpose(0, 1)?.contiguous()?)
    })()?;
    let shape = weights.dims().to_vec();
    let values: Vec<f32> = weights.flatten_all().and_then(|w| w.to_vec1()).map_err(anyhow::Error::from)?;
    let tensors = [
        ("weights", Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("timesteps", Dtype::I64, vec![steps.len()], steps.iter().flat_map(|&t| (t as i64).to_le_bytes()).collect()),
    ];
    artifact::write(&job.directory.join(artifact::ACTIVATION), &tensors)?;
    Ok(Finished::completed(artifact::ACTIVATION))
}

/// `count` timesteps, evenly spaced over `0..length`, both ends included.
fn timesteps(count: usize, length: usize) -> Vec<usize> {
    (0..count).map(|i| i * (length - 1) / (count - 1).max(1)).collect()
}
