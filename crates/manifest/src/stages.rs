//! The stages of a plan, each once.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::digest::Key;
use crate::plan::{Input, PlannedStage};
use crate::problem::{Error, Place};
use crate::stage::Stage;

/// Inputs of a stage by name.
pub(crate) type Inputs = BTreeMap<String, Input>;

/// Every stage once, inputs before those who need them.
#[derive(Default)]
pub(crate) struct Stages(IndexMap<Key, PlannedStage>);

impl Stages {
    /// Plans a stage, unless it is planned. Its numbers are finite, since the files were checked.
    pub(crate) fn add(&mut self, stage: Stage, inputs: Inputs) -> Result<Key, Error> {
        let planned =
            PlannedStage::new(stage, inputs).map_err(|error| Error::at(&Place::Nowhere, error.to_string()))?;
        let key = planned.key;
        self.0.entry(key).or_insert(planned);
        Ok(key)
    }

    /// Removes a stage that no other reads, and then those that it alone has read.
    pub(crate) fn remove_unread(&mut self, key: Key) {
        if self.0.values().any(|planned| planned.dependencies().any(|needed| needed == key)) {
            return;
        }
        let removed = self.0.shift_remove(&key);
        removed.iter().flat_map(PlannedStage::dependencies).for_each(|needed| self.remove_unread(needed));
    }

    pub(crate) fn into_vec(self) -> Vec<PlannedStage> {
        self.0.into_values().collect()
    }
}
