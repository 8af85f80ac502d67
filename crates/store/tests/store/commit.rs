//! From claim to record.

use std::fs;
use std::path::Path;

use store::{FailureClass, Outcome, Status, Store, StoreError, frames, index, verify};

use crate::stages::{KIND, code, finished, machine, planned, run, work};

#[test]
fn a_stage_goes_from_missing_to_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let key = planned(1).key;
    assert_eq!(store.status(key, KIND).unwrap(), Status::Missing);
    assert!(matches!(store.tree().record(key, KIND), Err(StoreError::NotDone { .. })));

    let claim = store.claim(&planned(1)).unwrap();
    assert!(matches!(store.status(key, KIND).unwrap(), Status::Running(owner) if owner.pid == std::process::id()));
    work(&claim);
    assert!(!store.tree().dir(key, KIND).exists());
    let record = claim.commit(&finished(1), code(), machine()).unwrap();

    assert_eq!(store.status(key, KIND).unwrap(), Status::Done(Box::new(record.clone())));
    assert_eq!(record.metrics["fd_small"].to_bits(), (1.0f64 / 3.0 + 1.0).to_bits());
    assert_eq!(record.provenance.cost.resumed_attempts, 0);
    let dir = store.tree().dir(key, KIND);
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["curve.parquet", "logs", "metrics.parquet", "params.yaml", "record.json", "samples.safetensors"]
    );
    // Nothing else is left beside it: no lock, no partial folder.
    assert_eq!(fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1);
    assert!(matches!(store.claim(&planned(1)), Err(StoreError::AlreadyDone { .. })));

    // Another process finds the same.
    let again = Store::open_read_only(folder.path()).unwrap();
    assert_eq!(again.status(key, KIND).unwrap(), Status::Done(Box::new(record)));
    let samples = again.open_artifact(key, KIND, "samples.safetensors").unwrap();
    assert_eq!(fs::read(samples).unwrap(), b"samples");
    let found = verify(again.tree()).unwrap();
    assert!(found.is_sound() && found.notes.is_empty(), "{found:?}");
    assert_eq!((found.stages, found.artifacts), (1, 3));
}

#[test]
fn a_failure_is_remembered_until_the_next_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let key = planned(1).key;
    let claim = store.claim(&planned(1)).unwrap();
    fs::write(claim.dir().join("checkpoint"), "state").unwrap();
    claim.fail(FailureClass::OutOfMemory, "out of memory: 8 GiB asked, 4 GiB free").unwrap();
    let Status::Failed(failure) = store.status(key, KIND).unwrap() else { panic!("not failed") };
    assert_eq!((failure.class, failure.attempts), (FailureClass::OutOfMemory, 1));
    assert!(failure.reason.contains("8 GiB"));
    assert!(fs::read_to_string(&failure.log).unwrap().starts_with("attempt 1 of metrics "));

    let claim = store.claim(&planned(1)).unwrap();
    assert_eq!(claim.attempt(), 2);
    assert_eq!(fs::read(claim.dir().join("checkpoint")).unwrap(), b"state");
    drop(claim);
    assert_eq!(store.status(key, KIND).unwrap(), Status::Partial { attempts: 2 });
    assert_eq!(run(&store, 1).unwrap().provenance.cost.resumed_attempts, 2);
    assert_eq!(store.tree().logs(key, KIND).unwrap().len(), 3);
}

#[test]
fn divergence_is_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let claim = store.claim(&planned(1)).unwrap();
    let mut diverged = finished(1);
    diverged.outcome = Outcome::Diverged { iteration: 12 };
    diverged.metrics.clear();
    diverged.artifacts.clear();
    let record = claim.commit(&diverged, code(), machine()).unwrap();
    assert_eq!(store.tree().record(record.key, KIND).unwrap().outcome, Outcome::Diverged { iteration: 12 });
    assert!(!record.artifacts.contains_key("metrics.parquet"));
    assert!(verify(store.tree()).unwrap().is_sound());
}

