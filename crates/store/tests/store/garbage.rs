//! Removing what nothing asks for.

use std::collections::BTreeSet;
use std::fs;

use store::gc::{self, Reason};
use store::{Status, Store, verify};

use crate::stages::{KIND, planned, run};

#[test]
fn only_what_nothing_asks_for_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let key = |seed| planned(seed).key;
    for seed in [1, 2] {
        run(&store, seed).unwrap();
    }
    for seed in [3, 4] {
        drop(store.claim(&planned(seed)).unwrap());
    }
    let working = store.claim(&planned(5)).unwrap();
    let leftover = store.tree().dir(key(6), KIND).with_file_name(format!(".{}.removed", key(6)));
    fs::create_dir_all(&leftover).unwrap();
    fs::write(leftover.join("half"), "half").unwrap();
    fs::write(folder.path().join(".unfinished-now"), "").unwrap();
    let old = fs::File::create(folder.path().join(".unfinished-old")).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();

    let keep = BTreeSet::from([key(1), key(3)]);
    let garbage = gc::list(store.tree(), &keep).unwrap();
    let mut reasons: Vec<_> = garbage.iter().map(|item| format!("{:?}", item.reason)).collect();
    reasons.sort();
    assert_eq!(reasons, ["Leftover", "Leftover", "Unused", "UnusedPartial"]);
    assert!(garbage.iter().any(|item| item.reason == Reason::Unused && item.bytes > 1000));
    // Listing is a dry run.
    assert!(matches!(store.status(key(2), KIND).unwrap(), Status::Done(_)));

    assert_eq!(gc::remove(store.tree(), garbage).unwrap().len(), 4);
    assert!(gc::list(store.tree(), &keep).unwrap().is_empty());
    assert!(matches!(store.status(key(1), KIND).unwrap(), Status::Done(_)));
    assert_eq!(store.status(key(2), KIND).unwrap(), Status::Missing);
    assert_eq!(store.status(key(3), KIND).unwrap(), Status::Partial { attempts: 1 });
    assert_eq!(store.status(key(4), KIND).unwrap(), Status::Missing);
    assert!(working.dir().exists());
    assert!(verify(store.tree()).unwrap().is_sound());
}

#[test]
fn a_stage_taken_up_after_the_listing_is_spared() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    drop(store.claim(&planned(1)).unwrap());
    let garbage = gc::list(store.tree(), &BTreeSet::new()).unwrap();
    assert_eq!(garbage.len(), 1);
    let claim = store.claim(&planned(1)).unwrap();
    assert!(gc::remove(store.tree(), garbage).unwrap().is_empty());
    assert!(claim.dir().exists());
}
