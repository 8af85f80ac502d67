//! The commit: a stage's folder becomes a finished stage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use manifest::digest::{Digest, Key};
use manifest::plan::PlannedStage;

use crate::atomic;
use crate::error::StoreError;
use crate::frames::{self, CurvePoint};
use crate::params;
use crate::provenance::Provenance;
use crate::record::{Artifact, Outcome, Record};
use crate::store::Store;
use crate::tree::{self, Tree};

/// What a finished stage holds beside its artifacts.
pub(crate) const OWN: [&str; 3] = [Record::FILE, params::FILE, tree::LOGS];

/// Artifacts that the store writes itself.
pub(crate) const TABLES: [&str; 2] = [frames::METRICS, frames::CURVE];

/// What a stage hands in.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// Numbers by name, all finite. They become `metrics.parquet`, too.
    pub metrics: BTreeMap<String, f64>,
    /// The training curve; becomes `curve.parquet`. Empty for stages that do not train.
    pub curve: Vec<CurvePoint>,
    /// Names of files in [`Claim::dir`](crate::Claim::dir). Everything else there but the logs is removed.
    pub artifacts: Vec<String>,
}

/// A commit under way.
struct Commit<'a> {
    store: &'a Store,
    dir: PathBuf,
    finished: &'a Finished,
    record: Record,
}

type Step = fn(&mut Commit) -> Result<(), StoreError>;

/// A commit in order. Once the record is written the outcome is decided: a commit that was cut off after it is finished
/// by the next claim, one that was cut off before it leaves an interrupted stage with its checkpoints.
const STEPS: [Step; 5] = [write_tables, flush_artifacts, write_record, clear_rest, move_into_place];

/// Commits a stage whose lock is held.
pub(crate) fn commit(
    store: &Store,
    planned: &PlannedStage,
    finished: &Finished,
    provenance: Provenance,
) -> Result<Record, StoreError> {
    let mut commit = begin(store, planned, finished, provenance)?;
    STEPS.iter().try_for_each(|step| step(&mut commit))?;
    Ok(commit.record)
}

/// Finishes a commit that was cut off after its record was written; `false` if there is none. The lock must be held.
pub(crate) fn finish_interrupted(tree: &Tree, key: Key, kind: &str) -> Result<bool, StoreError> {
    let dir = tree.partial_dir(key, kind);
    let record = match Record::read(&dir) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(false),
        Err(StoreError::Corrupt { .. }) => return withdraw(&dir),
        Err(error) => return Err(error),
    };
    let hash = |path: &Path| Digest::of_file(path).map_err(StoreError::io("read", path));
    for (name, artifact) in &record.artifacts {
        if artifact.damage(&dir.join(name), hash)?.is_some() {
            return withdraw(&dir);
        }
    }
    clear(&dir, &record)?;
    rename(tree, &record)?;
    Ok(true)
}

fn begin<'a>(
    store: &'a Store,
    planned: &PlannedStage,
    finished: &'a Finished,
    provenance: Provenance,
) -> Result<Commit<'a>, StoreError> {
    let PlannedStage { key, stage, inputs } = planned;
    let record = Record {
        kind: stage.kind().to_owned(),
        version: stage.version(),
        key: *key,
        params: serde_json::to_value(stage).expect("a stage has a JSON form"),
        inputs: inputs.iter().map(|(name, input)| (name.clone(), input.into())).collect(),
        outcome: finished.outcome,
        artifacts: BTreeMap::new(),
        metrics: finished.metrics.clone(),
        provenance,
    };
    let commit = Commit { store, dir: store.tree().partial_dir(*key, stage.kind()), finished, record };
    match finished.metrics.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(commit.rejected(format!("the metric `{name}` is {value}"))),
        None => Ok(commit),
    }
}

fn write_tables(commit: &mut Commit) -> Result<(), StoreError> {
    let Finished { metrics, curve, .. } = commit.finished;
    if !metrics.is_empty() {
        frames::write_parquet(&commit.dir.join(frames::METRICS), frames::of_metrics(metrics)?)?;
        commit.enter(frames::METRICS)?;
    }
    if !curve.is_empty() {
        frames::write_parquet(&commit.dir.join(frames::CURVE), frames::of_curve(curve)?)?;
        commit.enter(frames::CURVE)?;
    }
    atomic::write(&commit.dir.join(params::FILE), commit.record.params_yaml().as_bytes())
}

fn flush_artifacts(commit: &mut Commit) -> Result<(), StoreError> {
    for name in &commit.finished.artifacts {
        let path = Path::new(name);
        let reserved = OWN.contains(&name.as_str()) || TABLES.contains(&name.as_str()) || name.starts_with('.');
        if path.file_name() != Some(path.as_os_str()) || reserved {
            return Err(commit.rejected(format!("`{name}` cannot be the name of an artifact")));
        }
        if !fs::symlink_metadata(commit.dir.join(path)).is_ok_and(|stat| stat.is_file()) {
            return Err(commit.rejected(format!("the artifact `{name}` was not written")));
        }
        commit.enter(name)?;
    }
    Ok(())
}

fn write_record(commit: &mut Commit) -> Result<(), StoreError> {
    commit.store.hashes().save();
    atomic::write(&commit.dir.join(Record::FILE), &commit.record.to_json())
}

fn clear_rest(commit: &mut Commit) -> Result<(), StoreError> {
    clear(&commit.dir, &commit.record)
}

