//! Small stages to run.

use std::collections::BTreeMap;
use std::fs;

use manifest::digest::{Digest, Key};
use manifest::plan::{Input, PlannedStage};
use manifest::stage::{FeatureKind, Metrics, Stage};
use store::{Claim, Code, CurvePoint, Finished, Machine, Outcome, Record, Store, StoreError};

/// Kind of all stages here.
pub(crate) const KIND: &str = "metrics";

/// A stage of its own for every seed.
pub(crate) fn planned(seed: u64) -> PlannedStage {
    let stage = Stage::Metrics(Metrics { name: "fd_small".into(), subsets: 4, seed, of: FeatureKind::Pooled });
    let file = Input::File { sha256: Digest::of(b"data"), path: "/data/of/this/machine".into() };
    let inputs = BTreeMap::from([("data".to_owned(), file), ("features".to_owned(), Input::Stage(key_of_nothing()))]);
    PlannedStage::new(stage, inputs).unwrap()
}

fn key_of_nothing() -> Key {
    Digest::of(b"").to_string().parse().unwrap()
}

pub(crate) fn code() -> Code {
    let cargo_lock_sha256 = Digest::of(b"Cargo.lock");
    Code { git_commit: None, dirty_diff_sha256: None, cargo_lock_sha256, binary_sha256: None, rustc: "rustc".into() }
}

pub(crate) fn machine() -> Machine {
    Machine::collect("cpu", 1)
}

/// What the stages here hand in.
pub(crate) fn finished(seed: u64) -> Finished {
    Finished {
        outcome: Outcome::Completed,
        metrics: BTreeMap::from([("fd_small".to_owned(), 1.0 / 3.0 + seed as f64), ("sd".to_owned(), 0.1 + 0.2)]),
        curve: (0..3).map(point).collect(),
        artifacts: vec!["samples.safetensors".to_owned()],
    }
}

fn point(iteration: u64) -> CurvePoint {
    CurvePoint { iteration, learning_rate: 1e-4, losses: BTreeMap::from([("mse".to_owned(), f64::NAN)]) }
}

/// Leaves the artifact and a checkpoint, as a stage does.
pub(crate) fn work(claim: &Claim) {
    fs::write(claim.dir().join("checkpoint"), "state").unwrap();
    fs::write(claim.dir().join("samples.safetensors"), "samples").unwrap();
}

/// Runs a stage from claim to commit.
pub(crate) fn run(store: &Store, seed: u64) -> Result<Record, StoreError> {
    let claim = store.claim(&planned(seed))?;
    work(&claim);
    claim.commit(&finished(seed), code(), machine())
}
