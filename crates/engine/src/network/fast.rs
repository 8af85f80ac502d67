//! The fast engine's trunk in sampling: samples that share timestep and label share modulations and gate.

use std::collections::BTreeMap;

use anyhow::Result;
use kernels::{Condition, Contribution, Inputs, Parameters, Plan, Workspace};
use manifest::dit::DitConfig;
use models::weights::Weights;
use patches::Patch;

use super::Trunk;
use crate::trunk::fast::{self, Mixed};

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
        let mut condition = Condition::new(shape, labels.len());
        condition.compute(&self.parameters, &vec![t as f32; labels.len()], labels);
        let mix = |patch: &Patch| -> Result<Mixed> {
            let mixture = patch.mix(&fast::gate_condition(&condition, shape.hidden)?, None)?;
            let mixed = Mixed::new(&mixture, patch.prepended() > 0)?;
            let known = self.timesteps.values().find_map(|timestep| timestep.mixed.as_ref());
            Ok(match known {
                Some(known) => mixed.sharing_prompts(known),
                None => mixed,
            })
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
