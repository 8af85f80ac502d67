//! Reads a whole tree and says what is not as it was written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use manifest::digest::{Digest, Key};
use serde::Serialize;

use crate::commit::OWN;
use crate::error::StoreError;
use crate::lock::Lock;
use crate::params;
use crate::record::Record;
use crate::tree::{Entry, Tree, What};

/// What [`verify`] has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verification {
    /// Finished stages looked at.
    pub stages: usize,
    /// Artifacts hashed.
    pub artifacts: usize,
    /// Their size.
    pub bytes: u64,
    /// Damage. The stages concerned will be run again.
    pub problems: Vec<Finding>,
    /// What is in order but worth knowing: interrupted stages, leftovers of killed processes.
    pub notes: Vec<Finding>,
}

/// Something found in a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Where, relative to the tree's root.
    pub path: PathBuf,
    /// What.
    pub what: String,
}

impl Verification {
    /// Whether there is no damage.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Reads every record and every artifact of a tree, trusting no remembered hash.
///
/// # Errors
/// [`StoreError::Io`] if the tree cannot be read at all; damage is not an error but a [`Finding`].
pub fn verify(tree: &Tree) -> Result<Verification, StoreError> {
    let mut report = Report { root: tree.root(), found: Verification::default() };
    for entry in tree.entries()? {
        let Entry { kind, path, what } = &entry;
        match what {
            What::Finished(key) => stage(tree, *key, kind, &mut report)?,
            What::Partial(key) => match Lock::holder(&tree.lock_path(*key, kind))? {
                Some(owner) => report.note(path, format!("being worked on by {owner}")),
                None => report.note(path, "interrupted; the next run goes on from it"),
            },
            What::Lock(_) if Lock::holder(path)?.is_some() => {}
            What::Lock(_) => report.note(path, "left by a killed process; the next run takes it over"),
            What::Removed(_) | What::Unfinished => {
                report.note(path, "left by a killed process; `runner gc` removes it")
            }
            What::Unknown => report.note(path, "not part of a results tree"),
        }
    }
    Ok(report.found)
}

struct Report<'a> {
    root: &'a Path,
    found: Verification,
}

impl Report<'_> {
    fn finding(&self, path: &Path, what: impl Into<String>) -> Finding {
        Finding { path: path.strip_prefix(self.root).unwrap_or(path).to_owned(), what: what.into() }
    }

    fn problem(&mut self, path: &Path, what: impl Into<String>) {
        self.found.problems.push(self.finding(path, what));
    }

    fn note(&mut self, path: &Path, what: impl Into<String>) {
        self.found.notes.push(self.finding(path, what));
    }
}

/// One finished stage.
fn stage(tree: &Tree, key: Key, kind: &str, report: &mut Report) -> Result<(), StoreError> {
    let dir = tree.dir(key, kind);
    report.found.stages += 1;
    let record = match tree.record(key, kind) {
        Ok(record) => record,
        Err(StoreError::NotDone { .. }) => {
            report.problem(&dir, "half a stage: it has no record");
            return Ok(());
        }
        Err(StoreError::Corrupt { path, reason }) => {
            report.problem(&path, reason);
            return Ok(());
        }
        Err(StoreError::Format { path, found, .. }) => {
            report.problem(&path, format!("a record of format {found}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match record.recomputed_key() {
        Some(recomputed) if recomputed != key => {
            report.problem(&dir.join(Record::FILE), format!("its parameters and inputs have the key {recomputed}"));
        }
        Some(_) => {}
        None => report.note(&dir, format!("made by `{}`, which this program no longer runs", record.version)),
    }
    if fs::read(dir.join(params::FILE)).ok().as_deref() != Some(record.params_yaml().as_bytes()) {
        report.problem(&dir.join(params::FILE), "missing, or not the parameters of the record");
    }
    for (name, artifact) in &record.artifacts {
        let path = dir.join(name);
        if tree.is_published() && !path.exists() {
            continue;
        }
        report.found.artifacts += 1;
        report.found.bytes += artifact.bytes;
        let hash = |path: &Path| Digest::of_file(path).map_err(StoreError::io("read", path));
        match artifact.damage(&path, hash) {
            Ok(None) => {}
            Ok(Some(reason)) => report.problem(&path, reason),
            Err(error) => report.problem(&path, error.to_string()),
        }
    }
    strays(&dir, &record, report)
}

/// Files that nothing accounts for.
fn strays(dir: &Path, record: &Record, report: &mut Report) -> Result<(), StoreError> {
    let mut strays = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !OWN.contains(&name.as_str()) && !record.artifacts.contains_key(&name) {
            strays.insert(name);
        }
    }
    strays.iter().for_each(|name| report.note(&dir.join(name), "not part of the stage"));
    Ok(())
}
