//! Where things lie in a results tree, and reading them.

use std::fs;
use std::path::{Path, PathBuf};

use manifest::digest::{Digest, Key};
use walkdir::WalkDir;

use crate::atomic::UNFINISHED;
use crate::error::StoreError;
use crate::record::Record;

/// A read-only view of a results directory, or of the records published beside a report.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    published: bool,
}

/// Something in a shard (`<kind>/<key[..2]>/`) or left at the root.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Kind of the stage; empty at the root.
    pub(crate) kind: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) what: What,
}

/// What an [`Entry`] is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// `<key>`: a finished stage.
    Finished(Key),
    /// `.<key>.partial`: being worked on, or interrupted.
    Partial(Key),
    /// `.<key>.lock`.
    Lock(Key),
    /// `.<key>.removed`: being removed, or left by a killed removal.
    Removed(Key),
    /// A file being written, or left by a killed writer.
    Unfinished,
    /// Nothing of ours.
    Unknown,
}

impl What {
    fn of(name: &str) -> Self {
        let hidden = |suffix: &str| name.strip_prefix('.')?.strip_suffix(suffix)?.parse().ok();
        if let Ok(key) = name.parse() {
            Self::Finished(key)
        } else if let Some(key) = hidden(".partial") {
            Self::Partial(key)
        } else if let Some(key) = hidden(".lock") {
            Self::Lock(key)
        } else if let Some(key) = hidden(".removed") {
            Self::Removed(key)
        } else if name.starts_with(UNFINISHED) {
            Self::Unfinished
        } else {
            Self::Unknown
        }
    }
}

impl Tree {
    /// A results directory.
    pub fn results(root: &Path) -> Self {
        Self { root: root.to_owned(), published: false }
    }

