//! What code and machine made a record, and at what cost. Nothing here enters a key, names a host or holds a path.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use manifest::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::hashes::HashCache;

/// Where a record comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The program.
    pub code: Code,
    /// The machine.
    pub machine: Machine,
    /// Time and memory.
    pub cost: Cost,
}

/// The program that made a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Commit of the repository it ran in; `None` outside of one or without git.
    pub git_commit: Option<String>,
    /// Hash of the difference between working tree and commit; `None` if there is none.
    pub dirty_diff_sha256: Option<Digest>,
    /// Hash of the Cargo.lock it was built with.
    pub cargo_lock_sha256: Digest,
    /// Hash of the running program.
    pub binary_sha256: Option<Digest>,
    /// The compiler that built it.
    pub rustc: String,
}

/// The machine that made a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: Option<String>,
    /// Where tensors lived: `cpu`, or model and driver of the GPU.
    pub device: String,
    /// Threads used.
    pub threads: usize,
}

/// What a record cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// When the last attempt began, in UTC.
    pub started: String,
    /// When it was finished, in UTC.
    pub finished: String,
    /// Duration of the last attempt.
    pub wall_seconds: f64,
    /// Largest resident memory of the process that finished it.
    pub peak_memory_bytes: Option<u64>,
    /// Earlier attempts whose state it may have gone on from.
    pub resumed_attempts: u32,
}

impl Code {
    /// Asks git about `repository`, and hashes the running program.
    pub fn collect(repository: &Path, hashes: &HashCache) -> Self {
        let commit = git(repository, &["rev-parse", "HEAD"]).and_then(|out| String::from_utf8(out).ok());
        let diff = git(repository, &["diff", "--binary", "--no-ext-diff", "--no-color", "HEAD"]);
        let program = std::env::current_exe().ok();
        Self {
            git_commit: commit.map(|commit| commit.trim().to_owned()),
            dirty_diff_sha256: diff.filter(|diff| !diff.is_empty()).map(|diff| Digest::of(&diff)),
            cargo_lock_sha256: Digest::of(include_bytes!("../../../Cargo.lock")),
            binary_sha256: program.and_then(|path| hashes.sha256(&path).ok()),
            rustc: env!("RUSTC_VERSION").to_owned(),
        }
    }
}

impl Machine {
    /// This machine; `device` and `threads` are what the stage was told to use.
    pub fn collect(device: &str, threads: usize) -> Self {
        let cpu = field("/proc/cpuinfo", "model name");
        Self { cpu, device: device.to_owned(), threads }
    }
}

/// Measures the cost of one attempt.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    started: String,
    instant: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { started: clock::now(), instant: Instant::now() }
    }

    /// The cost so far of attempt number `attempt` (from 1).
    pub(crate) fn read(&self, attempt: u32) -> Cost {
        Cost {
            started: self.started.clone(),
            finished: clock::now(),
            wall_seconds: self.instant.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
            resumed_attempts: attempt - 1,
        }
    }
}

fn git(repository: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("git").arg("-C").arg(repository).args(arguments).output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// The first `name: value` of a file of such lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))?.1;
    Some(value.trim().to_owned())
}

fn peak_memory_bytes() -> Option<u64> {
    let kibibytes = field("/proc/self/status", "VmHWM")?;
    kibibytes.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|k| k * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) {
        let status = Command::new("sh").arg("-ec").arg(script).current_dir(folder).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn commit_and_local_changes_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let hashes = HashCache::read_only(&folder.path().join("none"));
        let collect = || Code::collect(folder.path(), &hashes);
        assert_eq!((collect().git_commit, collect().dirty_diff_sha256), (None, None));

        shell(folder.path(), "git init -q; echo one > file; git add file");
        shell(folder.path(), "git -c user.name=a -c user.email=a@b commit -q -m first");
        let clean = collect();
        assert_eq!(clean.git_commit.as_ref().map(String::len), Some(40));
        assert_eq!(clean.dirty_diff_sha256, None);

        fs::write(folder.path().join("file"), "two\n").unwrap();
        let dirty = collect();
        assert_eq!(dirty.git_commit, clean.git_commit);
        assert!(dirty.dirty_diff_sha256.is_some());
    }

    #[test]
    fn the_program_and_its_memory_are_measured() {
        let code = Code::collect(Path::new("/"), &HashCache::read_only(Path::new("/none")));
        assert!(code.binary_sha256.is_some());
        assert!(code.rustc.starts_with("rustc 1."), "{}", code.rustc);
        assert!(peak_memory_bytes().is_some_and(|bytes| bytes > 100_000));
        assert_eq!(Stopwatch::start().read(3).resumed_attempts, 2);
    }
}
