//! The fast engine's trunk in sampling: samples that share timestep and label share modulations and gate.

use std::collections::BTreeMap;

use anyhow::Result;
use kernels::{Condition, Contribution, Inputs, Parameters, Plan, Workspace};
use manifest::dit::DitConfig;
use models::weights::Weights;
use patches::Patch;

use super::Trunk;
use crate::trunk::fast::{self, Mixed};

/// Candle sums products of this many entries or fewer in another order: labels are padded beyond it, so that a sample's
/// gate does not depend on which others are drawn with it.
const SMALL_PRODUCT: usize = 256;

/// The trunk's parameters, its patch, what is known of its timesteps, and room for one batch.
pub struct FastTrunk {
    parameters: Parameters,
    patch: Option<Patch>,
    /// Where nothing but the timestep decides, every timestep is computed once per run; else only the last is kept.
    tabulated: bool,
    timesteps: BTreeMap<usize, Timestep>,
    workspace: Option<Workspace>,
}

/// Modulations and gate of one timestep, a row for each label in the batch.
struct Timestep {
    condition: Condition,
    mixed: Option<Mixed>,
}

impl FastTrunk {
    /// # Errors
    /// The weights do not fit the network.
    pub fn new(dit: &DitConfig, backbone: &Weights, patch: Option<Patch>) -> Result<Self> {
        let parameters = fast::parameters(dit, backbone)?;
        let tabulated = dit.classes.is_none();
        Ok(Self { parameters, patch, tabulated, timesteps: BTreeMap::new(), workspace: None })
    }

    /// Modulations and gate of `t` under the labels that occur.
    fn timestep(&self, t: usize, labels: &[u32]) -> Result<Timestep> {
        let shape = *self.parameters.shape();
        let mut padded = labels.to_vec();
        if let Some(patch) = self.patch.as_ref().filter(|_| !self.tabulated) {
            padded.resize(labels.len().max(SMALL_PRODUCT / patch.prompts().min(shape.hidden) + 1), labels[0]);
        }
        let mut condition = Condition::new(shape, padded.len());
        condition.compute(&self.parameters, &vec![t as f32; padded.len()], &padded);
        let mix = |patch: &Patch| -> Result<Mixed> {
            let mixture = patch.mix(&fast::gate_condition(&condition, shape.hidden)?, None)?;
            let known = self.timesteps.values().find_map(|timestep| timestep.mixed.as_ref());
            Mixed::new(&mixture, patch.prepended() > 0, known)
        };
        let mixed = self.patch.as_ref().map(mix).transpose()?;
        Ok(Timestep { condition, mixed })
    }
}

impl Trunk for FastTrunk {
    fn predict(&mut self, x: &[f32], t: usize, labels: &[u32], out: &mut [f32]) -> Result<()> {
        let (distinct, rows) = distinct(labels);
        if !(self.tabulated && self.timesteps.contains_key(&t)) {
            let timestep = self.timestep(t, &distinct)?;
            if !self.tabulated {
                self.timesteps.clear();
            }
            self.timesteps.insert(t, timestep);
        }
        let Timestep { condition, mixed } = &self.timesteps[&t];

        let shape = self.parameters.shape();
        let prepended = self.patch.as_ref().map_or(0, Patch::prepended);
        let plan = Plan::sampling(*shape, labels.len(), prepended);
        let workspace = match &mut self.workspace {
            Some(workspace) if workspace.plan() == &plan => workspace,
            other => other.insert(Workspace::new(plan)),
        };
        let none = || vec![Contribution::None; shape.depth];
        let contributions = mixed.as_ref().map_or_else(none, |mixed| mixed.contributions(shape.depth));
        let inputs = Inputs { parameters: &self.parameters, condition, rows: &rows, contributions: &contributions };
        workspace.forward(&inputs, x, out);
        Ok(())
    }
}

/// The labels that occur, in the order of their first appearance, and each sample's place among them.
fn distinct(labels: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut distinct: Vec<u32> = Vec::new();
    let place = |&label: &u32| match distinct.iter().position(|&seen| seen == label) {
        Some(place) => place as u32,
        None => {
            distinct.push(label);
            distinct.len() as u32 - 1
        }
    };
    let rows = labels.iter().map(place).collect();
    (distinct, rows)
}

#[cfg(test)]
mod tests {
    use manifest::gate::{Architecture, BlockAwareness, Gate, GateInput, GateNoise, Selection, Soft};
    use manifest::method::{Add, Backbone, Balance, Depth, Dmp, ImportanceFormula, Init, LoadFormula, Method};
    use manifest::method::{Position, Prompts, Zero};
    use models::dit::named_shapes;
    use models::weights::constants;

    use super::*;
    use crate::bench::random_weights;

    /// To the bit, however many labels occur beside its own.
    #[test]
    fn a_sample_does_not_depend_on_the_labels_of_others() {
        let dit = DitConfig {
            image_size: 16,
            channels: 1,
            patch: 2,
            hidden: 16,
            depth: 2,
            heads: 2,
            classes: Some(9),
            text_width: None,
            label_dropout: 0.1,
            learn_sigma: true,
        };
        let gate = Gate {
            architecture: Architecture::Linear,
            selection: Selection::Soft(Soft {}),
            prompts_per_block: BlockAwareness::Distinct,
            input: GateInput::TPlusC,
            noise: GateNoise::None,
            learning_rate_factor: 1.0,
        };
        let prompts = Prompts { position: Position::Add(Add {}), depth: Depth::All, init: Init::Zero(Zero {}) };
        let (importance_formula, load_formula) = (ImportanceFormula::Paper, LoadFormula::Count);
        let balance = Balance { importance: 1.0, importance_formula, load: 0.0, load_formula };
        let method = Method::Dmp(Dmp { backbone: Backbone::Pretrained, prompts, gate, balance });
        let own = patches::trainable(&method, &dit).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        let tensors = |weights| constants(&weights, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let patch = Patch::build(&method, &dit, &tensors(random_weights(own))).unwrap();
        let mut trunk = FastTrunk::new(&dit, &random_weights(named_shapes(&dit)), patch).unwrap();
        let x: Vec<f32> = (0..9 * 256).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let mut predict = |x: &[f32], labels: &[u32]| {
            let mut out = vec![0.0; 2 * x.len()];
            trunk.predict(x, 500, labels, &mut out).unwrap();
            out
        };
        let all = predict(&x, &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        for count in [1, 4, 5] {
            let labels: Vec<u32> = (0..count as u32).collect();
            assert!(predict(&x[..count * 256], &labels) == all[..count * 512], "{count} labels");
        }
    }
}
