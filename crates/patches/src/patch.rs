//! A patch: prompts, their gate and their place, over trained tensors.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use manifest::dit::DitConfig;
use manifest::method::{Balance, Init, Method, Prompts};
use models::Condition;
use models::weights::Tensors;

use crate::gate::{Gate, Size};
use crate::mixture::Mixture;
use crate::place::{self, Place};
use crate::trainable::{Initial, Trainable, check};
use crate::training::Training;
use crate::{PROMPTS, PatchError};

/// Prompts, their gate and their place, with their tensors. It never changes the backbone.
#[derive(Debug)]
pub struct Patch {
    layout: Layout,
    tensors: Arc<Tensors>,
}

impl Patch {
    /// Builds what `method` patches into a backbone of shape `dit`; `None` for a method without a patch. The patch
    /// shares `tensors`: where they are variables, gradients reach them.
    ///
    /// # Errors
    /// `tensors` are not those of [`crate::trainable`], without the backbone's where that learns too.
    pub fn build(method: &Method, dit: &DitConfig, tensors: &Tensors) -> std::result::Result<Option<Self>, PatchError> {
        match Training::build(method, dit) {
            Training::Patch(layout) | Training::Both(layout) => layout.with(tensors).map(Some),
            Training::Nothing | Training::Backbone | Training::Adapters(_) => Ok(None),
        }
    }

    /// Blocks with prompts `L` and prompts per block `N` of what `method` patches into a backbone of shape `dit`.
    pub fn size(method: &Method, dit: &DitConfig) -> Option<(usize, usize)> {
        match Training::build(method, dit) {
            Training::Patch(layout) | Training::Both(layout) => Some((layout.size.blocks, layout.size.prompts)),
            Training::Nothing | Training::Backbone | Training::Adapters(_) => None,
        }
    }

    /// Computes what enters before each block for a batch of conditions. `gate_noise`, standard normals
    /// `[L, B, N]`, is given in training only; a gate without noise does not look at it.
    ///
    /// # Errors
    /// Those of candle.
    pub fn mix(&self, condition: &Condition, gate_noise: Option<&Tensor>) -> Result<Mixture> {
        Ok(Mixture {
            gated: self.layout.gate.gate(&self.tensors, condition, gate_noise)?,
            place: Arc::clone(&self.layout.place),
            balance: self.layout.balance.clone(),
            tensors: Arc::clone(&self.tensors),
        })
    }

    /// Blocks with prompts `L`: the first ones.
    pub fn blocks(&self) -> usize {
        self.layout.size.blocks
    }

    /// Prompts per block `N`.
    pub fn prompts(&self) -> usize {
        self.layout.size.prompts
    }

    /// Tokens by which the sequence grows: `N` where prompts are prepended, else 0.
    pub fn prepended(&self) -> usize {
        if self.layout.place.in_front() { self.prompts() } else { 0 }
    }

    /// Its tensors by name.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }
}

/// A patch without its tensors.
#[derive(Debug)]
pub(crate) struct Layout {
    size: Size,
    initial: Initial,
    gate: Box<dyn Gate>,
    place: Arc<dyn Place>,
    balance: Option<Balance>,
}

impl Layout {
    pub(crate) fn new(
        prompts: &Prompts,
        dit: &DitConfig,
        build_gate: impl Fn(&dyn Place, Size) -> Box<dyn Gate>,
        balance: Option<Balance>,
    ) -> Self {
        let place = place::build(&prompts.position);
        let initial = match prompts.init {
            Init::Zero(_) => Initial::Zero,
            Init::Normal(ref normal) => Initial::Normal { std: normal.std },
        };
        let blocks = prompts.depth.blocks(dit.depth);
        let size = Size { blocks, prompts: prompts.position.prompts(dit.tokens()), width: dit.hidden };
        Self { size, initial, gate: build_gate(&*place, size), place, balance }
    }

    pub(crate) fn with(self, tensors: &Tensors) -> std::result::Result<Patch, PatchError> {
        check(&self.trainable(), tensors)?;
        Ok(Patch { layout: self, tensors: Arc::new(tensors.clone()) })
    }

    pub(crate) fn trainable(&self) -> Vec<Trainable> {
        let Size { blocks, prompts, width } = self.size;
        let mut tensors = vec![Trainable::new(PROMPTS, &[blocks, prompts, width], self.initial, 1.0)];
        tensors.extend(self.gate.trainable());
        tensors
    }
}
