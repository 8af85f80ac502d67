//! The fast engine's trunk in sampling: samples that share timestep and label share modulations and gate.

use anyhow::Result;
use kernels::{Condition, Contribution, Inputs, Parameters, Plan, Workspace};
use manifest::dit::DitConfig;
use models::weights::Weights;
use patches::Patch;

use super::Trunk;
use crate::trunk::fast;

/// The trunk's parameters, its patch, and room for one batch.
pub struct FastTrunk {
    dit: DitConfig,
    parameters: Parameters,
    patch: Option<Patch>,
    workspace: Option<Workspace>,
}

impl FastTrunk {
    /// # Errors
    /// The weights do not fit the network.
    pub fn new(dit: &DitConfig, backbone: &Weights, patch: Option<Patch>) -> Result<Self> {
        let parameters = fast::parameters(dit, backbone)?;
        Ok(Self { dit: dit.clone(), parameters, patch, workspace: None })
    }
}

impl Trunk for FastTrunk {
    fn predict(&mut self, x: &[f32], t: usize, labels: &[u32], out: &mut [f32]) -> Result<()> {
        let shape = *self.parameters.shape();
        let prepended = self.patch.as_ref().map_or(0, Patch::prepended);
        let plan = Plan::sampling(shape, labels.len(), prepended);
        let fits = self.workspace.as_ref().is_some_and(|workspace| workspace.plan() == &plan);
        if !fits {
            self.workspace = Some(Workspace::new(plan));
        }
        let workspace = self.workspace.as_mut().expect("just made");

        let (distinct, rows) = distinct(labels);
        let mut condition = Condition::new(shape, distinct.len());
        condition.compute(&self.parameters, &vec![t as f32; distinct.len()], &distinct);
        let mixed = match &self.patch {
            Some(patch) => {
                let mixture = patch.mix(&fast::gate_condition(&condition, shape.hidden)?, None)?;
                Some(fast::Mixed::new(&mixture, prepended > 0)?)
            }
            None => None,
        };
        let depth = self.dit.depth;
        let contributions = mixed.as_ref().map_or(vec![Contribution::None; depth], |mixed| mixed.contributions(depth));
        let inputs =
            Inputs { parameters: &self.parameters, condition: &condition, rows: &rows, contributions: &contributions };
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
