//! The reference engine: candle tensors and autograd, any method, any device.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diffusion::TrainingLoss;
use manifest::dit::DitConfig;
use manifest::method::Method;
use models::weights::{self, Tensors};
use models::{Dit, Hooks, Unpatched};
use patches::Applied;

use super::{Setting, TrainingTrunk};
use crate::batch::TrainingBatch;
use crate::loss;
use crate::losses::Losses;
use crate::trainables::Layout;

/// A trunk of candle tensors.
pub struct ReferenceTrunk {
    dit: DitConfig,
    method: Method,
    layout: Layout,
    loss: TrainingLoss,
    frozen: Tensors,
    device: Device,
}

impl ReferenceTrunk {
    /// # Errors
    /// Those of candle.
    pub fn new(setting: Setting, device: &Device) -> Result<Self> {
        Ok(Self {
            dit: setting.dit.clone(),
            method: setting.method.clone(),
            layout: setting.layout.clone(),
            loss: setting.loss,
            frozen: weights::constants(setting.backbone, DType::F32, device)?,
            device: device.clone(),
        })
    }
}

impl TrainingTrunk for ReferenceTrunk {
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        let (b, d) = (batch.clean.t.len(), &self.dit);
        let learned = weights::variables(&self.layout.unflatten(values), DType::F32, &self.device)?;
        let Applied { trunk, patch } = patches::apply(&self.method, d, &self.frozen, &learned)?;
        let dit = Dit::new(d, &trunk)?;
        let t: Vec<f32> = batch.clean.t.iter().map(|&t| t as f32).collect();
        let condition =
            dit.condition(&Tensor::new(t, &self.device)?, &Tensor::new(batch.clean.labels.as_slice(), &self.device)?)?;
        let mixture = match &patch {
            Some(patch) => Some(patch.mix(&condition, batch.gate_noise(patch, &self.device)?.as_ref())?),
            None => None,
        };
        let hooks: &dyn Hooks = mixture.as_ref().map_or(&Unpatched, |mixture| mixture);
        let x_t = Tensor::from_slice(&batch.x_t, (b, d.channels, d.image_size, d.image_size), &self.device)?;
        let output = dit.forward(&x_t, &condition, hooks)?;

        // The loss's gradient is known in closed form; autograd goes on from there.
        let said: Vec<f32> = output.flatten_all()?.to_vec1()?;
        let mut d_output = vec![0.0; said.len()];
        let mut losses = loss::losses(&self.loss, batch, &said, &mut d_output);
        let mut total = (&output * Tensor::from_vec(d_output, output.shape(), &self.device)?)?.sum_all()?;
        if let Some(balance) = mixture.as_ref().map(|mixture| mixture.balance()).transpose()?.flatten() {
            losses.add_balance(&balance)?;
            total = (total + balance.total)?;
        }
        let gradients = weights::from_tensors(&weights::gradients(&total, &learned)?)?;
        gradient.copy_from_slice(&self.layout.flatten(&gradients)?);
        Ok(losses)
    }
}