    /// Records published by [`crate::publish::publish`]: small tables are there, other artifacts may be missing.
    pub fn published(root: &Path) -> Self {
        Self { root: root.to_owned(), published: true }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether artifacts may be missing.
    pub(crate) fn is_published(&self) -> bool {
        self.published
    }

    /// Folder of a finished stage.
    pub fn dir(&self, key: Key, kind: &str) -> PathBuf {
        self.shard(key, kind).join(key.to_string())
    }

    /// Folder of a stage that is being worked on.
    pub(crate) fn partial_dir(&self, key: Key, kind: &str) -> PathBuf {
        self.shard(key, kind).join(format!(".{key}.partial"))
    }

    /// Where a folder goes to be removed.
    pub(crate) fn removed_dir(&self, key: Key, kind: &str) -> PathBuf {
        self.shard(key, kind).join(format!(".{key}.removed"))
    }

    /// The file that the owner of a stage locks.
    pub(crate) fn lock_path(&self, key: Key, kind: &str) -> PathBuf {
        self.shard(key, kind).join(format!(".{key}.lock"))
    }

    pub(crate) fn shard(&self, key: Key, kind: &str) -> PathBuf {
        self.root.join(kind).join(&key.to_string()[..2])
    }

    /// The record of a finished stage.
    ///
    /// # Errors
    /// [`StoreError::NotDone`] if there is none; [`StoreError::Corrupt`] or [`StoreError::Format`] if it cannot be used.
    pub fn record(&self, key: Key, kind: &str) -> Result<Record, StoreError> {
        let dir = self.dir(key, kind);
        let record = Record::read(&dir)?.ok_or_else(|| StoreError::NotDone { stage: name(key, kind) })?;
        if record.key != key || record.kind != kind {
            let reason = format!("is the record of {}, not of this folder", name(record.key, &record.kind));
            return Err(StoreError::corrupt(dir.join(Record::FILE), reason));
        }
        Ok(record)
    }

    /// All sound records, by kind and key; `verify` names the damaged ones.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the tree cannot be read.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let finished = self.entries()?.into_iter().filter_map(|entry| match entry.what {
            What::Finished(key) => Some((key, entry.kind)),
            _ => None,
        });
        Ok(finished.filter_map(|(key, kind)| self.record(key, &kind).ok()).collect())
    }

    /// A file of a finished stage, read now and found to be as recorded.
    ///
    /// # Errors
    /// Those of [`Tree::record`]; [`StoreError::Corrupt`] if the file is missing, damaged or not an artifact of the stage.
    pub fn artifact(&self, key: Key, kind: &str, file: &str) -> Result<PathBuf, StoreError> {
        self.checked_artifact(key, kind, file, |path| Digest::of_file(path).map_err(StoreError::io("read", path)))
    }

    /// As [`Tree::artifact`], with hashes from `hash`.
    pub(crate) fn checked_artifact(
        &self,
        key: Key,
        kind: &str,
        file: &str,
        hash: impl Fn(&Path) -> Result<Digest, StoreError>,
    ) -> Result<PathBuf, StoreError> {
        let record = self.record(key, kind)?;
        let path = self.dir(key, kind).join(file);
        let Some(artifact) = record.artifacts.get(file) else {
            return Err(StoreError::corrupt(path, format!("{} has no such artifact", name(key, kind))));
        };
        match artifact.damage(&path, hash)? {
            Some(reason) => Err(StoreError::corrupt(path, reason)),
            None => Ok(path),
        }
    }

    /// Log files of a stage, finished or not, in the order of its attempts.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be read.
    pub fn logs(&self, key: Key, kind: &str) -> Result<Vec<PathBuf>, StoreError> {
        let finished = self.dir(key, kind);
        let dir = if finished.exists() { finished } else { self.partial_dir(key, kind) };
        Ok(attempts(&dir)?.into_iter().map(|attempt| log_path(&dir, attempt)).collect())
    }

    /// Everything in the shards, and unfinished files at the root, by path.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        if !self.root.exists() {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        for item in WalkDir::new(&self.root).min_depth(1).max_depth(3).sort_by_file_name() {
            let item = match item {
                Ok(item) => item,
                // Removed or renamed between listing and looking: no longer there.
                Err(error) if error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => continue,
                Err(error) => return Err(StoreError::io("list", &self.root)(error.into())),
            };
            let file_name = item.file_name().to_string_lossy();
            let what = What::of(&file_name);
            let inside = item.path().strip_prefix(&self.root).unwrap_or(item.path());
            let kind = inside.iter().next().map(|kind| kind.to_string_lossy().into_owned()).unwrap_or_default();
            let path = item.path().to_owned();
            match item.depth() {
                1 if what == What::Unfinished => entries.push(Entry { kind: String::new(), path, what }),
                2 if !item.file_type().is_dir() => entries.push(Entry { kind, path, what: What::Unknown }),
                3 => entries.push(Entry { kind, path, what }),
                _ => {}
            }
        }
        Ok(entries)
    }
}

/// How messages call a stage.
pub(crate) fn name(key: Key, kind: &str) -> String {
    format!("{kind} {}", key.short())
}

/// Numbers of the attempts that have left a log in a stage's folder, ascending.
pub(crate) fn attempts(dir: &Path) -> Result<Vec<u32>, StoreError> {
    let logs = dir.join(LOGS);
    let entries = match fs::read_dir(&logs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", logs)(error)),
    };
    let mut attempts = Vec::new();
    for entry in entries {
        let file = entry.map_err(StoreError::io("list", &logs))?.file_name();
        let file = file.to_string_lossy();
        let number = file.strip_prefix("attempt-").and_then(|rest| rest.strip_suffix(".log"));
        attempts.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    attempts.sort_unstable();
    Ok(attempts)
}

/// Name of the folder of logs.
pub(crate) const LOGS: &str = "logs";

/// The log of an attempt in a stage's folder.
pub(crate) fn log_path(dir: &Path, attempt: u32) -> PathBuf {
    dir.join(LOGS).join(format!("attempt-{attempt}.log"))
}
