//! The fast engine where prompts learn on a frozen trunk: `kernels` runs the trunk, `patches` the gate.

use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use diffusion::TrainingLoss;
use kernels::{Condition, Inputs, Learn, Parameters, Plan, Workspace};
use manifest::dit::DitConfig;
use manifest::method::Method;
use models::weights;
use patches::{ContributionGradient, Patch};

use super::{Setting, TrainingTrunk, fast};
use crate::batch::TrainingBatch;
use crate::loss;
use crate::losses::Losses;
use crate::trainables::Layout;

/// A frozen trunk with room for one batch.
pub struct PatchedTrunk {
    dit: DitConfig,
    method: Method,
    layout: Layout,
    loss: TrainingLoss,
    parameters: Parameters,
    condition: Condition,
    workspace: Workspace,
    rows: Vec<u32>,
}

impl PatchedTrunk {
    /// # Errors
    /// The backbone's weights do not fit the network.
    pub fn new(setting: Setting) -> Result<Self> {
        let (shape, batch) = (fast::shape(setting.dit), setting.batch);
        let learn = Learn::Contributions { from: 0 };
        let initial = weights::constants(&setting.layout.zeros(), DType::F32, &Device::Cpu)?;
        let patch = Patch::build(setting.method, setting.dit, &initial)?.context("this method trains no patch")?;
        let prepended = patch.prepended();
        let plan = Plan { shape, batch, learn, prepended, image_gradient: false };
        Ok(Self {
            dit: setting.dit.clone(),
            method: setting.method.clone(),
            layout: setting.layout.clone(),
            loss: setting.loss,
            parameters: fast::parameters(setting.dit, setting.backbone)?,
            condition: Condition::new(shape, batch),
            workspace: Workspace::new(plan),
            rows: (0..batch as u32).collect(),
        })
    }
}

impl TrainingTrunk for PatchedTrunk {
    fn gradient(&mut self, batch: &TrainingBatch, values: &[f32], gradient: &mut [f32]) -> Result<Losses> {
        self.condition.compute(&self.parameters, &fast::timesteps(batch), &batch.clean.labels);
        let condition = fast::gate_condition(&self.condition, self.dit.hidden)?;
        let learned = weights::variables(&self.layout.unflatten(values), DType::F32, &Device::Cpu)?;
        let patch = Patch::build(&self.method, &self.dit, &learned)?.context("this method trains no patch")?;
        let mixture = patch.mix(&condition, batch.gate_noise(&patch, &Device::Cpu)?.as_ref())?;
        let mixed = fast::Mixed::new(&mixture, patch.prepended() > 0)?;
        let contributions = mixed.contributions(self.dit.depth);
        let inputs = Inputs {
            parameters: &self.parameters,
            condition: &self.condition,
            rows: &self.rows,
            contributions: &contributions,
        };
        let terms = self.workspace.step(&inputs, &batch.x_t, |sample, output, d_output| {
            loss::sample(&self.loss, batch, sample, output, d_output)
        });
        let mut losses = loss::mean(&terms);

        let trunk = contribution_gradient(&self.workspace.gradients().contributions, mixture.contribution())?;
        if let Some(balance) = mixture.balance()? {
            losses.add_balance(&balance)?;
        }
        let gradients = weights::from_tensors(&mixture.backward_from(&trunk)?)?;
        gradient.copy_from_slice(&self.layout.flatten(&gradients)?);
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
