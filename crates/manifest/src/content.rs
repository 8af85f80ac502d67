//! What a file or a folder holds: which files a folder has, and one hash over all of it. Loaders read by the same rule.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use walkdir::{DirEntry, WalkDir};

use crate::digest::Digest;

/// Paths of the files below a folder, relative to it, sorted. Links are followed; hidden files and folders
/// (`.DS_Store`) are left out.
///
/// # Errors
/// A folder that cannot be listed, a link that leads nowhere or back to a folder around it; the message names it.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let visible = |entry: &DirEntry| entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".");
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true).into_iter().filter_entry(visible) {
        let entry = entry?;
        if entry.file_type().is_file() {
            files.push(entry.path().strip_prefix(folder).unwrap_or(entry.path()).to_owned());
        }
    }
    files.sort();
    Ok(files)
}

/// Names of the folders right below a folder, sorted, as [`files`] looks into them: of images by class, the classes.
///
/// # Errors
/// A folder that cannot be listed.
pub fn folders(folder: &Path) -> io::Result<Vec<OsString>> {
    let entries = folder.read_dir()?.collect::<io::Result<Vec<_>>>()?;
    let visible = |name: &OsString| !name.as_encoded_bytes().starts_with(b".");
    let folders = entries.iter().filter(|entry| entry.path().is_dir());
    let mut names: Vec<OsString> = folders.map(fs::DirEntry::file_name).filter(visible).collect();
    names.sort();
    Ok(names)
}

/// Of a file its hash; of a folder the hash of the names and hashes of its [`files`], sorted by name.
///
/// # Errors
/// Those of [`files`] and of `hash`, and a folder without any file.
pub fn digest(path: &Path, hash: &dyn Fn(&Path) -> io::Result<Digest>) -> io::Result<Digest> {
    if !path.is_dir() {
        return hash(path);
    }
    let mut lines = Vec::new();
    for file in files(path)? {
        let name: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
        lines.push((name.join("/"), hash(&path.join(file))?));
    }
    if lines.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the folder holds no file"));
    }
    lines.sort();
    let listing: String = lines.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    Ok(Digest::of(listing.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(folder: &Path) -> io::Result<Digest> {
        digest(folder, &Digest::of_file)
    }

    #[test]
    fn a_folder_is_its_names_and_contents_without_dotfiles() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(of(folder.path()).unwrap_err().to_string().contains("no file"));
        fs::create_dir(at("b")).unwrap();
        fs::write(at("b/1.png"), "one").unwrap();
        fs::write(at("a.png"), "two").unwrap();
        let first = of(folder.path()).unwrap();
        let listing = format!("{}  a.png\n{}  b/1.png\n", Digest::of(b"two"), Digest::of(b"one"));
        assert_eq!(first, Digest::of(listing.as_bytes()));

        fs::write(at(".DS_Store"), "stray").unwrap();
        fs::create_dir(at(".cache")).unwrap();
        assert_eq!(of(folder.path()).unwrap(), first);
        assert_eq!(folders(folder.path()).unwrap(), ["b"]);
        fs::rename(at("a.png"), at("c.png")).unwrap();
        assert_ne!(of(folder.path()).unwrap(), first);
    }

    #[cfg(unix)]
    #[test]
    fn linked_folders_are_part_of_a_folder() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(folder.path().join("a.png"), "one").unwrap();
        let alone = of(folder.path()).unwrap();
        fs::write(elsewhere.path().join("1.png"), "two").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("more")).unwrap();
        assert_eq!(files(folder.path()).unwrap(), ["a.png", "more/1.png"].map(PathBuf::from));
        let linked = of(folder.path()).unwrap();
        assert_ne!(linked, alone);
        fs::write(elsewhere.path().join("1.png"), "other").unwrap();
        assert_ne!(of(folder.path()).unwrap(), linked, "a change behind the link is a change");

        std::os::unix::fs::symlink(folder.path(), folder.path().join("round")).unwrap();
        assert!(of(folder.path()).unwrap_err().to_string().contains("round"));
        fs::remove_file(folder.path().join("round")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("lost.png")).unwrap();
        assert!(of(folder.path()).unwrap_err().to_string().contains("lost.png"));
    }
}
