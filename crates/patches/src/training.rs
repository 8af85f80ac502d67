//! What a method trains, and what it makes of a backbone.

use manifest::dit::DitConfig;
use manifest::method::{Backbone, Method};
use models::dit::{POSITION_EMBEDDING, named_shapes};
use models::weights::Tensors;

use crate::PatchError;
use crate::gate::{self, Gate, Ungated};
use crate::lora::LowRank;
use crate::patch::{Layout, Patch};
use crate::place::Place;
use crate::trainable::{Initial, Trainable};

/// What a method trains, in a fixed order: nothing, the whole backbone, or tensors of its own.
pub fn trainable(method: &Method, dit: &DitConfig) -> Vec<Trainable> {
    match Training::build(method, dit) {
        Training::Nothing => Vec::new(),
        Training::Backbone => of_backbone(dit).collect(),
        Training::Patch(layout) => layout.trainable(),
        Training::Both(layout) => of_backbone(dit).chain(layout.trainable()).collect(),
        Training::Adapters(layout) => layout.trainable(),
    }
}

fn of_backbone(dit: &DitConfig) -> impl Iterator<Item = Trainable> {
    let shapes = named_shapes(dit).into_iter().filter(|(name, _)| name != POSITION_EMBEDDING);
    shapes.map(|(name, shape)| Trainable::new(&name, &shape, Initial::Backbone, 1.0))
}

/// Parameters that a method trains, exactly; of a patch, what it adds to the backbone.
pub fn count(method: &Method, dit: &DitConfig) -> usize {
    trainable(method, dit).iter().map(Trainable::elements).sum()
}

/// What a network runs with under a method.
#[derive(Debug)]
pub struct Applied {
    /// Weights of the trunk.
    pub trunk: Tensors,
    /// What is patched into it.
    pub patch: Option<Patch>,
}

/// What `method` makes of a `backbone` of shape `dit` with the tensors that it has `trained`. Nothing is copied that need
/// not be: where `trained` are variables, gradients reach them.
///
/// # Errors
/// `trained` are not those of [`trainable`], or a weight is missing in `backbone`.
pub fn apply(method: &Method, dit: &DitConfig, backbone: &Tensors, trained: &Tensors) -> Result<Applied, PatchError> {
    Ok(match Training::build(method, dit) {
        Training::Nothing => Applied { trunk: backbone.clone(), patch: None },
        Training::Backbone => Applied { trunk: trained.clone(), patch: None },
        Training::Patch(layout) => Applied { trunk: backbone.clone(), patch: Some(layout.with(trained)?) },
        Training::Both(layout) => {
            let (mut trunk, mut own) = (trained.clone(), Tensors::new());
            for Trainable { name, .. } in layout.trainable() {
                own.extend(trunk.remove_entry(&name));
            }
            Applied { trunk, patch: Some(layout.with(&own)?) }
        }
        Training::Adapters(layout) => {
            let mut trunk = backbone.clone();
            trunk.extend(layout.with(trained)?.merged(backbone)?);
            Applied { trunk, patch: None }
        }
    })
}

/// The one place where a method's kind decides what learns.
pub(crate) enum Training {
    Nothing,
    Backbone,
    Patch(Layout),
    /// The backbone and a patch, from initial values.
    Both(Layout),
    Adapters(LowRank),
}

impl Training {
    pub(crate) fn build(method: &Method, dit: &DitConfig) -> Self {
        match method {
            Method::Pretrained(_) => Self::Nothing,
            Method::Finetune(_) => Self::Backbone,
            Method::PromptTuning(tuning) => {
                let build_gate = |_: &dyn Place, _| -> Box<dyn Gate> { Box::new(Ungated) };
                Self::Patch(Layout::new(&tuning.prompts, dit, build_gate, None))
            }
            Method::Lora(lora) => Self::Adapters(LowRank::new(lora, dit)),
            Method::Dmp(dmp) => {
                let build_gate = |place: &dyn Place, size| gate::build(&dmp.gate, place, size);
                let layout = Layout::new(&dmp.prompts, dit, build_gate, Some(dmp.balance.clone()));
                match dmp.backbone {
                    Backbone::Pretrained => Self::Patch(layout),
                    Backbone::FromScratch => Self::Both(layout),
                }
            }
        }
    }
}
