//! A trunk of a text-conditional network: one of a class-conditional network, whose label table is made of captions.
//!
//! Where the projection is frozen, so is the table, and the classes are all captions. Where it learns, the table is made anew
//! at each step, of the batch's captions alone, and its gradient is taken apart: so a step costs the same however many
//! captions there are.

use std::ops::Range;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use data::Batch;
use manifest::dit::DitConfig;
use manifest::scale::Numerics;
use models::dit::{LABEL_TABLE, PROJECTION, label_table, label_table_backward};

use super::{Setting, TrainingTrunk, training_trunk};
use crate::batch::TrainingBatch;
use crate::captions::Captions;
use crate::losses::Losses;
use crate::trainables::Layout;

/// The trunk of an engine over captions.
///
/// # Errors
/// As [`training_trunk`], or the weights have no projection.
pub fn captioned_trunk(
    setting: Setting,
    captions: Captions,
    numerics: &Numerics,
    device: &Device,
) -> Result<Box<dyn TrainingTrunk>> {
    if setting.layout.slots.iter().any(|slot| slot.name == PROJECTION[0]) {
        return Ok(Box::new(ProjectedTrunk::new(setting, captions, numerics, device)?));
    }
    let (dit, mut backbone) = (captions.network(setting.dit), setting.backbone.clone());
    captions.condition(setting.dit, [&mut backbone])?;
    training_trunk(Setting { dit: &dit, backbone: &backbone, ..setting }, numerics, device)
}

/// A trunk whose projection learns.
struct ProjectedTrunk {
    captions: Captions,
    /// The class-conditional trunk: as many classes as images in a batch.
    trunk: Box<dyn TrainingTrunk>,
    /// Elements of the projection's weight and bias among those that learn, one behind the other.
    projection: [Range<usize>; 2],
    /// Elements of the table among the inner trunk's, which has it in their place.
    table: Range<usize>,
    /// Shape of the weight, `[D, W]`.
    shape: Vec<usize>,
    values: Vec<f32>,
    gradient: Vec<f32>,
}

impl ProjectedTrunk {
    fn new(setting: Setting, captions: Captions, numerics: &Numerics, device: &Device) -> Result<Self> {
        let place = |name: &str| setting.layout.slots.iter().position(|slot| slot.name == name);
        let [weight, bias] = PROJECTION.map(|name| place(name).with_context(|| format!("no {name}")));
        let (weight, bias) = (weight?, bias?);
        anyhow::ensure!(bias == weight + 1, "the projection lies apart");
        let slots = &setting.layout.slots;
        let own = |slot: &crate::trainables::Slot| (slot.name.clone(), slot.shape.clone(), slot.learning_rate_factor);
        let table =
            (LABEL_TABLE.to_owned(), vec![setting.batch, setting.dit.hidden], slots[weight].learning_rate_factor);
        let (before, behind) = (slots[..weight].iter().map(own), slots[bias + 1..].iter().map(own));
        let layout = Layout::new(before.chain([table]).chain(behind));
        // Dropped labels are already the null caption's.
        let dit = DitConfig { label_dropout: 0.0, ..setting.dit.over_captions(setting.batch) };
        Ok(Self {
            projection: [slots[weight].range.clone(), slots[bias].range.clone()],
            table: layout.slots[weight].range.clone(),
            shape: slots[weight].shape.clone(),
            values: vec![0.0; layout.len()],
            gradient: vec![0.0; layout.len()],
            trunk: training_trunk(Setting { dit: &dit, layout: &layout, ..setting }, numerics, device)?,
            captions,
        })
    }
}

impl TrainingTrunk for ProjectedTrunk {
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        let rows = self.captions.rows(&batch.clean.labels)?;
        let ([weight, bias], table) = (&self.projection, &self.table);
        let w = Tensor::from_slice(&values[weight.clone()], self.shape.as_slice(), &Device::Cpu)?;
        let b = Tensor::from_slice(&values[bias.clone()], bias.len(), &Device::Cpu)?;
        self.values[..table.start].copy_from_slice(&values[..weight.start]);
        self.values[table.clone()].copy_from_slice(&label_table(&rows, &w, &b)?.flatten_all()?.to_vec1::<f32>()?);
        self.values[table.end..].copy_from_slice(&values[bias.end..]);

        let labels: Vec<u32> = (0..batch.clean.labels.len() as u32).collect();
        let numbered = TrainingBatch {
            clean: Batch { labels, ..batch.clean.clone() },
            x_t: batch.x_t.clone(),
            gate_noise: batch.gate_noise.clone(),
        };
        let losses = self.trunk.gradient(&numbered, &self.values, &mut self.gradient)?;

