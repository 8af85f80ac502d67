//! The unfinished file: hashed while it grows, locked against other processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use manifest::digest::Digest;
use sha2::{Digest as _, Sha256};

use crate::{FetchError, Remote};

/// A file that is on its way.
pub(crate) struct Partial {
    target: PathBuf,
    path: PathBuf,
    file: File,
    hash: Sha256,
    len: u64,
    /// Bytes that an earlier call has left and that are still in use.
    resumed: u64,
}

impl Partial {
    /// Opens what an earlier call has left for `target`, or begins. More than `most` bytes cannot be of the file.
    pub(crate) fn open(target: &Path, most: u64) -> Result<Self, FetchError> {
        let folder = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(FetchError::io("make", folder))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.partial"));
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(FetchError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FetchError::Busy { path }),
            Err(TryLockError::Error(error)) => return Err(FetchError::io("lock", &path)(error)),
        }
        if !is_at(&file, &path)? {
            // Whoever held the lock has finished the file or thrown it away: this is no longer the unfinished one.
            return Err(FetchError::Busy { path });
        }
        let mut hash = Sha256::new();
        let mut len = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(FetchError::io("read", &path))? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
            len = file.stream_position().map_err(FetchError::io("read", &path))?;
        }
        let mut partial = Self { target: target.to_owned(), path, file, hash, len, resumed: len };
        if len > most {
            partial.restart()?;
        }
        Ok(partial)
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of these that an earlier call has left.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Forgets all that has come.
    pub(crate) fn restart(&mut self) -> Result<(), FetchError> {
        let restarted = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        restarted.map_err(FetchError::io("write", &self.path))?;
        (self.hash, self.len, self.resumed) = (Sha256::new(), 0, 0);
        Ok(())
    }

    /// Removes all that has come.
    pub(crate) fn discard(&mut self) -> Result<(), FetchError> {
        fs::remove_file(&self.path).map_err(FetchError::io("remove", &self.path))
    }

    /// Adds what has come.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(FetchError::io("write", &self.path))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its name, if it is the pinned one; what is not is removed, unless an earlier call began it.
    pub(crate) fn finish(&mut self, remote: &Remote) -> Result<(), FetchError> {
        let found = Digest::from(<[u8; 32]>::from(self.hash.clone().finalize()));
        if found != remote.sha256 {
            if self.resumed == 0 {
                self.discard()?;
            }
            let (expected, found) = (format!("sha256 {}", remote.sha256), format!("sha256 {found}"));
            return Err(FetchError::Content { url: remote.url.clone(), expected, found });
        }
        self.file.sync_all().map_err(FetchError::io("write", &self.path))?;
        fs::rename(&self.path, &self.target).map_err(FetchError::io("name", &self.target))?;
        let folder = self.target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(FetchError::io("write", folder))
    }
}

/// Whether a path still leads to an open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> Result<bool, FetchError> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata().map_err(FetchError::io("read", path))?;
    Ok(path.metadata().is_ok_and(|found| (found.dev(), found.ino()) == (open.dev(), open.ino())))
}

/// Elsewhere an open file can be neither renamed nor removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> Result<bool, FetchError> {
    Ok(true)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_got_its_name_is_no_longer_the_unfinished_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join(".a.partial"), folder.path().join("a"));
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        fs::rename(&path, &target).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        fs::write(&path, "another's").unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }
}
