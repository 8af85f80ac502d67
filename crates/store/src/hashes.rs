//! Content hashes of files, remembered by (inode, size, modification time): a large file is read once.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use manifest::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::StoreError;
use crate::lock::Lock;

/// A file younger than this is not remembered: a later change might carry the same modification time.
const TICK: Duration = Duration::from_millis(20);

/// New hashes are written out at most so often; a folder of many files would be slow otherwise.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// A cache of content hashes. Threads may share it; processes share it through its file.
#[derive(Debug)]
pub struct HashCache {
    file: PathBuf,
    writable: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Known,
    /// The cache's file when it was last read or written.
    file: Option<Identity>,
    saved: Option<Instant>,
    unsaved: bool,
}

/// By device and inode.
type Known = BTreeMap<String, Entry>;

/// What a file was when it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    size: u64,
    /// Modification time in nanoseconds since 1970.
    modified: i64,
    sha256: Digest,
}

/// By what a file is known again.
#[derive(Debug, PartialEq)]
struct Identity {
    inode: String,
    size: u64,
    modified: i64,
}

impl HashCache {
    /// A cache kept in `file`. A damaged file counts as empty: it is rebuilt as hashes are needed.
    pub fn open(file: &Path) -> Self {
        Self { file: file.to_owned(), writable: true, state: Mutex::default() }
    }

    /// A cache that reads `file` and never writes it.
    pub fn read_only(file: &Path) -> Self {
        Self { file: file.to_owned(), writable: false, state: Mutex::default() }
    }

    /// The hash of a file's content; the file is read only if it is not known, or not as it was.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file is missing or cannot be read.
    pub fn sha256(&self, path: &Path) -> Result<Digest, StoreError> {
        let before = identity(path)?;
        if let Some(digest) = self.state().find(&before, &self.file) {
            return Ok(digest);
        }
        let digest = Digest::of_file(path).map_err(StoreError::io("read", path))?;
        if identity(path)? == before && is_settled(before.modified) {
            let Identity { inode, size, modified } = before;
            let mut state = self.state();
            state.known.insert(inode, Entry { size, modified, sha256: digest });
            state.unsaved = true;
            let due = state.saved.is_none_or(|saved| saved.elapsed() > SAVE_EVERY);
            drop(state);
            if due {
                self.save();
            }
        }
        Ok(digest)
    }

    /// Writes new hashes out, so that other processes know them. A failure is ignored: a hash that is not remembered is
    /// computed again.
    pub(crate) fn save(&self) {
        let mut state = self.state();
        if !self.writable || !state.unsaved {
            return;
        }
        let Ok(Ok(_lock)) = Lock::acquire(&self.file.with_extension("lock")) else { return };
        state.reload(&self.file);
        let json = serde_json::to_vec(&state.known).expect("hashes have a JSON form");
        if atomic::write(&self.file, &json).is_ok() {
            state.file = identity(&self.file).ok();
            state.saved = Some(Instant::now());
            state.unsaved = false;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HashCache {
    fn drop(&mut self) {
        self.save();
    }
}

impl State {
    fn find(&mut self, wanted: &Identity, file: &Path) -> Option<Digest> {
        let find = |known: &Known| {
            let entry = known.get(&wanted.inode)?;
            (entry.size == wanted.size && entry.modified == wanted.modified).then_some(entry.sha256)
        };
        find(&self.known).or_else(|| {
            self.reload(file);
            find(&self.known)
        })
    }

    /// Takes in what other processes have found since. What we have hashed ourselves and not yet saved is newer.
    fn reload(&mut self, file: &Path) {
        let now = identity(file).ok();
        if now == self.file {
            return;
        }
        let mut known: Known =
            fs::read(file).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        if self.unsaved {
            known.append(&mut self.known);
        }
        self.known = known;
        self.file = now;
    }
}

fn identity(path: &Path) -> Result<Identity, StoreError> {
    let of = |stat: Metadata| Identity {
        inode: format!("{}:{}", stat.dev(), stat.ino()),
        size: stat.size(),
        modified: stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec()),
    };
    fs::metadata(path).map(of).map_err(StoreError::io("read", path))
}

/// Whether a change made now would show in the modification time.
fn is_settled(modified: i64) -> bool {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(modified.max(0).cast_unsigned());
    SystemTime::now().duration_since(modified).is_ok_and(|age| age > TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file whose modification time lies `age` seconds back.
    fn write_aged(path: &Path, contents: &[u8], age: u64) {
        fs::write(path, contents).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }

    fn saved(cache: &Path) -> Known {
        serde_json::from_slice(&fs::read(cache).unwrap()).unwrap()
    }

    #[test]
    fn many_hashes_are_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("hashes.json");
        let hashes = HashCache::open(&cache);
        for name in 0..9 {
            let file = folder.path().join(name.to_string());
            write_aged(&file, b"x", 9);
            hashes.sha256(&file).unwrap();
        }
        assert_eq!(saved(&cache).len(), 1);
        drop(hashes);
        assert_eq!(saved(&cache).len(), 9);
    }

    #[test]
    fn a_hash_is_remembered_across_processes_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("file"), folder.path().join("hashes.json"));
        write_aged(&file, b"one", 9);
        let first = HashCache::open(&cache).sha256(&file).unwrap();
        assert_eq!(first, Digest::of(b"one"));

        // Plant another hash in the cache: it is believed, so the file was not read again.
        let planted = fs::read_to_string(&cache).unwrap().replace(&first.to_string(), &Digest::of(b"?").to_string());
        fs::write(&cache, planted).unwrap();
        assert_eq!(HashCache::open(&cache).sha256(&file).unwrap(), Digest::of(b"?"));

        for (contents, age) in [(&b"two"[..], 5), (b"three", 9)] {
            write_aged(&file, contents, age);
            assert_eq!(HashCache::open(&cache).sha256(&file).unwrap(), Digest::of(contents));
        }
    }

    #[test]
    fn a_file_of_this_moment_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("file"), folder.path().join("hashes.json"));
        fs::write(&file, "one").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::now() + TICK).unwrap();
        HashCache::open(&cache).sha256(&file).unwrap();
        assert!(!cache.exists());
    }

    #[test]
    fn two_caches_on_one_file_keep_each_others_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("hashes.json");
        let (a, b) = (HashCache::open(&cache), HashCache::open(&cache));
        let files = ["a", "b"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| write_aged(file, b"x", 9));
        let digest = a.sha256(&files[0]).unwrap();
        b.sha256(&files[1]).unwrap();
        assert_eq!(saved(&cache).len(), 2);
        // `a` learns what `b` has found without reading the file: its hash is planted.
        let planted = fs::read_to_string(&cache).unwrap().replace(&digest.to_string(), &Digest::of(b"?").to_string());
        atomic::write(&cache, planted.as_bytes()).unwrap();
        assert_eq!(a.sha256(&files[1]).unwrap(), Digest::of(b"?"));
    }

    #[test]
    fn a_damaged_cache_is_rebuilt_and_a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("file"), folder.path().join("hashes.json"));
        write_aged(&file, b"x", 9);
        fs::write(&cache, "{\"1:2\":").unwrap();
        assert_eq!(HashCache::open(&cache).sha256(&file).unwrap(), Digest::of(b"x"));
        assert_eq!(saved(&cache).len(), 1);
        let message = HashCache::open(&cache).sha256(&folder.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("none: cannot read"), "{message}");
    }
}
