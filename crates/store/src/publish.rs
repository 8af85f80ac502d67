//! Publishing records beside a report: small files only, in the layout of a results tree, so that [`Tree`] reads them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use manifest::digest::Key;

use crate::atomic;
use crate::commit::TABLES;
use crate::error::StoreError;
use crate::params;
use crate::record::Record;
use crate::tree::{Tree, What};

/// Copies records, parameters and tables (no weights, no samples, no logs) of finished stages into `destination`, and
/// removes records of other stages from it. Files that are as they should be are not touched; the same records always
/// give the same bytes.
///
/// # Errors
/// [`StoreError::NotDone`] or [`StoreError::Corrupt`] for a stage without a sound record, before anything is written.
pub fn publish<'a>(
    tree: &Tree,
    stages: impl IntoIterator<Item = (Key, &'a str)>,
    destination: &Path,
) -> Result<Tree, StoreError> {
    let mut files = Vec::new();
    let mut stay = BTreeSet::new();
    for (key, kind) in stages {
        let record = tree.record(key, kind)?;
        files.push((key, kind, Record::FILE, record.to_json()));
        files.push((key, kind, params::FILE, record.params_yaml().into_bytes()));
        for table in TABLES.into_iter().filter(|table| record.artifacts.contains_key(*table)) {
            let path = tree.artifact(key, kind, table)?;
            files.push((key, kind, table, fs::read(&path).map_err(StoreError::io("read", &path))?));
        }
        stay.insert((kind.to_owned(), key));
    }
    let published = Tree::published(destination);
    for (key, kind, name, contents) in files {
        let dir = published.dir(key, kind);
        fs::create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
        let path = dir.join(name);
        if fs::read(&path).ok().as_ref() != Some(&contents) {
            atomic::write(&path, &contents)?;
        }
    }
    remove_others(&published, &stay)?;
    Ok(published)
}

/// Removes published stages that are not among those that stay, and folders that are then empty.
fn remove_others(published: &Tree, stay: &BTreeSet<(String, Key)>) -> Result<(), StoreError> {
    for entry in published.entries()? {
        match entry.what {
            What::Finished(key) if !stay.contains(&(entry.kind.clone(), key)) => {
                atomic::remove_dir(&entry.path, &published.removed_dir(key, &entry.kind))?;
                let shard = atomic::parent(&entry.path);
                // Only an empty folder can be removed; any other stays.
                let _ = fs::remove_dir(shard).and_then(|()| fs::remove_dir(atomic::parent(shard)));
            }
            _ => {}
        }
    }
    Ok(())
}
