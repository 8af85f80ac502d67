//! The fast engine where prompts learn, on a frozen trunk or together with it: `kernels` runs the trunk, `patches` the gate.

use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor, Var};
use kernels::{Learn, OutsideGradients, Parameters};
use manifest::dit::DitConfig;
use manifest::method::Method;
use models::{Condition, weights};
use patches::{ContributionGradient, Patch};

use super::pass::Pass;
use super::{Setting, TrainingTrunk, fast};
use crate::batch::TrainingBatch;
use crate::losses::Losses;
use crate::trainables::{Layout, own_slots};

/// A trunk with prompts, and room for one batch. Its layout is that of [`fast::full_slots`] where the trunk learns, then
/// that of the patch.
pub struct PatchedTrunk {
    dit: DitConfig,
    method: Method,
    /// Places of the patch's tensors, behind the trunk's.
    own: Layout,
    /// Values of the trunk that learn: all or none.
    learning: usize,
    pass: Pass,
}

impl PatchedTrunk {
    /// # Errors
    /// The backbone's weights do not fit the network.
    pub fn new(setting: Setting) -> Result<Self> {
        let own = Layout::new(own_slots(patches::trainable(setting.method, setting.dit)));
        let initial = weights::constants(&own.zeros(), DType::F32, &Device::Cpu)?;
        let patch = Patch::build(setting.method, setting.dit, &initial)?.context("this method trains no patch")?;
        let learning = setting.layout.len() - own.len();
        let (parameters, learn) = match learning {
            0 => (fast::parameters(setting.dit, setting.backbone)?, Learn::Contributions { from: 0 }),
            _ => (Parameters::zeros(fast::shape(setting.dit))?, Learn::Everything),
        };
        Ok(Self {
            dit: setting.dit.clone(),
            method: setting.method.clone(),
            own,
            learning,
            pass: Pass::new(parameters, setting.loss, setting.batch, learn, patch.prepended()),
        })
    }
}

impl TrainingTrunk for PatchedTrunk {
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        let (trunk, own) = values.split_at(self.learning);
        let (d_trunk, d_own) = gradient.split_at_mut(self.learning);
        if self.learning > 0 {
            self.pass.parameters.values_mut().copy_from_slice(trunk);
        }
        self.pass.embed(batch);
        let mut condition = fast::gate_condition(&self.pass.condition, self.dit.hidden)?;
        if self.learning > 0 {
            let variable = |tensor: &Tensor| Var::from_tensor(tensor).map(Var::into_inner);
            condition = Condition { t: variable(&condition.t)?, label: variable(&condition.label)? };
        }
        let learned = weights::variables(&self.own.unflatten(own), DType::F32, &Device::Cpu)?;
        let patch = Patch::build(&self.method, &self.dit, &learned)?.context("this method trains no patch")?;
        let mixture = patch.mix(&condition, batch.gate_noise(&patch, &Device::Cpu)?.as_ref())?;
        let mixed = fast::Mixed::new(&mixture, patch.prepended() > 0, None)?;
        let contributions = mixed.contributions(self.dit.depth);
        let mut losses = self.pass.run(batch, &contributions);

        let entered = contribution_gradient(&self.pass.gradients().contributions, mixture.contribution())?;
        if let Some(balance) = mixture.balance()? {
            losses.add_balance(&balance)?;
        }
        let d_patch = if self.learning > 0 {
            let (d_patch, read) = mixture.backward_with(&entered, &condition)?;
            let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
            let (t_emb, label) = (flat(&read.t)?, flat(&read.label)?);
            self.pass.finish(&contributions, OutsideGradients { t_emb: Some(&t_emb), label: Some(&label) });
            let ours = self.pass.gradients().parameters.as_ref().expect("everything learns");
            d_trunk.copy_from_slice(ours.values());
            d_patch
        } else {
            mixture.backward_from(&entered)?
        };
        d_own.copy_from_slice(&self.own.flatten(&weights::from_tensors(&d_patch)?)?);
        Ok(losses)
    }
}

/// The trunk's gradients of all prompted blocks, stacked as the mixture's tensors are.
fn contribution_gradient(
    blocks: &[kernels::ContributionGradient],
    like: &patches::Contribution,
) -> Result<ContributionGradient> {
    let stack = |part: fn(&kernels::ContributionGradient) -> &[f32], like: &Tensor| {
        let values: Vec<f32> = blocks.iter().flat_map(part).copied().collect();
        Tensor::from_vec(values, like.shape(), like.device())
    };
    Ok(match like {
        patches::Contribution::Prompts { weights, prompts } => {
            ContributionGradient::Prompts { weights: stack(weights_of, weights)?, prompts: stack(prompts_of, prompts)? }
        }
        patches::Contribution::Vectors { vectors, .. } => ContributionGradient::Vectors(stack(vectors_of, vectors)?),
    })
}

fn weights_of(gradient: &kernels::ContributionGradient) -> &[f32] {
    if let kernels::ContributionGradient::Prompts { weights, .. } = gradient { weights } else { &[] }
}

fn prompts_of(gradient: &kernels::ContributionGradient) -> &[f32] {
    if let kernels::ContributionGradient::Prompts { prompts, .. } = gradient { prompts } else { &[] }
}

fn vectors_of(gradient: &kernels::ContributionGradient) -> &[f32] {
    if let kernels::ContributionGradient::Vectors(vectors) = gradient { vectors } else { &[] }
}
