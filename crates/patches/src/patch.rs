//! A patch: prompts, their gate and their place, over trained tensors.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use manifest::dit::DitConfig;
use manifest::method::{Balance, Init, Method, Prompts};
use models::Condition;
use models::dit::{POSITION_EMBEDDING, named_shapes};
use models::weights::Tensors;

use crate::PROMPTS;
use crate::gate::{self, Gate, Size, Ungated};
use crate::mixture::Mixture;
use crate::place::{self, Place};
use crate::trainable::{Initial, Trainable};

/// The given tensors are not those of the method.
#[derive(Debug, thiserror::Error)]
#[error("the trained tensors do not fit the method: {}", faults.join("; "))]
pub struct PatchError {
    /// Every missing, mis-shaped or unexpected tensor.
    pub faults: Vec<String>,
}

/// What a method trains, in a fixed order: nothing, the whole backbone, or the patch's own tensors.
pub fn trainable(method: &Method, dit: &DitConfig) -> Vec<Trainable> {
    match Training::build(method, dit) {
        Training::Nothing => Vec::new(),
        Training::Backbone => {
            let shapes = named_shapes(dit).into_iter().filter(|(name, _)| name != POSITION_EMBEDDING);
            shapes.map(|(name, shape)| Trainable::new(&name, &shape, Initial::Backbone, 1.0)).collect()
        }
        Training::Patch(layout) => layout.trainable(),
    }
}

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
    /// `tensors` are not those of [`trainable`].
    pub fn build(method: &Method, dit: &DitConfig, tensors: &Tensors) -> std::result::Result<Option<Self>, PatchError> {
        let Training::Patch(layout) = Training::build(method, dit) else { return Ok(None) };
        layout.check(tensors)?;
        Ok(Some(Self { layout, tensors: Arc::new(tensors.clone()) }))
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

/// What a method trains.
enum Training {
    Nothing,
    Backbone,
    Patch(Layout),
}

impl Training {
    fn build(method: &Method, dit: &DitConfig) -> Self {
        match method {
            Method::Pretrained(_) => Self::Nothing,
            Method::Finetune(_) => Self::Backbone,
            Method::PromptTuning(tuning) => {
                let build_gate = |_: &dyn Place, _| -> Box<dyn Gate> { Box::new(Ungated) };
                Self::Patch(Layout::new(&tuning.prompts, dit, build_gate, None))
            }
            Method::Dmp(dmp) => {
                let build_gate = |place: &dyn Place, size| gate::build(&dmp.gate, place, size);
                Self::Patch(Layout::new(&dmp.prompts, dit, build_gate, Some(dmp.balance.clone())))
            }
        }
    }
}

/// A patch without its tensors.
#[derive(Debug)]
struct Layout {
    size: Size,
    initial: Initial,
    gate: Box<dyn Gate>,
    place: Arc<dyn Place>,
    balance: Option<Balance>,
}

impl Layout {
    fn new(
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

    fn trainable(&self) -> Vec<Trainable> {
        let Size { blocks, prompts, width } = self.size;
        let mut tensors = vec![Trainable::new(PROMPTS, &[blocks, prompts, width], self.initial, 1.0)];
        tensors.extend(self.gate.trainable());
        tensors
    }

    fn check(&self, tensors: &Tensors) -> std::result::Result<(), PatchError> {
        let trainable = self.trainable();
        let mut faults = Vec::new();
        for Trainable { name, shape, .. } in &trainable {
            match tensors.get(name) {
                None => faults.push(format!("missing {name} {shape:?}")),
                Some(found) if found.dims() != shape => {
                    faults.push(format!("{name} has shape {:?}, expected {shape:?}", found.dims()));
                }
                Some(_) => {}
            }
        }
        let unexpected = tensors.keys().filter(|name| trainable.iter().all(|t| t.name != **name));
        faults.extend(unexpected.map(|name| format!("unexpected {name}")));
        if faults.is_empty() { Ok(()) } else { Err(PatchError { faults }) }
    }
}
