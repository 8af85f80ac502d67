//! What can be removed from a results directory, and removing it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifest::digest::Key;
use serde::Serialize;
use walkdir::WalkDir;

use crate::atomic;
use crate::error::StoreError;
use crate::lock::Lock;
use crate::tree::{Entry, Tree, What};

/// A file still being written is younger than this.
const WRITING: Duration = Duration::from_secs(3600);

/// Something that can be removed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Garbage {
    /// Where, relative to the results directory.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Why nobody needs it.
    pub reason: Reason,
    #[serde(skip)]
    entry: Entry,
}

/// Why something can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A finished stage that nothing asks for.
    Unused,
    /// An interrupted or failed stage that nothing asks for.
    UnusedPartial,
    /// Left by a killed process.
    Leftover,
}

/// Lists what can go: stages whose key is not in `keep`, finished or not, and what killed processes have left.
/// A stage that somebody works on is never listed.
///
/// # Errors
/// [`StoreError::Io`] if the tree cannot be read.
pub fn list(tree: &Tree, keep: &BTreeSet<Key>) -> Result<Vec<Garbage>, StoreError> {
    let mut garbage = Vec::new();
    for entry in tree.entries()? {
        let reason = match entry.what {
            What::Finished(key) if !keep.contains(&key) => Reason::Unused,
            What::Partial(key) if !keep.contains(&key) => Reason::UnusedPartial,
            What::Lock(_) | What::Removed(_) => Reason::Leftover,
            What::Unfinished if is_abandoned(&entry.path) => Reason::Leftover,
            What::Finished(_) | What::Partial(_) | What::Unfinished | What::Unknown => continue,
        };
        if let Some(lock) = lock_path(tree, &entry)
            && Lock::holder(&lock)?.is_some()
        {
            continue;
        }
        let path = entry.path.strip_prefix(tree.root()).unwrap_or(&entry.path).to_owned();
        garbage.push(Garbage { path, bytes: size(&entry.path), reason, entry });
    }
    Ok(garbage)
}

/// Removes what [`list`] has found, but for stages that somebody has begun to work on since; returns what was removed.
///
/// # Errors
/// [`StoreError::Io`] if something cannot be removed; what came before it is gone.
pub fn remove(tree: &Tree, garbage: Vec<Garbage>) -> Result<Vec<Garbage>, StoreError> {
    let mut removed = Vec::new();
    for item in garbage {
        let path = &item.entry.path;
        let _lock = match lock_path(tree, &item.entry) {
            Some(lock) => match Lock::acquire(&lock)? {
                Ok(lock) => Some(lock),
                Err(_) => continue,
            },
            None => None,
        };
        match item.entry.what {
            What::Finished(key) | What::Partial(key) if path.exists() => {
                atomic::remove_dir(path, &tree.removed_dir(key, &item.entry.kind))?;
            }
            What::Removed(_) if path.exists() => fs::remove_dir_all(path).map_err(StoreError::io("remove", path))?,
            What::Unfinished if path.exists() => fs::remove_file(path).map_err(StoreError::io("remove", path))?,
            _ => {} // a lock goes when it is let go of
        }
        removed.push(item);
    }
    Ok(removed)
}

/// The lock that guards an entry.
fn lock_path(tree: &Tree, entry: &Entry) -> Option<PathBuf> {
    match entry.what {
        What::Finished(key) | What::Partial(key) | What::Lock(key) | What::Removed(key) => {
            Some(tree.lock_path(key, &entry.kind))
        }
        What::Unfinished | What::Unknown => None,
    }
}

fn is_abandoned(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|stat| stat.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > WRITING))
}

fn size(path: &Path) -> u64 {
    let files = WalkDir::new(path).into_iter().filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).filter(|stat| stat.is_file()).map(|stat| stat.len()).sum()
}
