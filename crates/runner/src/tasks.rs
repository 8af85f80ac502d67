//! From plans to tasks: every stage once, named after the cells that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use manifest::digest::Key;
use manifest::plan::{Input, Plan, PlannedStage};
use manifest::stage::Stage;

use crate::device::Device;
use crate::executor::Task;
use crate::protocol::Order;
use crate::work::Work;

/// The stages of some plans, each once, inputs before those who need them.
pub(crate) struct Stages<'a> {
    stages: Vec<&'a PlannedStage>,
    labels: BTreeMap<Key, String>,
}

impl<'a> Stages<'a> {
    /// All stages of `plans`.
    pub(crate) fn of(plans: &'a [Plan]) -> Self {
        let mut seen = BTreeSet::new();
        let stages = plans.iter().flat_map(|plan| &plan.stages).filter(|stage| seen.insert(stage.key)).collect();
        let mut labels = BTreeMap::new();
        for plan in plans {
            for stage in &plan.stages {
                labels.entry(stage.key).or_insert_with(|| label(plan, stage));
            }
        }
        Self { stages, labels }
    }

    /// The same without stages that none of `wanted` needs.
    pub(crate) fn needed_for(mut self, wanted: impl IntoIterator<Item = Key>) -> Self {
        let mut needed: BTreeSet<Key> = wanted.into_iter().collect();
        for stage in self.stages.iter().rev() {
            if needed.contains(&stage.key) {
                needed.extend(stage.dependencies());
            }
        }
        self.stages.retain(|stage| needed.contains(&stage.key));
        self
    }

    /// The stages, inputs first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a PlannedStage> {
        self.stages.iter().copied()
    }

    /// How a stage is called on screen.
    pub(crate) fn label(&self, key: Key) -> &str {
        self.labels.get(&key).map_or("a stage", String::as_str)
    }

    /// The work of one of them.
    pub(crate) fn work(&self, planned: &PlannedStage) -> Work {
        let sampled = planned.inputs.get("samples").and_then(|input| match input {
            Input::Stage(key) => self.stages.iter().find(|stage| stage.key == *key),
            Input::File { .. } => None,
        });
        let drawn = sampled.and_then(|planned| match &planned.stage {
            Stage::Sample(sample) => Some(sample),
            _ => None,
        });
        Work::of(&planned.stage, drawn)
    }

    /// What the executor is given. `seconds` estimates how long a stage takes.
    pub(crate) fn tasks(
        &self,
        results: &Path,
        checkout: &store::Checkout,
        device: Device,
        seconds: &dyn Fn(&PlannedStage) -> f64,
    ) -> Vec<Task> {
        let places: BTreeMap<Key, usize> =
            self.stages.iter().enumerate().map(|(place, stage)| (stage.key, place)).collect();
        let task = |stage: &&PlannedStage| {
            let producer = |key: &Key| self.stages[places[key]].clone();
            let stage_inputs = stage.inputs.iter().filter_map(|(role, input)| match input {
                Input::Stage(key) => Some((role.clone(), producer(key))),
                Input::File { .. } => None,
            });
            let needs: BTreeSet<usize> = stage.dependencies().map(|key| places[&key]).collect();
            Task {
                label: self.label(stage.key).to_owned(),
                order: Order {
                    planned: (*stage).clone(),
                    stage_inputs: stage_inputs.collect(),
                    results: results.to_owned(),
                    checkout: checkout.clone(),
                    device,
                    threads: 1,
                    again: false,
                },
                needs: needs.into_iter().collect(),
                seconds: seconds(stage),
            }
        };
        self.stages.iter().map(task).collect()
    }
}

/// `train b/hard seed 0`, `features of the reference`, `pretrain tiny-backbone`.
fn label(plan: &Plan, stage: &PlannedStage) -> String {
    let kind = stage.stage.kind();
    let Some(scale) = plan.tables.first().map(|table| &table.scale_name) else {
        return format!("{kind} {}", plan.artifact);
    };
    let cells = plan.tables.iter().flat_map(|table| table.cells.iter().chain(&table.positive_control));
    let mut users = cells.flat_map(|cell| {
        let uses = cell.runs.iter().filter(|run| run.keys().any(|key| key == stage.key));
        uses.map(|run| format!("{} seed {}", cell.id, run.seed))
    });
    let is_reference = || plan.tables.iter().any(|table| table.reference.keys().any(|key| key == stage.key));
    match (users.next(), users.count()) {
        (Some(first), 0) => format!("{kind} {first}"),
        (Some(first), more) => format!("{kind} {first} (+{more})"),
        (None, _) if is_reference() => format!("{kind} of the reference"),
        // No cell uses them: those of the floor.
        (None, _) if matches!(stage.stage, Stage::Features(_) | Stage::Metrics(_)) => format!("{kind} of real images"),
        (None, _) => format!("{kind} for {} at {scale}", plan.artifact),
    }
}
