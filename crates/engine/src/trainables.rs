//! Everything that learns, as one flat buffer: values, optimiser moments, and the names and places of its tensors.

use std::ops::Range;

use anyhow::{Result, ensure};
use models::weights::{Tensor, Weights};
use patches::{Initial, Trainable};

/// The place of one tensor in the flat buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Its name in the weight file.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// Its elements.
    pub range: Range<usize>,
    /// Its learning rate over that of the run; 0 for a tensor that is stored but does not learn.
    pub learning_rate_factor: f64,
}

/// Names, shapes and learning rate factors of the tensors that a method has of its own, beside the backbone's.
pub fn own_slots(tensors: Vec<Trainable>) -> impl Iterator<Item = (String, Vec<usize>, f64)> {
    let own = tensors.into_iter().filter(|tensor| tensor.initial != Initial::Backbone);
    own.map(|tensor| (tensor.name, tensor.shape, tensor.learning_rate_factor))
}

/// Names and places of all trainable tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// One slot a tensor, without gaps.
    pub slots: Vec<Slot>,
}

impl Layout {
    /// Tensors one behind the other, from (name, shape, learning rate factor).
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>, f64)>) -> Self {
        let mut start = 0;
        let slots = tensors.into_iter().map(|(name, shape, learning_rate_factor)| {
            let range = start..start + shape.iter().product::<usize>();
            start = range.end;
            Slot { name, shape, range, learning_rate_factor }
        });
        Self { slots: slots.collect() }
    }

    /// Elements in all.
    #[allow(clippy::len_without_is_empty, reason = "an empty layout is of no use to anybody")]
    pub fn len(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.range.end)
    }

    /// Whether all of a DiT is in it, as where the whole learns: positions are stored with it alone.
    pub fn has_positions(&self) -> bool {
        self.slots.iter().any(|slot| slot.name == models::dit::POSITION_EMBEDDING)
    }

    /// Copies tensors by name into a flat buffer.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn flatten(&self, tensors: &Weights) -> Result<Vec<f32>> {
        let mut flat = vec![0.0; self.len()];
        for slot in &self.slots {
            let Some(tensor) = tensors.get(&slot.name) else { anyhow::bail!("no tensor {}", slot.name) };
            ensure!(tensor.shape == slot.shape, "{} has shape {:?}, not {:?}", slot.name, tensor.shape, slot.shape);
            flat[slot.range.clone()].copy_from_slice(&tensor.values);
        }
        Ok(flat)
    }

    /// The tensors of a flat buffer by name.
    pub fn unflatten(&self, flat: &[f32]) -> Weights {
        let tensor = |slot: &Slot| {
            let values = flat[slot.range.clone()].to_vec();
            (slot.name.clone(), Tensor { shape: slot.shape.clone(), values })
        };
        Weights::from_iter(self.slots.iter().map(tensor))
    }

    /// Tensors of zeros.
    pub fn zeros(&self) -> Weights {
        self.unflatten(&vec![0.0; self.len()])
    }

    /// Learning rate factors over the flat buffer: neighbours of equal factor joined, what does not learn left out.
    pub fn segments(&self) -> Vec<(Range<usize>, f64)> {
        let mut segments: Vec<(Range<usize>, f64)> = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.learning_rate_factor > 0.0) {
            match segments.last_mut() {
                Some((range, factor)) if *factor == slot.learning_rate_factor && range.end == slot.range.start => {
                    range.end = slot.range.end
                }
                _ => segments.push((slot.range.clone(), slot.learning_rate_factor)),
            }
        }
        segments
    }
}
