//! Whatever happens to a file of a finished stage is found, and the stage runs again.

use std::fs;
use std::path::{Path, PathBuf};

use store::{Record, Status, Store, StoreError, verify};

use crate::stages::{KIND, planned, run};

/// A store with one finished stage.
fn with_one_stage() -> (tempfile::TempDir, Store, Record) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let record = run(&store, 1).unwrap();
    (folder, store, record)
}

fn assert_found(store: &Store, path: &Path, reason: &str) {
    let found = verify(store.tree()).unwrap();
    let path = path.strip_prefix(store.tree().root()).unwrap();
    let problem = found.problems.iter().find(|problem| problem.path == path);
    assert!(problem.is_some_and(|problem| problem.what.contains(reason)), "{reason}: {found:?}");
}

#[test]
fn every_flipped_byte_is_found() {
    let (_folder, store, record) = with_one_stage();
    let dir = store.tree().dir(record.key, KIND);
    let names = record.artifacts.keys().map(String::as_str).chain(["record.json", "params.yaml"]);
    for path in names.map(|name| dir.join(name)) {
        let sound = fs::read(&path).unwrap();
        let stride = sound.len() / 300 + 1;
        for i in (0..sound.len()).step_by(stride) {
            let mut damaged = sound.clone();
            damaged[i] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(!verify(store.tree()).unwrap().is_sound(), "{}, byte {i}", path.display());
        }
        fs::write(&path, sound).unwrap();
        assert!(verify(store.tree()).unwrap().is_sound());
    }
}

#[test]
fn missing_and_truncated_files_are_found() {
    let (_folder, store, record) = with_one_stage();
    let dir = store.tree().dir(record.key, KIND);
    let samples = dir.join("samples.safetensors");
    fs::write(&samples, "sampl").unwrap();
    assert_found(&store, &samples, "has 5 bytes instead of 7");
    fs::remove_file(&samples).unwrap();
    assert_found(&store, &samples, "missing");
    fs::create_dir(&samples).unwrap();
    assert_found(&store, &samples, "not a file");
    fs::remove_file(dir.join("params.yaml")).unwrap();
    assert_found(&store, &dir.join("params.yaml"), "missing");
    let json = fs::read(dir.join("record.json")).unwrap();
    fs::write(dir.join("record.json"), &json[..json.len() / 2]).unwrap();
    assert_found(&store, &dir.join("record.json"), "not a record");
    fs::write(dir.join("record.json"), String::from_utf8(json).unwrap().replacen("\"format\": 1", "\"format\": 9", 1))
        .unwrap();
    assert_found(&store, &dir.join("record.json"), "format 9");
    fs::remove_file(dir.join("record.json")).unwrap();
    assert_found(&store, &dir, "half a stage");
}

#[test]
fn a_record_in_the_wrong_place_is_found() {
    let (_folder, store, record) = with_one_stage();
    let other = store.tree().dir(planned(2).key, KIND);
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::rename(store.tree().dir(record.key, KIND), &other).unwrap();
    assert_found(&store, &other.join("record.json"), "not of this folder");
}

#[test]
fn a_record_sealed_over_other_parameters_is_found() {
    // Somebody who edits a parameter and seals the record again still cannot keep the key.
    let (_folder, store, record) = with_one_stage();
    let path = store.tree().dir(record.key, KIND).join("record.json");
    let mut forged = record;
    forged.params["subsets"] = 5.into();
    let seal = manifest::digest::Digest::of(&serde_json::to_vec(&forged).unwrap());
    #[derive(serde::Serialize)]
    struct Sealed<'a> {
        format: u32,
        seal: manifest::digest::Digest,
        record: &'a Record,
    }
    let json = serde_json::to_string_pretty(&Sealed { format: 1, seal, record: &forged }).unwrap();
    fs::write(&path, json + "\n").unwrap();
    assert_found(&store, &path, "its parameters and inputs have the key");
}

/// Changes an artifact without changing its size.
fn overwrite_samples(store: &Store, record: &Record) -> PathBuf {
    let samples = store.tree().dir(record.key, KIND).join("samples.safetensors");
    std::thread::sleep(std::time::Duration::from_millis(30)); // its modification time changes for sure
    fs::write(&samples, "SAMPLES").unwrap();
    samples
}

#[test]
fn a_damaged_artifact_is_not_opened_and_its_stage_runs_again() {
    let (folder, store, record) = with_one_stage();
    assert!(matches!(store.status(record.key, KIND).unwrap(), Status::Done(_)));
    overwrite_samples(&store, &record);
    for store in [&store, &Store::open(folder.path()).unwrap()] {
        let opened = store.open_artifact(record.key, KIND, "samples.safetensors");
        let message = opened.unwrap_err().to_string();
        assert!(message.contains("samples.safetensors: damaged: its SHA-256 is"), "{message}");
        let status = store.status(record.key, KIND).unwrap();
        assert!(
            matches!(&status, Status::Corrupt(reason) if reason.starts_with("samples.safetensors: its SHA")),
            "{status:?}"
        );
    }
    assert!(matches!(store.open_artifact(record.key, KIND, "none"), Err(StoreError::Corrupt { .. })));

    run(&store, 1).unwrap();
    assert!(matches!(store.status(record.key, KIND).unwrap(), Status::Done(_)));
    assert!(verify(store.tree()).unwrap().is_sound());
}

#[test]
fn a_stage_without_its_record_runs_again() {
    let (_folder, store, record) = with_one_stage();
    fs::remove_file(store.tree().dir(record.key, KIND).join("record.json")).unwrap();
    assert_eq!(store.status(record.key, KIND).unwrap(), Status::Corrupt("record.json: missing".to_owned()));
    run(&store, 1).unwrap();
    assert!(verify(store.tree()).unwrap().is_sound());
}

#[test]
fn strangers_and_leftovers_are_notes_not_problems() {
    let (folder, store, record) = with_one_stage();
    let dir = store.tree().dir(record.key, KIND);
    fs::write(dir.join("notes.txt"), "").unwrap();
    fs::write(folder.path().join(".unfinished-x"), "").unwrap();
    fs::write(folder.path().join(KIND).join("stray"), "").unwrap();
    fs::create_dir(dir.with_file_name("not-a-key")).unwrap();
    drop(store.claim(&planned(2)).unwrap());
    let shard = store.tree().dir(planned(3).key, KIND);
    fs::create_dir_all(shard.parent().unwrap()).unwrap();
    fs::write(shard.with_file_name(format!(".{}.lock", planned(3).key)), "").unwrap();

    let found = verify(store.tree()).unwrap();
    assert!(found.is_sound(), "{found:?}");
    let mut notes: Vec<_> = found.notes.iter().map(|note| note.what.split(';').next().unwrap()).collect();
    notes.sort_unstable();
    let expected = [
        "interrupted",
        "left by a killed process",
        "left by a killed process",
        "not part of a results tree",
        "not part of a results tree",
        "not part of the stage",
    ];
    assert_eq!(notes, expected);
}
