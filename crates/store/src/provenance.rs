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
    /// Hash of the difference between working tree and commit, new files among it; `None` if there is none.
    pub dirty_diff_sha256: Option<Digest>,
    /// Hash of the Cargo.lock it was built with.
    pub cargo_lock_sha256: Digest,
    /// Hash of the program that executed the stage.
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

/// The state of the repository that stages are run from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkout {
    git_commit: Option<String>,
    dirty_diff_sha256: Option<Digest>,
}

impl Checkout {
    /// Asks git about `repository`. New files that git does not ignore are local changes, too (by their names). What lies
    /// in `outputs`, the folders of results and reports, decides no result and is left out.
    pub fn of(repository: &Path, outputs: &[&Path]) -> Self {
        let root = std::path::absolute(repository).unwrap_or_else(|_| repository.to_owned());
        let inside = outputs.iter().filter_map(|folder| folder.strip_prefix(&root).ok());
        let excluded = inside.filter(|folder| !folder.as_os_str().is_empty());
        let excluded = excluded.map(|folder| format!(":(exclude){}", folder.display()));
        let paths: Vec<String> = ["--", "."].map(str::to_owned).into_iter().chain(excluded).collect();
        let ask = |words: &[&str]| git(repository, words.iter().copied().chain(paths.iter().map(String::as_str)));
        let diff = ask(&["diff", "--binary", "--no-ext-diff", "--no-color", "HEAD"]).unwrap_or_default();
        let status = ask(&["status", "--porcelain"]).unwrap_or_default();
        let changes = [diff, status].concat();
        let commit = git(repository, ["rev-parse", "HEAD"]).and_then(|out| String::from_utf8(out).ok());
        let dirty = commit.is_some() && !changes.is_empty();
        Self {
            git_commit: commit.map(|commit| commit.trim().to_owned()),
            dirty_diff_sha256: dirty.then(|| Digest::of(&changes)),
        }
    }
}

impl Code {
    /// The running program, in a repository of this state.
    pub fn collect(checkout: &Checkout, hashes: &HashCache) -> Self {
        let program = std::env::current_exe().ok();
        Self {
            git_commit: checkout.git_commit.clone(),
            dirty_diff_sha256: checkout.dirty_diff_sha256,
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

fn git<'a>(repository: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Option<Vec<u8>> {
    // Without locks: whoever works in the repository meanwhile is not disturbed.
    let mut command = Command::new("git");
    command.args(["--no-optional-locks", "-C"]).arg(repository).args(arguments);
    let output = command.output().ok()?;
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
        let outputs = ["results", "reports"].map(|name| folder.path().join(name));
        let checkout = || Checkout::of(folder.path(), &[&outputs[0], &outputs[1], Path::new("/elsewhere")]);
        assert_eq!(checkout(), Checkout { git_commit: None, dirty_diff_sha256: None });

        let commit = "git -c user.name=a -c user.email=a@b commit -q -m";
        shell(
            folder.path(),
            &format!("git init -q; mkdir reports; echo one > file; echo one > reports/page; git add .; {commit} first"),
        );
        let clean = checkout();
        assert_eq!(clean.git_commit.as_ref().map(String::len), Some(40));
        assert_eq!(clean.dirty_diff_sha256, None);

        // What runs leave behind is no change of the code.
        shell(folder.path(), "echo two > reports/page; mkdir results; echo new > results/record");
        assert_eq!(checkout(), clean);

        // A new file is one, and so is a change of a known one.
        fs::write(folder.path().join("new.rs"), "one\n").unwrap();
        let new = checkout();
        assert!(new.dirty_diff_sha256.is_some());
        fs::write(folder.path().join("file"), "two\n").unwrap();
        let both = checkout();
        assert_eq!(both.git_commit, clean.git_commit);
        assert!(both.dirty_diff_sha256.is_some() && both != new);
        shell(folder.path(), "rm new.rs; echo one > file; echo new.rs > .git/info/exclude; echo one > new.rs");
        assert_eq!(checkout(), clean, "what git ignores is not looked at");
    }

    #[test]
    fn the_program_and_its_memory_are_measured() {
        let checkout = Checkout::of(Path::new("/"), &[]);
        let code = Code::collect(&checkout, &HashCache::read_only(Path::new("/none")));
        assert!(code.binary_sha256.is_some());
        assert!(code.rustc.starts_with("rustc 1."), "{}", code.rustc);
        assert!(peak_memory_bytes().is_some_and(|bytes| bytes > 100_000));
        assert_eq!(Stopwatch::start().read(3).resumed_attempts, 2);
    }
}
