//! Files that appear at their name only whole: written beside it, flushed to disk, then renamed.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::StoreError;

/// How the names of files begin that are still being written. A killed process may leave one; nothing reads it.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Writes `contents` to `path`. A reader sees the old file or the new one, whenever this process is killed.
///
/// # Errors
/// [`StoreError::Io`] where the disk is full or the folder cannot be written; `path` is then as before.
pub fn write(path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    write_with(path, |file| file.write_all(contents))
}

/// As [`write()`], with the contents written by `fill`.
///
/// # Errors
/// As [`write()`], and what `fill` returns.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), StoreError> {
    let folder = parent(path);
    let attempt = || {
        // The file is as open to others as the user's mask allows, not private as temporary files are.
        let mut builder = tempfile::Builder::new();
        builder.prefix(UNFINISHED).permissions(Permissions::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        fill(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().map_err(StoreError::io("write", path))?;
    sync_dir(folder)
}

/// Flushes a folder's list of names to disk: a rename in it is then permanent.
pub(crate) fn sync_dir(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(StoreError::io("flush", folder))
}

/// Flushes a file's contents to disk.
pub(crate) fn sync_file(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io("flush", path))
}

/// Removes a folder so that no half of it is ever seen under its name: renamed to `aside` first, then deleted.
pub(crate) fn remove_dir(folder: &Path, aside: &Path) -> Result<(), StoreError> {
    if aside.exists() {
        fs::remove_dir_all(aside).map_err(StoreError::io("remove", aside))?;
    }
    fs::rename(folder, aside).map_err(StoreError::io("remove", folder))?;
    sync_dir(parent(folder))?;
    fs::remove_dir_all(aside).map_err(StoreError::io("remove", aside))
}

/// The folder a path lies in; the current one for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_new_file_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"old").unwrap();
        let full = write_with(&path, |file| {
            file.write_all(b"half of the new")?;
            File::options().write(true).open("/dev/full")?.write_all(b"the rest")
        });
        let message = full.unwrap_err().to_string();
        assert!(message.contains("file: cannot write") && message.contains("free some space"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = write(&folder.path().join("no/file"), b"x").unwrap_err().to_string();
        assert!(message.contains("no/file: cannot write"), "{message}");
    }
}
