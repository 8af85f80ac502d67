//! One owner per stage: a file locked by the operating system, which releases it when the owner dies, however it dies.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::StoreError;

/// A lock may be held for an instant by somebody who only looks whether it is held: so many tries, so far apart.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// The process that holds a lock, as it describes itself in the locked file. For messages only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process number.
    pub pid: u32,
    /// Name of its machine.
    pub host: String,
    /// When it took the lock, in UTC.
    pub since: String,
}

impl Owner {
    /// This process, now.
    pub(crate) fn this_process() -> Self {
        Self { pid: std::process::id(), host: host(), since: clock::now() }
    }

    /// Reads what the holder wrote. It writes right after locking, so the text may be some moments late.
    fn read(path: &Path) -> Self {
        for _ in 0..TRIES {
            if let Some(owner) = fs::read(path).ok().and_then(|json| serde_json::from_slice(&json).ok()) {
                return owner;
            }
            thread::sleep(PAUSE);
        }
        Self { pid: 0, host: "an unknown machine".to_owned(), since: "a moment ago".to_owned() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}, since {}", self.pid, self.host, self.since)
    }
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    name.map_or_else(|_| "an unknown machine".to_owned(), |name| name.trim().to_owned())
}

/// A held lock; dropping it removes the file and releases it.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes the lock, or says who has it. A file left by a dead process is no obstacle.
    pub(crate) fn acquire(path: &Path) -> Result<Result<Self, Owner>, StoreError> {
        let failed = |error| StoreError::io("lock", path)(error);
        for attempt in 1.. {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
            let mut file = file.map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {
                    // The holder before us may have removed the file between our opening and our locking it: then
                    // what we hold is nobody's lock any more.
                    if !is_at(&file, path).map_err(failed)? {
                        continue;
                    }
                    describe(&mut file).map_err(failed)?;
                    return Ok(Ok(Self { path: path.to_owned(), file }));
                }
                Err(TryLockError::WouldBlock) if attempt < TRIES => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Ok(Err(Owner::read(path))),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Who holds the lock now; `None` if nobody does, whether or not the file is there.
    pub(crate) fn holder(path: &Path) -> Result<Option<Owner>, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(Owner::read(path))),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path)(error)),
        }
    }
}

impl Drop for Lock {
    /// The file goes while it is still locked: whoever opened it meanwhile sees that it is gone and starts over.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Whether `path` still names the open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn describe(file: &mut File) -> io::Result<()> {
    let json = serde_json::to_vec(&Owner::this_process())?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&json)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_second_claimant_learns_who_holds_it_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Lock::acquire(&path).unwrap().unwrap();
        let owner = Lock::acquire(&path).unwrap().unwrap_err();
        assert_eq!(owner.pid, std::process::id());
        assert_eq!(Lock::holder(&path).unwrap(), Some(owner));
        drop(lock);
        assert_eq!(Lock::holder(&path).unwrap(), None);
        assert!(!path.exists());
        Lock::acquire(&path).unwrap().unwrap();
    }

    #[test]
    fn a_file_left_by_a_dead_process_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let dead = Owner {
            pid: 1,
            host: "elsewhere, with a longer name than ours could ever be".repeat(9),
            since: "long ago".into(),
        };
        fs::write(&path, serde_json::to_vec(&dead).unwrap()).unwrap();
        assert_eq!(Lock::holder(&path).unwrap(), None);
        let _lock = Lock::acquire(&path).unwrap().unwrap();
        assert_eq!(Lock::holder(&path).unwrap().unwrap().pid, std::process::id());
    }

    #[test]
    fn only_one_of_many_holds_it_at_any_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (inside, entered) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _ = Lock::holder(&path).unwrap();
                        if let Ok(_lock) = Lock::acquire(&path).unwrap() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            entered.fetch_add(1, Ordering::SeqCst);
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(entered.into_inner() > 100);
    }
}
