//! A results directory that stages are run in.

use std::fs;
use std::path::{Path, PathBuf};

use manifest::digest::Key;
use manifest::plan::PlannedStage;

use crate::atomic;
use crate::claim::Claim;
use crate::commit;
use crate::error::StoreError;
use crate::hashes::HashCache;
use crate::lock::Lock;
use crate::record::{FORMAT, Record};
use crate::status::{Failure, Status};
use crate::tree::{self, Tree};

const FORMAT_FILE: &str = "format";
const HASHES_FILE: &str = ".hashes.json";

/// A results directory.
#[derive(Debug)]
pub struct Store {
    tree: Tree,
    hashes: HashCache,
}

impl Store {
    /// Opens a results directory for running stages, and creates it where it is missing.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`] if nothing can be written there, [`StoreError::Format`] if another program's results
    /// are there.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let not_writable = |source| StoreError::NotWritable { path: root.to_owned(), source };
        fs::create_dir_all(root).map_err(not_writable)?;
        tempfile::Builder::new().prefix(atomic::UNFINISHED).tempfile_in(root).map_err(not_writable)?;
        check_format(root)?;
        let format = root.join(FORMAT_FILE);
        if !format.exists() {
            atomic::write(&format, format!("{FORMAT}\n").as_bytes())?;
        }
        Ok(Self { tree: Tree::results(root), hashes: HashCache::open(&root.join(HASHES_FILE)) })
    }

    /// Opens a results directory without writing to it, for `plan`, `status` and `report`. A missing one is empty.
    ///
    /// # Errors
    /// [`StoreError::Format`] if another program's results are there.
    pub fn open_read_only(root: &Path) -> Result<Self, StoreError> {
        check_format(root)?;
        Ok(Self { tree: Tree::results(root), hashes: HashCache::read_only(&root.join(HASHES_FILE)) })
    }

    /// The read-only view that reports use.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The hashes of files, data files included.
    pub fn hashes(&self) -> &HashCache {
        &self.hashes
    }

    /// How far a stage is. Files whose hash is remembered are not read again.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the tree cannot be read, [`StoreError::Format`] if a record is of another program.
    pub fn status(&self, key: Key, kind: &str) -> Result<Status, StoreError> {
        let (dir, partial) = (self.tree.dir(key, kind), self.tree.partial_dir(key, kind));
        loop {
            if dir.exists() {
                return Ok(match self.inspect(key, kind)? {
                    Ok(record) => Status::Done(Box::new(record)),
                    Err(reason) => Status::Corrupt(reason),
                });
            }
            if let Some(owner) = Lock::holder(&self.tree.lock_path(key, kind))? {
                return Ok(Status::Running(owner));
            }
            let attempts = tree::attempts(&partial)?.last().copied();
            let status = match (Failure::read(&partial), attempts) {
                (Some(failure), _) => Status::Failed(failure),
                (None, Some(attempts)) => Status::Partial { attempts },
                (None, None) => Status::Missing,
            };
            // Unless it has been finished while we looked.
            if !dir.exists() {
                return Ok(status);
            }
        }
    }

    /// Takes a stage over, to run it. What an interrupted attempt has left is in [`Claim::dir`]; a damaged result is removed.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if somebody works on it, [`StoreError::AlreadyDone`] if it is finished, [`StoreError::Io`] if
    /// the results directory cannot be written.
    pub fn claim(&self, planned: &PlannedStage) -> Result<Claim<'_>, StoreError> {
        let (key, kind) = (planned.key, planned.stage.kind());
        let lock = self.lock(key, kind)?;
        let already_done = || StoreError::AlreadyDone { stage: tree::name(key, kind) };
        // It may have been finished between the plan and the lock, or up to the last rename before a kill.
        let dir = self.tree.dir(key, kind);
        if dir.exists() {
            match self.inspect(key, kind)? {
                Ok(_) => return Err(already_done()),
                Err(_) => atomic::remove_dir(&dir, &self.tree.removed_dir(key, kind))?,
            }
        }
        if commit::finish_interrupted(&self.tree, key, kind)? {
            return Err(already_done());
        }
        Claim::begin(self, planned, lock)
    }

    /// An artifact of a finished stage, found to be as recorded.
    ///
    /// # Errors
    /// [`StoreError::NotDone`] if there is no record; [`StoreError::Corrupt`] if the file is missing or damaged: from then
    /// on [`Store::status`] says so, too.
    pub fn open_artifact(&self, key: Key, kind: &str, file: &str) -> Result<PathBuf, StoreError> {
        self.tree.checked_artifact(key, kind, file, |path| self.hashes.sha256(path))
    }

    /// Forgets a stage, finished or not, so that it will be run from its beginning.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if somebody works on it.
    pub fn discard(&self, key: Key, kind: &str) -> Result<(), StoreError> {
        let _lock = self.lock(key, kind)?;
        for dir in [self.tree.dir(key, kind), self.tree.partial_dir(key, kind)] {
            if dir.exists() {
                atomic::remove_dir(&dir, &self.tree.removed_dir(key, kind))?;
            }
        }
        Ok(())
    }

    fn lock(&self, key: Key, kind: &str) -> Result<Lock, StoreError> {
        let shard = self.tree.shard(key, kind);
        if !shard.exists() {
            fs::create_dir_all(&shard).map_err(StoreError::io("create", &shard))?;
            atomic::sync_dir(self.tree.root())?;
            atomic::sync_dir(atomic::parent(&shard))?;
        }
        let lock = Lock::acquire(&self.tree.lock_path(key, kind))?;
        lock.map_err(|owner| StoreError::Busy { stage: tree::name(key, kind), owner })
    }

    /// The record of a finished stage whose files are as recorded, or what is wrong with them.
    fn inspect(&self, key: Key, kind: &str) -> Result<Result<Record, String>, StoreError> {
        let record = match self.tree.record(key, kind) {
            Ok(record) => record,
            Err(StoreError::Corrupt { path, reason }) => return Ok(Err(format!("{}: {reason}", file_name(&path)))),
            Err(StoreError::NotDone { .. }) => return Ok(Err(format!("{}: missing", Record::FILE))),
            Err(error) => return Err(error),
        };
        for (name, artifact) in &record.artifacts {
            let path = self.tree.dir(key, kind).join(name);
            if let Some(reason) = artifact.damage(&path, |path| self.hashes.sha256(path))? {
                return Ok(Err(format!("{name}: {reason}")));
            }
        }
        Ok(Ok(record))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn check_format(root: &Path) -> Result<(), StoreError> {
    let path = root.join(FORMAT_FILE);
    let found = match fs::read(&path) {
        Ok(found) => String::from_utf8_lossy(&found).trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    if found != FORMAT.to_string() {
        return Err(StoreError::Format { path, found: format!("`{found}`"), supported: FORMAT });
    }
    Ok(())
}
