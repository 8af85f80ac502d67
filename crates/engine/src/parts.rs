//! A stage's work in parts, each kept on disk as soon as it is finished: a killed stage goes on at the next one.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::job::{Job, Progress};

/// The items that a stage makes one after the other (samples, features, embeddings), each of so many bytes.
pub(crate) struct Parts<'a> {
    /// The stage, in whose working directory they are kept.
    pub(crate) job: &'a Job<'a>,
    /// What their files are called.
    pub(crate) name: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// Items in all.
    pub(crate) count: usize,
    /// Items of a part: what a killed stage loses at most. The last may have fewer.
    pub(crate) size: usize,
    /// Bytes of an item.
    pub(crate) bytes: usize,
}

impl Parts<'_> {
    /// Items of all parts before the first that is missing or damaged, which only costs its time: where to go on.
    pub(crate) fn done(&self) -> usize {
        let done = self.ranges(0).find(|range| self.read(range).is_none()).map_or(self.count, |range| range.start);
        self.report(done);
        done
    }

    /// The parts that are left to make.
    pub(crate) fn left(&self) -> impl Iterator<Item = Range<usize>> {
        self.ranges(self.done())
    }

    /// Keeps the part that begins with item `first`: its bytes, then their hash.
    ///
    /// # Errors
    /// The disk's, with the path.
    pub(crate) fn keep(&self, first: usize, bytes: &[u8]) -> Result<()> {
        let hashed = [bytes, &Sha256::digest(bytes)[..]].concat();
        models::weights::write_atomically(&self.file(first), &hashed)?;
        self.report(first + bytes.len() / self.bytes);
        Ok(())
    }

    /// The bytes of all parts in order, one part in memory at a time.
    ///
    /// # Errors
    /// A part was damaged since it was kept.
    pub(crate) fn all(&self) -> impl Iterator<Item = Result<Vec<u8>>> {
        self.ranges(0).map(|range| {
            let damaged = || format!("{} is damaged: start the stage again", self.file(range.start).display());
            self.read(&range).with_context(damaged)
        })
    }

    /// Removes them, when the artifact that they make together is written.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn remove(&self) -> Result<()> {
        self.ranges(0).try_for_each(|range| {
            let file = self.file(range.start);
            std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
        })
    }

    fn ranges(&self, first: usize) -> impl Iterator<Item = Range<usize>> {
        (first..self.count).step_by(self.size).map(|first| first..(first + self.size).min(self.count))
    }

    fn file(&self, first: usize) -> PathBuf {
        self.job.directory.join(format!("{}-{first:06}.part", self.name))
    }

    /// A part that was kept whole; `None` where there is none, or its length or hash is off.
    fn read(&self, range: &Range<usize>) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(self.file(range.start)).ok()?;
        let (items, hash) = bytes.split_at_checked(range.len() * self.bytes)?;
        if hash != &Sha256::digest(items)[..] {
            return None;
        }
        bytes.truncate(range.len() * self.bytes);
        Some(bytes)
    }

    fn report(&self, done: usize) {
        let (done, total) = (done as u64, self.count as u64);
        (self.job.progress)(Progress { done, total, unit: self.unit, note: String::new() });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use manifest::stage::{Similarity, Stage};

    use super::*;
    use crate::job::Device;

    /// Lends a job of any stage, at which nobody looks, in `directory`.
    pub(crate) fn with_job(directory: &Path, work: impl FnOnce(&Job)) {
        let (stage, stop) = (Stage::Similarity(Similarity { count: 1 }), AtomicBool::new(false));
        let (inputs, progress) = (BTreeMap::new(), |_| {});
        work(&Job {
            stage: &stage,
            inputs,
            directory,
            threads: 1,
            device: Device::Cpu,
            progress: &progress,
            stop: &stop,
        });
    }

    #[test]
    fn a_part_is_taken_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        with_job(folder.path(), |job| {
            let parts = Parts { job, name: "numbers", unit: "numbers", count: 25, size: 10, bytes: 4 };
            let numbers: Vec<u8> = (0..100).collect();
            let keep = |first: usize| parts.keep(first, &numbers[4 * first..(4 * first + 40).min(100)]).unwrap();
            assert_eq!((parts.done(), parts.all().next().unwrap().is_err()), (0, true));
            assert_eq!(parts.left().collect::<Vec<_>>(), [0..10, 10..20, 20..25]);
            for (first, done) in [(0, 10), (20, 10), (10, 25)] {
                keep(first);
                assert_eq!(parts.done(), done, "after the part of {first}");
            }
            assert_eq!(parts.all().collect::<Result<Vec<_>>>().unwrap().concat(), numbers);

            let sound = std::fs::read(parts.file(10)).unwrap();
            let mut flipped = sound.clone();
            flipped[7] ^= 1;
            for bytes in [&flipped[..], &sound[..39], &sound[..71], &[]] {
                std::fs::write(parts.file(10), bytes).unwrap();
                assert_eq!(parts.left().collect::<Vec<_>>(), [10..20, 20..25]);
                let message = parts.all().collect::<Result<Vec<_>>>().unwrap_err().to_string();
                assert!(message.contains("numbers-000010.part"), "{message}");
            }
            // Items of another size are others.
            assert_eq!(Parts { bytes: 5, ..parts }.done(), 0);
            keep(10);
            parts.remove().unwrap();
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