fn move_into_place(commit: &mut Commit) -> Result<(), StoreError> {
    rename(commit.store.tree(), &commit.record)
}

impl Commit<'_> {
    /// Flushes a file to disk and enters it in the record.
    fn enter(&mut self, name: &str) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        atomic::sync_file(&path)?;
        let bytes = fs::metadata(&path).map_err(StoreError::io("read", &path))?.len();
        let sha256 = self.store.hashes().sha256(&path)?;
        self.record.artifacts.insert(name.to_owned(), Artifact { sha256, bytes });
        Ok(())
    }

    fn rejected(&self, reason: String) -> StoreError {
        StoreError::Rejected { stage: tree::name(self.record.key, &self.record.kind), reason }
    }
}

/// Takes back a record whose files did not survive: the stage is run on from its checkpoints.
fn withdraw(dir: &Path) -> Result<bool, StoreError> {
    let path = dir.join(Record::FILE);
    fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
    Ok(false)
}

/// Removes checkpoints and whatever else a finished stage does not hold.
fn clear(dir: &Path, record: &Record) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| OWN.contains(&name) || record.artifacts.contains_key(name)) {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(StoreError::io("remove", &path))?;
    }
    atomic::sync_dir(dir)
}

/// The commit point.
fn rename(tree: &Tree, record: &Record) -> Result<(), StoreError> {
    let dir = tree.dir(record.key, &record.kind);
    let partial = tree.partial_dir(record.key, &record.kind);
    fs::rename(&partial, &dir).map_err(StoreError::io("move into place", &partial))?;
    atomic::sync_dir(atomic::parent(&dir))
}

#[cfg(test)]
mod tests {
    use manifest::stage::{FeatureKind, Metrics, Stage};

    use super::*;
    use crate::status::Status;
    use crate::verify::verify;

    fn planned() -> PlannedStage {
        let stage = Stage::Metrics(Metrics { name: "fd_small".into(), subsets: 2, seed: 1, of: FeatureKind::Pooled });
        PlannedStage::new(stage, BTreeMap::new()).unwrap()
    }

    /// Runs the first `steps` steps of a commit, then stops as a killed process does.
    fn commit_cut_off_after(steps: usize, store: &Store) {
        let claim = store.claim(&planned()).unwrap();
        fs::write(claim.dir().join("artifact"), "artifact").unwrap();
        fs::create_dir_all(claim.dir().join("checkpoint")).unwrap();
        let finished = Finished {
            outcome: Outcome::Completed,
            metrics: BTreeMap::from([("fd_small".to_owned(), 0.1 + 0.2)]),
            curve: vec![CurvePoint {
                iteration: 1,
                learning_rate: 1e-4,
                losses: BTreeMap::from([("mse".to_owned(), f64::NAN)]),
            }],
            artifacts: vec!["artifact".to_owned()],
        };
        let provenance = serde_json::json!({
            "code": { "cargo_lock_sha256": Digest::of(b""), "rustc": "rustc" },
            "machine": { "device": "cpu", "threads": 1 },
            "cost": { "started": "", "finished": "", "wall_seconds": 0.5, "resumed_attempts": 0 },
        });
        let provenance = serde_json::from_value(provenance).unwrap();
        let mut commit = begin(store, &planned(), &finished, provenance).unwrap();
        STEPS[..steps].iter().for_each(|step| step(&mut commit).unwrap());
    }

    #[test]
    fn a_commit_cut_off_anywhere_is_nothing_or_everything() {
        let is_decision = |step: &Step| std::ptr::fn_addr_eq(*step, write_record as Step);
        let decided = STEPS.iter().position(is_decision).unwrap() + 1;
        for steps in 0..=STEPS.len() {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let PlannedStage { key, stage, .. } = planned();
            commit_cut_off_after(steps, &store);

            let found = verify(store.tree()).unwrap();
            assert!(found.is_sound(), "after {steps} steps: {found:?}");
            assert_eq!(found.stages, usize::from(steps == STEPS.len()));
            let status = store.status(key, stage.kind()).unwrap();
            if steps == STEPS.len() {
                assert!(matches!(status, Status::Done(_)), "{status:?}");
            } else {
                assert_eq!(status, Status::Partial { attempts: 1 });
            }

            // The next claim finds the work done, or what is needed to go on.
            match store.claim(&planned()) {
                Err(StoreError::AlreadyDone { .. }) => {
                    assert!(steps >= decided, "done after {steps} steps");
                    assert!(matches!(store.status(key, stage.kind()).unwrap(), Status::Done(_)));
                    assert!(!store.tree().dir(key, stage.kind()).join("checkpoint").exists());
                }
                Ok(claim) => {
                    assert!(steps < decided, "not done after {steps} steps");
                    assert!(claim.dir().join("checkpoint").exists() && claim.attempt() == 2);
                }
                Err(error) => panic!("{error}"),
            }
            assert!(verify(store.tree()).unwrap().is_sound());
        }
    }

    #[test]
    fn a_decided_commit_whose_artifact_is_damaged_is_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        commit_cut_off_after(4, &store);
        let PlannedStage { key, stage, .. } = planned();
        fs::write(store.tree().partial_dir(key, stage.kind()).join("artifact"), "ARTIFACT").unwrap();
        assert_eq!(store.claim(&planned()).unwrap().attempt(), 2);
        assert_eq!(store.status(key, stage.kind()).unwrap(), Status::Partial { attempts: 2 });
    }
}
