//! Records beside a report.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use store::{Store, StoreError, frames, publish, verify};
use walkdir::WalkDir;

use crate::stages::{KIND, planned, run};

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = WalkDir::new(root).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    entries
        .map(|entry| (entry.path().strip_prefix(root).unwrap().to_owned(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn a_report_can_be_rebuilt_from_published_records() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("results")).unwrap();
    let keys = [1, 2, 3].map(|seed| run(&store, seed).unwrap().key);
    let destination = folder.path().join("reports/table4/records");
    let stages = |n| keys.into_iter().take(n).map(|key| (key, KIND));

    let published = publish::publish(store.tree(), stages(3), &destination).unwrap();
    let curve = frames::curve_frame(&published, keys[0], KIND).unwrap();
    assert!(curve.equals_missing(&frames::curve_frame(store.tree(), keys[0], KIND).unwrap()));
    assert_eq!(published.records().unwrap(), store.tree().records().unwrap());
    assert!(verify(&published).unwrap().is_sound());

    let first = files(&destination);
    assert_eq!(first.len(), 3 * 4);
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for (path, contents) in &first {
        let text = String::from_utf8_lossy(contents);
        assert!(
            !text.contains(hostname.trim()) && !text.contains(folder.path().to_str().unwrap()),
            "{}",
            path.display()
        );
    }

    // Publishing again changes nothing; publishing fewer removes the others.
    let modified = |path: &Path| fs::metadata(destination.join(path)).unwrap().modified().unwrap();
    let times: Vec<_> = first.keys().map(|path| modified(path)).collect();
    publish::publish(store.tree(), stages(3), &destination).unwrap();
    assert_eq!(files(&destination), first);
    assert_eq!(first.keys().map(|path| modified(path)).collect::<Vec<_>>(), times);
    publish::publish(store.tree(), stages(1), &destination).unwrap();
    assert_eq!(files(&destination).len(), 4);
    assert_eq!(WalkDir::new(&destination).min_depth(2).max_depth(2).into_iter().count(), 1);
}

#[test]
fn damage_of_published_tables_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("results")).unwrap();
    let key = run(&store, 1).unwrap().key;
    let published = publish::publish(store.tree(), [(key, KIND)], &folder.path().join("records")).unwrap();
    let curve = published.dir(key, KIND).join("curve.parquet");
    let mut bytes = fs::read(&curve).unwrap();
    bytes[9] ^= 1;
    fs::write(&curve, bytes).unwrap();
    assert!(!verify(&published).unwrap().is_sound());
    assert!(matches!(frames::curve_frame(&published, key, KIND), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_stage_that_is_not_done_cannot_be_published() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("results")).unwrap();
    let key = run(&store, 1).unwrap().key;
    let destination = folder.path().join("records");
    let stages = [(key, KIND), (planned(2).key, KIND)];
    assert!(matches!(publish::publish(store.tree(), stages, &destination), Err(StoreError::NotDone { .. })));
    assert!(!destination.exists());
}
