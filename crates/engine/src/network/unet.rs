//! A UNet in sampling: candle tensors on any device, few images at a time ([`together`]; one of Stable Diffusion's), so that the
//! widest maps of few are in memory; on the processor several threads, each with images of its own.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use manifest::method::Method;
use manifest::unet::UnetConfig;
use models::unet::{Unet, UnetCondition};
use models::weights::{self, Weights};
use models::{Hooks, Unpatched};
use patches::unet::UnetPatch;
use rayon::prelude::*;

use super::Trunk;
use crate::sequences::Sequences;
use crate::unet::together;

/// A UNet of candle tensors, its patch, and the captions that condition it.
pub struct UnetTrunk {
    unet: Unet,
    patch: Option<UnetPatch>,
    captions: Sequences,
    device: Device,
}

impl UnetTrunk {
    /// A method's network: `backbone` with what was `trained` on it.
    ///
    /// # Errors
    /// The weights do not fit the network, or the method has no meaning on it.
    pub fn new(
        config: &UnetConfig,
        method: &Method,
        backbone: Weights,
        trained: Weights,
        captions: Sequences,
        device: &Device,
    ) -> Result<Self> {
        let (weights, own) = match method {
            Method::Finetune(_) => (trained, Weights::new()),
            _ => (backbone, trained),
        };
        let own = weights::constants(&own, DType::F32, device)?;
        let patch = UnetPatch::build(method, config, &own)?;
        let unet = Unet::new(config, &weights::into_constants(weights, device)?)?;
        Ok(Self { unet, patch, captions, device: device.clone() })
    }
}

impl Trunk for UnetTrunk {
    fn predict(&mut self, x: &[f32], t: usize, labels: &[u32], out: &mut [f32]) -> Result<()> {
        let Self { unet, patch, captions, device } = &*self;
        let t = unet.embed(&Tensor::new(&[t as f32], device)?)?;
        let mixture = patch.as_ref().map(|patch| patch.mix(&t, None)).transpose()?;
        let hooks = || mixture.as_ref().map_or(&Unpatched as &dyn Hooks, |mixture| mixture.entering());
        let (channels, side, together) = (unet.config().channels, unet.config().image_size, together(unet.config()));
        let each = together * channels * side * side;
        let predict = |((x, labels), out): ((&[f32], &[u32]), &mut [f32])| -> Result<()> {
            let x = Tensor::from_slice(x, (labels.len(), channels, side, side), device)?;
            let condition = UnetCondition { t: t.clone(), context: captions.context(labels, device)? };
            let output = unet.forward(&x, &condition, hooks())?;
            out.copy_from_slice(&output.flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        };
        if device.is_cpu() {
            let images = x.par_chunks(each).zip(labels.par_chunks(together)).zip(out.par_chunks_mut(each));
            return images.try_for_each(predict);
        }
        x.chunks(each).zip(labels.chunks(together)).zip(out.chunks_mut(each)).try_for_each(predict)
    }
}
