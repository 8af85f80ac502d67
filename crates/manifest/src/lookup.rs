//! Finds data and weight files, and hashes what is in them.

use std::io;
use std::path::{Path, PathBuf};

use crate::content;
use crate::digest::Digest;
use crate::plan::Input;
use crate::problem::{Missing, MissingReason, Place};
use crate::published::Published;
use crate::scale::Weights;

/// Hashes a file's content; `store` puts a cache by size, modification time and inode behind it.
pub type HashFile = dyn Fn(&Path) -> io::Result<Digest> + Send + Sync;

/// Where files are looked for, and how they are hashed.
pub(crate) struct Lookup<'a> {
    pub(crate) folders: &'a [PathBuf],
    pub(crate) hash: &'a HashFile,
    /// What others publish: an error says how to get it.
    pub(crate) published: Published,
}

impl Lookup<'_> {
    /// A dataset's file or folder as a stage's input. A path that is absolute is taken as it is.
    pub(crate) fn input(&self, wanted: &str, place: &Place) -> Result<Input, Box<Missing>> {
        let path = self.find(wanted, place)?;
        let unreadable = |error: io::Error| MissingReason::Unreadable { path: path.clone(), reason: error.to_string() };
        let sha256 =
            content::digest(&path, self.hash).map_err(|error| self.missing(wanted, place, unreadable(error)))?;
        Ok(Input::File { sha256, path })
    }

    /// A weight file as a stage's input. Its content must be the pinned one.
    pub(crate) fn weights(&self, weights: &Weights, place: &Place) -> Result<Input, Box<Missing>> {
        let input = self.input(&weights.file, place)?;
        match (&input, weights.sha256) {
            (Input::File { sha256, path }, Some(pinned)) if *sha256 != pinned => Err(self.missing(
                &weights.file,
                place,
                MissingReason::WrongContent { path: path.clone(), pinned, found: *sha256 },
            )),
            _ => Ok(input),
        }
    }

    fn missing(&self, wanted: &str, place: &Place, reason: MissingReason) -> Box<Missing> {
        let remedy = self.published.remedy(wanted);
        Box::new(Missing { place: place.clone(), wanted: wanted.to_owned(), reason, remedy })
    }

    fn find(&self, wanted: &str, place: &Place) -> Result<PathBuf, Box<Missing>> {
        let candidates: Vec<PathBuf> = self.folders.iter().map(|folder| folder.join(wanted)).collect();
        match candidates.iter().find(|path| path.exists()) {
            Some(path) => Ok(path.clone()),
            None => {
                let mut tried = candidates;
                tried.dedup(); // an absolute path replaces the folder it is joined to
                Err(self.missing(wanted, place, MissingReason::NotFound(tried)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_folder_that_has_it_wins_and_all_are_named_if_none_has() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [one.path().to_owned(), two.path().to_owned()];
        let lookup = Lookup { folders: &folders, hash: &Digest::of_file, published: Published::default() };
        let missing = lookup.input("x.gz", &Place::Nowhere).unwrap_err().to_string();
        for folder in &folders {
            assert!(missing.contains(&folder.join("x.gz").display().to_string()), "{missing}");
        }
        fs::write(two.path().join("x.gz"), "x").unwrap();
        let expected = Input::File { sha256: Digest::of(b"x"), path: two.path().join("x.gz") };
        assert_eq!(lookup.input("x.gz", &Place::Nowhere), Ok(expected));
        fs::write(one.path().join("x.gz"), "y").unwrap();
        let Ok(Input::File { sha256, .. }) = lookup.input("x.gz", &Place::Nowhere) else { panic!() };
        assert_eq!(sha256, Digest::of(b"y"));
    }

    #[test]
    fn weights_with_another_content_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("w"), "tampered").unwrap();
        let folders = [folder.path().to_owned()];
        let lookup = Lookup { folders: &folders, hash: &Digest::of_file, published: Published::default() };
        let pinned = Weights { file: "w".into(), sha256: Some(Digest::of(b"genuine")) };
        let error = lookup.weights(&pinned, &Place::Nowhere).unwrap_err().to_string();
        assert!(error.contains("is not the file that is pinned"), "{error}");
        assert!(error.contains(&Digest::of(b"genuine").to_string()), "{error}");
        let right = Weights { sha256: Some(Digest::of(b"tampered")), ..pinned };
        assert!(lookup.weights(&right, &Place::Nowhere).is_ok());
    }
}
