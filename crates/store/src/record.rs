//! What a finished stage leaves behind, sealed with its own hash.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use manifest::digest::{Digest, Key};
use manifest::plan::{Input, PlannedStage};
use manifest::stage::Stage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StoreError;
use crate::params;
use crate::provenance::Provenance;

/// Format of records and of the tree around them.
pub(crate) const FORMAT: u32 = 1;

/// A finished stage: what was asked, what came out, and what made it. It names no machine and no path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Kind of the stage, e.g. `train`.
    pub kind: String,
    /// Kind and version of the stage's code, e.g. `train/v1`.
    pub version: String,
    /// The stage's key: hash of version, parameters and inputs.
    pub key: Key,
    /// The parameters ([`Stage`] as JSON), every default explicit.
    pub params: Value,
    /// The inputs by name.
    pub inputs: BTreeMap<String, RecordedInput>,
    /// How the stage ended.
    pub outcome: Outcome,
    /// Files beside the record, by name; tables written by the store among them.
    pub artifacts: BTreeMap<String, Artifact>,
    /// Numbers by name, all finite.
    pub metrics: BTreeMap<String, f64>,
    /// What code and machine made it, and at what cost.
    pub provenance: Provenance,
}

/// What a stage has read: an [`Input`] without its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedInput {
    /// Another stage.
    Stage(Key),
    /// A file or folder, by content.
    File(Digest),
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As planned.
    Completed,
    /// The loss was not finite: a result, not a failure.
    Diverged {
        /// The first iteration whose loss was not finite.
        iteration: usize,
    },
}

/// A file of a finished stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Hash of its content.
    pub sha256: Digest,
    /// Its size.
    pub bytes: u64,
}

/// `record.json`: the record and the hash of its compact JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    format: u32,
    seal: Digest,
    record: Record,
}

/// The part of `record.json` that every format has.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

impl Record {
    /// Name of the file.
    pub const FILE: &str = "record.json";

    /// The inputs as a planned stage has them, without paths.
    pub(crate) fn planned_inputs(&self) -> BTreeMap<String, Input> {
        let planned = |input: &RecordedInput| match input {
            RecordedInput::Stage(key) => Input::Stage(*key),
            RecordedInput::File(sha256) => Input::File { sha256: *sha256, path: PathBuf::new() },
        };
        self.inputs.iter().map(|(name, input)| (name.clone(), planned(input))).collect()
    }

    /// The key that the recorded parameters and inputs give today; `None` if they belong to another version of the stage.
    pub(crate) fn recomputed_key(&self) -> Option<Key> {
        let stage: Stage = serde_json::from_value(self.params.clone()).ok()?;
        if stage.version() != self.version {
            return None;
        }
        PlannedStage::new(stage, self.planned_inputs()).ok().map(|planned| planned.key)
    }

    /// The contents of `params.yaml`.
    pub(crate) fn params_yaml(&self) -> String {
        let inputs = serde_json::to_value(&self.inputs).expect("inputs have a JSON form");
        params::to_yaml(&self.params, &inputs)
    }

    /// The contents of `record.json`.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let seal = Digest::of(&serde_json::to_vec(self).expect("a record has a JSON form"));
        let sealed = Sealed { format: FORMAT, seal, record: self.clone() };
        let mut json = serde_json::to_vec_pretty(&sealed).expect("a record has a JSON form");
        json.push(b'\n');
        json
    }

    /// Reads the record of a folder; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Format`] for another format, [`StoreError::Corrupt`] where any byte is not as it was written.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join(Self::FILE);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        let not_json = |error: serde_json::Error| StoreError::corrupt(&path, format!("not a record: {error}"));
        let Header { format } = serde_json::from_slice(&json).map_err(not_json)?;
        if format != FORMAT {
            return Err(StoreError::Format { path, found: format.to_string(), supported: FORMAT });
        }
        let Sealed { record, .. } = serde_json::from_slice(&json).map_err(not_json)?;
        // Written anew, with its seal, the record must be the same text to the last byte.
        if record.to_json() != json {
            return Err(StoreError::corrupt(path, "changed since it was written (its seal does not fit)"));
        }
        Ok(Some(record))
    }
}

impl Artifact {
    /// What is wrong with the file at `path`, if anything. `hash` is asked only if the size is right.
    pub(crate) fn damage(
        &self,
        path: &Path,
        hash: impl Fn(&Path) -> Result<Digest, StoreError>,
    ) -> Result<Option<String>, StoreError> {
        let stat = match fs::symlink_metadata(path) {
            Ok(stat) => stat,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some("missing".to_owned())),
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        if !stat.is_file() {
            return Ok(Some("not a file".to_owned()));
        }
        if stat.len() != self.bytes {
            return Ok(Some(format!("has {} bytes instead of {}", stat.len(), self.bytes)));
        }
        let found = hash(path)?;
        Ok((found != self.sha256).then(|| format!("its SHA-256 is {found} instead of {}", self.sha256)))
    }
}

impl From<&Input> for RecordedInput {
    fn from(input: &Input) -> Self {
        match input {
            Input::Stage(key) => Self::Stage(*key),
            Input::File { sha256, .. } => Self::File(*sha256),
        }
    }
}