#[test]
fn what_cannot_be_recorded_is_a_failure_and_leaves_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let not_finite = |value| {
        let mut handed_in = finished(1);
        handed_in.metrics.insert("fd_small".to_owned(), value);
        handed_in
    };
    let named = |name: &str| {
        let mut handed_in = finished(1);
        handed_in.artifacts.push(name.to_owned());
        handed_in
    };
    let mut cases = vec![
        (not_finite(f64::NAN), "the metric `fd_small` is NaN"),
        (not_finite(f64::NEG_INFINITY), "the metric `fd_small` is -inf"),
        (named("absent"), "`absent` was not written"),
        (named("logs"), "cannot be the name"),
    ];
    for name in ["", ".", "..", "a/b", "/etc/passwd", "../x", "record.json", "params.yaml", "curve.parquet", ".hidden"]
    {
        cases.push((named(name), "cannot be the name"));
    }
    for (handed_in, reason) in cases {
        let claim = store.claim(&planned(1)).unwrap();
        work(&claim);
        let message = claim.commit(&handed_in, code(), machine()).unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
        assert!(
            matches!(store.status(planned(1).key, KIND).unwrap(), Status::Failed(failure) if failure.reason == message)
        );
        assert!(verify(store.tree()).unwrap().is_sound());
    }
}

#[test]
fn a_discarded_stage_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let key = planned(1).key;
    run(&store, 1).unwrap();
    drop(store.claim(&planned(2)).unwrap());
    for seed in [1, 2] {
        store.discard(planned(seed).key, KIND).unwrap();
        assert_eq!(store.status(planned(seed).key, KIND).unwrap(), Status::Missing);
    }
    let claim = store.claim(&planned(1)).unwrap();
    assert!(matches!(store.discard(key, KIND), Err(StoreError::Busy { .. })));
    assert_eq!(claim.attempt(), 1);
}

#[test]
fn the_inputs_of_a_record_have_no_paths() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let record = run(&store, 1).unwrap();
    let dir = store.tree().dir(record.key, KIND);
    for file in ["record.json", "params.yaml"] {
        let text = fs::read_to_string(dir.join(file)).unwrap();
        assert!(text.contains("features") && text.contains("fd_small"), "{text}");
        assert!(!text.contains("/data/of") && !text.contains(folder.path().to_str().unwrap()), "{text}");
    }
}

#[test]
fn metrics_curves_and_index_come_from_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let keys = [1, 2].map(|seed| run(&store, seed).unwrap().key);
    let records = keys.map(|key| store.tree().record(key, KIND).unwrap());
    let values: Vec<_> = records.iter().flat_map(|record| record.metrics.values().copied()).collect();
    assert_eq!(values, [1.0 / 3.0 + 1.0, 0.1 + 0.2, 1.0 / 3.0 + 2.0, 0.1 + 0.2]);
    let metrics = store.open_artifact(keys[0], KIND, "metrics.parquet").unwrap();
    assert_eq!(frames::read_parquet(&metrics).unwrap().height(), 2);
    assert_eq!(frames::curve_frame(store.tree(), keys[0], KIND).unwrap().shape(), (6, 3));

    let missing = store.tree().record(planned(3).key, KIND).unwrap_err().to_string();
    assert!(missing.contains("metrics ") && missing.contains("not done yet"), "{missing}");

    let index = index::rebuild(store.tree()).unwrap();
    assert_eq!(index.height(), 2);
    assert_eq!(frames::read_parquet(&folder.path().join("index.parquet")).unwrap(), index);
    assert!(verify(store.tree()).unwrap().is_sound());
    fs::write(store.tree().dir(keys[0], KIND).join("record.json"), "{}").unwrap();
    assert_eq!(index::rebuild(store.tree()).unwrap().height(), 1, "a damaged record is no row");
}

#[test]
fn a_results_directory_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    // Under a regular file nothing can be created, and in /proc nothing either, not even by root.
    for root in [file.join("results"), Path::new("/proc").to_owned()] {
        let message = Store::open(&root).unwrap_err().to_string();
        assert!(message.starts_with(root.to_str().unwrap()), "{message}");
        assert!(message.contains("cannot be written") && message.contains("--results DIR"), "{message}");
    }
}

#[test]
fn results_of_another_format_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path()).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("format")).unwrap(), "1\n");
    fs::write(folder.path().join("format"), "2\n").unwrap();
    for opened in [Store::open(folder.path()), Store::open_read_only(folder.path())] {
        let message = opened.unwrap_err().to_string();
        assert!(message.contains("format `2`") && message.contains("format 1"), "{message}");
    }
}

#[test]
fn a_read_only_store_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("none");
    let store = Store::open_read_only(&root).unwrap();
    assert_eq!(store.status(planned(1).key, KIND).unwrap(), Status::Missing);
    assert!(verify(store.tree()).unwrap().is_sound() && !root.exists());
}
