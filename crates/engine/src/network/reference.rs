//! The reference engine's trunk in sampling: candle tensors on any device.

use anyhow::Result;
use candle_core::{Device, Tensor};
use manifest::dit::DitConfig;
use models::weights::Tensors;
use models::{Dit, Unpatched};
use patches::Patch;

use super::Trunk;

/// A network of candle tensors and its patch.
pub struct ReferenceTrunk {
    dit: Dit,
    patch: Option<Patch>,
    device: Device,
}

impl ReferenceTrunk {
    /// # Errors
    /// The weights do not fit the network.
    pub fn new(dit: &DitConfig, trunk: &Tensors, patch: Option<Patch>, device: &Device) -> Result<Self> {
        let dit = Dit::new(dit, trunk)?;
        Ok(Self { dit, patch, device: device.clone() })
    }
}

impl Trunk for ReferenceTrunk {
    fn predict(&mut self, x: &[f32], t: usize, labels: &[u32], out: &mut [f32]) -> Result<()> {
        let (b, config) = (labels.len(), self.dit.config());
        let x = Tensor::from_slice(x, (b, config.channels, config.image_size, config.image_size), &self.device)?;
        let t = Tensor::full(t as f32, b, &self.device)?;
        let condition = self.dit.condition(&t, &Tensor::new(labels, &self.device)?)?;
        let output = match &self.patch {
            Some(patch) => self.dit.forward(&x, &condition, &patch.mix(&condition, None)?)?,
            None => self.dit.forward(&x, &condition, &Unpatched)?,
        };
        out.copy_from_slice(&output.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}