        let d_table = Tensor::from_slice(&self.gradient[table.clone()], (rows.dim(0)?, bias.len()), &Device::Cpu)?;
        let [d_weight, d_bias] = label_table_backward(&rows, &d_table)?;
        gradient[..weight.start].copy_from_slice(&self.gradient[..table.start]);
        gradient[weight.clone()].copy_from_slice(&d_weight.flatten_all()?.to_vec1::<f32>()?);
        gradient[bias.clone()].copy_from_slice(&d_bias.to_vec1::<f32>()?);
        gradient[bias.end..].copy_from_slice(&self.gradient[table.end..]);
        Ok(losses)
    }
}

#[cfg(test)]
mod tests {
    use diffusion::{MseWeight, Process, Schedule, TrainingLoss};
    use manifest::method::{Backbone, Finetune, Method};
    use manifest::scale::{DeviceKind, Dtype, Engine};
    use models::weights::Weights;
    use random::{Draws, Stream};

    use super::*;
    use crate::batch::Batcher;
    use crate::trunk::fast;

    fn normals(count: usize, number: u64, std: f32) -> Vec<f32> {
        let mut values = vec![0.0; count];
        Draws::new(7, Stream::Init, number).fill_normal(0, &mut values);
        values.iter_mut().for_each(|v| *v *= std);
        values
    }

    /// The gradient of the projection against differences of the loss, by both engines, where captions repeat and one is
    /// the null caption. Without a learned variance, whose bound holds the mean fixed, the gradient is that of the total.
    #[test]
    fn gradients_reach_the_projection() {
        let dit = DitConfig {
            image_size: 4,
            channels: 1,
            patch: 2,
            hidden: 8,
            depth: 2,
            heads: 2,
            classes: None,
            text_width: Some(6),
            label_dropout: 0.1,
            learn_sigma: false,
        };
        let method = Method::Finetune(Finetune { backbone: Backbone::FromScratch });
        let layout = Layout::new(fast::full_slots(&dit).unwrap());
        let values = normals(layout.len(), 0, 0.4);
        let mut batch = Batcher::empty(4, dit.elements(), 0);
        batch.x_t = normals(4 * 16, 1, 1.0);
        batch.clean.noise = normals(4 * 16, 2, 1.0);
        (batch.clean.labels, batch.clean.t) = (vec![2, 0, 2, 3], vec![10, 400, 700, 999]);
        let mut gradients = Vec::new();
        for engine in [Engine::Fast, Engine::Reference] {
            let embeddings = Tensor::from_vec(normals(4 * 6, 3, 1.0), (4, 6), &Device::Cpu).unwrap();
            let captions = Captions { embeddings, of_images: Vec::new() };
            let loss = TrainingLoss::new(Process::new(Schedule::Linear, 1000).unwrap(), MseWeight::Constant);
            let backbone = Weights::new();
            let setting = Setting { dit: &dit, method: &method, backbone: &backbone, layout: &layout, loss, batch: 4 };
            let numerics = Numerics { engine, device: DeviceKind::Cpu, dtype: Dtype::F32 };
            let mut trunk = captioned_trunk(setting, captions, &numerics, &Device::Cpu).unwrap();
            let mut gradient = vec![0.0; layout.len()];
            trunk.gradient(&batch, &values, &mut gradient).unwrap();
            for slot in layout.slots.iter().filter(|slot| PROJECTION.contains(&slot.name.as_str())) {
                let direction = normals(slot.range.len(), 4, 1.0);
                let mut at = |step: f32| {
                    let mut moved = values.clone();
                    moved[slot.range.clone()].iter_mut().zip(&direction).for_each(|(v, d)| *v += step * d);
                    trunk.gradient(&batch, &moved, &mut vec![0.0; layout.len()]).unwrap().total
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                let ours = gradient[slot.range.clone()].iter().zip(&direction).map(|(g, d)| f64::from(g * d));
                let ours: f64 = ours.sum();
                assert!(slope.abs() > 1e-2, "{} {engine:?}: {slope}", slot.name);
                assert!((ours - slope).abs() < 5e-3 * slope.abs(), "{} {engine:?}: {ours} {slope}", slot.name);
            }
            gradients.push(gradient);
        }
        for slot in layout.slots.iter().filter(|slot| slot.learning_rate_factor > 0.0) {
            let [fast, reference] = [0, 1].map(|engine: usize| &gradients[engine][slot.range.clone()]);
            let apart = fast.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let largest = reference.iter().fold(1.0, |most: f32, v| most.max(v.abs()));
            assert!(apart < 1e-4 * largest, "{}: the engines are {apart:e} apart", slot.name);
        }
    }

    #[test]
    fn weights_without_a_projection_are_refused() {
        let dit = DitConfig { classes: None, text_width: Some(6), ..DitConfig::published("DiT-S/8", None).unwrap() };
        let embeddings = Tensor::zeros((4, 6), candle_core::DType::F32, &Device::Cpu).unwrap();
        let captions = Captions { embeddings, of_images: Vec::new() };
        let message = captions.condition(&dit, [&mut Weights::new()]).unwrap_err().to_string();
        assert!(message.contains("no y_embedder.proj.weight"), "{message}");
    }
}
