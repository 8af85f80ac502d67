//! Two processes on one results directory, and processes killed with SIGKILL.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use store::{FailureClass, Finished, Status, Store, StoreError, verify};

use crate::stages::{KIND, code, finished, machine, planned, work};

const TASK: &str = "STORE_TEST_TASK";
const ROOT: &str = "STORE_TEST_ROOT";

/// Bytes of the artifact in `commit_forever`: enough that a kill often hits in the middle of it.
const LARGE: usize = 4 << 20;

/// What the other process does: this test binary again, with a task in its environment.
#[test]
#[ignore = "the other process of the tests below"]
fn other_process() {
    let store = Store::open(Path::new(&std::env::var_os(ROOT).unwrap())).unwrap();
    match std::env::var(TASK).unwrap().as_str() {
        "hold" => {
            let claim = store.claim(&planned(1)).unwrap();
            fs::write(claim.dir().join("checkpoint"), "of the killed process").unwrap();
            say("claimed");
            thread::sleep(Duration::from_secs(600));
        }
        "commit forever" => commit_forever(&store),
        "commit with little space" => {
            let claim = store.claim(&planned(1)).unwrap();
            work(&claim);
            let mut log = File::options().append(true).open(claim.log_path()).unwrap();
            log.write_all(b"now the commit\n").unwrap();
            let mut large = finished(1);
            large.curve = vec![large.curve[0].clone(); 100_000];
            let error = claim.commit(&large, code(), machine()).unwrap_err();
            say(&error.to_string().replace('\n', " "));
        }
        task => panic!("no such task: {task}"),
    }
}

fn commit_forever(store: &Store) {
    for seed in 0.. {
        match store.claim(&planned(seed)) {
            Ok(claim) => {
                work(&claim);
                fs::write(claim.dir().join("large"), vec![seed as u8; LARGE]).unwrap();
                let artifacts = vec!["samples.safetensors".to_owned(), "large".to_owned()];
                claim.commit(&Finished { artifacts, ..finished(seed) }, code(), machine()).unwrap();
                say("committed");
            }
            Err(StoreError::AlreadyDone { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A line for the parent, past the test harness.
fn say(line: &str) {
    let mut out = std::io::stdout();
    out.write_all(format!("\nchild: {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

struct Other {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Other {
    /// Starts the other process; `shell` runs before it in the same process, e.g. `ulimit`.
    fn start(task: &str, root: &Path, shell: &str) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{shell}\nexec \"$0\" \"$@\"")).arg(std::env::current_exe().unwrap());
        command.args(["kill::other_process", "--exact", "--ignored", "--nocapture"]);
        command.env(TASK, task).env(ROOT, root).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Waits for its next line.
    fn heard(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "the other process has ended");
            if let Some(said) = line.strip_prefix("child: ") {
                return said.trim().to_owned();
            }
        }
    }
}

impl Drop for Other {
    /// SIGKILL.
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_second_process_is_turned_away_and_takes_over_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let key = planned(1).key;
    let mut other = Other::start("hold", folder.path(), "");
    assert_eq!(other.heard(), "claimed");

    let error = store.claim(&planned(1)).unwrap_err();
    assert!(matches!(&error, StoreError::Busy { owner, .. } if owner.pid == other.child.id()), "{error}");
    assert!(error.to_string().contains(&format!("process {} on ", other.child.id())), "{error}");
    assert!(matches!(store.status(key, KIND).unwrap(), Status::Running(owner) if owner.pid == other.child.id()));
    assert!(matches!(store.discard(key, KIND), Err(StoreError::Busy { .. })));
    store.claim(&planned(2)).unwrap().fail(FailureClass::Other, "another stage is free").unwrap();

    drop(other);
    assert_eq!(store.status(key, KIND).unwrap(), Status::Partial { attempts: 1 });
    assert!(verify(store.tree()).unwrap().is_sound());
    let claim = store.claim(&planned(1)).unwrap();
    assert_eq!(claim.attempt(), 2);
    assert_eq!(fs::read(claim.dir().join("checkpoint")).unwrap(), b"of the killed process");
    work(&claim);
    assert_eq!(claim.commit(&finished(1), code(), machine()).unwrap().provenance.cost.resumed_attempts, 1);
}

#[test]
fn a_kill_at_any_moment_leaves_a_sound_tree() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut stages = 0;
    for round in 0..12 {
        let mut other = Other::start("commit forever", folder.path(), "");
        other.heard();
        thread::sleep(Duration::from_millis(3 * round)); // somewhere within the next stage
        drop(other);
        let found = verify(store.tree()).unwrap();
        assert!(found.is_sound(), "{:?}", found.problems);
        assert!(found.stages > stages, "what was committed stays committed");
        stages = found.stages;
    }
    assert!(store.tree().records().unwrap().iter().all(|record| record.artifacts["large"].bytes == LARGE as u64));
}

#[test]
fn a_write_that_fails_leaves_no_record_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    // No file may grow beyond 100 blocks: the kernel then refuses to write, as it does when a disk is full.
    let mut other = Other::start("commit with little space", folder.path(), "ulimit -f 100; trap '' XFSZ");
    let message = other.heard();
    assert!(message.contains("curve.parquet: cannot write"), "{message}");
    drop(other);
    let status = store.status(planned(1).key, KIND).unwrap();
    assert!(matches!(&status, Status::Failed(failure) if failure.class == FailureClass::DiskFull), "{status:?}");
    assert!(verify(store.tree()).unwrap().is_sound());

    let claim = store.claim(&planned(1)).unwrap();
    claim.commit(&finished(1), code(), machine()).unwrap();
    assert!(matches!(store.status(planned(1).key, KIND).unwrap(), Status::Done(_)));
}
