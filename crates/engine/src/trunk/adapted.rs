//! The fast engine where low-rank adapters learn: `kernels` runs the trunk on merged weights, `patches` takes the gradients
//! of these apart.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use kernels::Learn;
use manifest::dit::DitConfig;
use manifest::method::Method;
use models::weights::{self, Tensors, Weights};
use patches::Adapters;

use super::pass::{Pass, nothing};
use super::{Setting, TrainingTrunk, fast};
use crate::batch::TrainingBatch;
use crate::losses::Losses;
use crate::trainables::Layout;

/// A frozen trunk with adapters, and room for one batch.
pub struct AdaptedTrunk {
    dit: DitConfig,
    method: Method,
    layout: Layout,
    /// The weights that are adapted, as the backbone has them.
    frozen: Tensors,
    /// Their places in the trunk's buffer.
    places: BTreeMap<String, Range<usize>>,
    pass: Pass,
}

impl AdaptedTrunk {
    /// # Errors
    /// The backbone's weights do not fit the network, or the method has no adapters.
    pub fn new(setting: Setting) -> Result<Self> {
        let parameters = fast::parameters(setting.dit, setting.backbone)?;
        let tensors = weights::constants(&setting.layout.zeros(), DType::F32, &Device::Cpu)?;
        let adapters = adapters(setting.method, setting.dit, &tensors)?;
        let weight = |name: String| setting.backbone.get(&name).cloned().map(|weight| (name, weight));
        let adapted: Weights = adapters.weights().filter_map(weight).collect();
        let segments = parameters.segments().into_iter().filter(|segment| adapted.contains_key(&segment.name));
        Ok(Self {
            dit: setting.dit.clone(),
            method: setting.method.clone(),
            layout: setting.layout.clone(),
            frozen: weights::constants(&adapted, DType::F32, &Device::Cpu)?,
            places: segments.map(|segment| (segment.name, segment.range)).collect(),
            pass: Pass::new(parameters, setting.loss, setting.batch, Learn::Attention, 0),
        })
    }
}

impl AdaptedTrunk {
    /// Puts adapters of these values into the trunk; returns them with the weights that they make.
    fn merge(&mut self, values: &[f32]) -> Result<(Adapters, Tensors)> {
        let learned = weights::variables(&self.layout.unflatten(values), DType::F32, &Device::Cpu)?;
        let adapters = adapters(&self.method, &self.dit, &learned)?;
        let merged = adapters.merged(&self.frozen)?;
        let buffer = self.pass.parameters.values_mut();
        for (name, weight) in &merged {
            buffer[self.places[name].clone()].copy_from_slice(&weight.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok((adapters, merged))
    }

    /// The adapters' share of the gradients that the latest pass has left.
    fn split(&self, adapters: &Adapters, merged: &Tensors, gradient: &mut [f32]) -> Result<()> {
        let trunk = self.pass.gradients().parameters.as_ref().expect("attention learns").values();
        let of = |(name, weight): (&String, &Tensor)| {
            let values = &trunk[self.places[name].clone()];
            Ok((name.clone(), Tensor::from_slice(values, weight.shape(), &Device::Cpu)?))
        };
        let d_merged = merged.iter().map(of).collect::<Result<Tensors>>()?;
        let gradients = weights::from_tensors(&adapters.backward_from(merged, &d_merged)?)?;
        gradient.copy_from_slice(&self.layout.flatten(&gradients)?);
        Ok(())
    }
}

impl TrainingTrunk for AdaptedTrunk {
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        let (adapters, merged) = self.merge(values)?;
        self.pass.embed(batch);
        let losses = self.pass.run(batch, &nothing(&self.dit));
        self.split(&adapters, &merged, gradient)?;
        Ok(losses)
    }
}

fn adapters(method: &Method, dit: &DitConfig, tensors: &Tensors) -> Result<Adapters> {
    Adapters::build(method, dit, tensors)?.context("this method has no adapters")
}

#[cfg(test)]
mod tests {
    use diffusion::{MseWeight, Process, Schedule, TrainingLoss};
    use goldens::{Golden, assert_close};
    use manifest::method::Lora;

    use super::*;
    use crate::batch::Batcher;
    use crate::trainables::own_slots;
    use crate::trunk::released;

    fn weights(golden: &Golden, prefix: &str) -> Weights {
        let tensors = golden.group(prefix).into_iter();
        tensors.map(|(name, array)| (name, weights::Tensor { values: array.f32(), shape: array.shape })).collect()
    }

    /// Group i: outputs and gradients of `sum(out * in.w)`.
    #[test]
    fn goldens_adapters() {
        let (golden, base) = (Golden::open("lora_dit"), Golden::open("dit_strong"));
        let (dit, backbone) = (released::dit(base.config()), weights(&base, "sd."));
        for alpha in [4.0, 8.0] {
            let method = Method::Lora(Lora { rank: 4, alpha });
            let layout = Layout::new(own_slots(patches::trainable(&method, &dit)));
            let loss = TrainingLoss::new(Process::new(Schedule::Linear, 1000).unwrap(), MseWeight::Constant);
            let count = golden.get("in.t").values.len();
            let setting =
                Setting { dit: &dit, method: &method, backbone: &backbone, layout: &layout, loss, batch: count };
            let mut trunk = AdaptedTrunk::new(setting).unwrap();

            let mut batch = Batcher::empty(count, dit.elements(), 0);
            batch.x_t = golden.get("in.x").f32();
            batch.clean.t = golden.get("in.t").usize();
            batch.clean.labels = golden.get("in.y").usize().into_iter().map(|label| label as u32).collect();
            let named = weights(&golden, "lora.").into_iter().map(|(name, tensor)| (format!("lora.{name}"), tensor));
            let (adapters, merged) = trunk.merge(&layout.flatten(&named.collect()).unwrap()).unwrap();
            trunk.pass.embed(&batch);
            let output = trunk.pass.run_from(&batch, &nothing(&dit), &golden.get("in.w").f32());
            let name = |part: &str| format!("r4_alpha{alpha}.{part}");
            assert_close(&name("out"), &output, &golden.get(&name("out")), 1e-5);

            let mut gradient = vec![0.0; layout.len()];
            trunk.split(&adapters, &merged, &mut gradient).unwrap();
            for slot in &layout.slots {
                let part = slot.name.strip_prefix("lora.").unwrap();
                let theirs = golden.get(&name(&format!("grad.{part}")));
                assert_close(&slot.name, &gradient[slot.range.clone()], &theirs, 1e-4);
            }
        }
    }
}
