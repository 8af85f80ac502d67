//! A repository in a temporary folder whose every stage takes milliseconds, and the runner in it.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing in these tests takes longer than this.
const PATIENCE: Duration = Duration::from_secs(120);

const MANIFEST: &str = "\
artifact: nano
title: two cells
paper: {where: Table 4, backbone: DiT-B/2, dataset: FFHQ 256, further_iterations: 30000}
method: {kind: dmp, preset: paper}
baseline: {title: Baseline, method: {kind: pretrained}}
groups:
  b:
    title: Gating type
    cells:
      hard: {set: {method.gate.selection: {kind: top_k, keep: 0.75}}}
      soft: {}
";

const SCALE: &str = "\
title: milliseconds
data: {kind: faces, image_size: 12, first: 0, count: 64}
backbone: {recipe: nano-backbone}
extractor: {kind: cnn, recipe: nano-extractor}
train: {iterations: 4, batch: 4, learning_rate: 1.0e-4, learning_rate_multiplier: 1.0, horizontal_flip: true}
sample:
  sampler: {kind: ddpm, steps: 2, clip_x0: true, guidance: 1.0, guidance_channels: all}
  count: 16
  seed: 1000
evaluation:
  reference: {kind: faces, image_size: 12, first: 1000, count: 16}
  subsets: 2
  subset_seed: 0
  positive_control_noise: 0.5
  activation_timesteps: 5
seeds: [0]
numerics: {engine: reference, device: cpu, dtype: f32}
";

const BACKBONE: &str = "\
recipe: backbone
title: the smallest DiT
space: {kind: pixels}
dit:
  {image_size: 12, channels: 3, patch: 3, hidden: 16, depth: 2, heads: 2, classes: null, label_dropout: 0.0, learn_sigma: true}
data: {kind: faces, image_size: 12, first: 0, count: 64}
diffusion: {schedule: cosine, timesteps: 1000}
optimisation:
  iterations: 4
  batch: 4
  learning_rate: 1.0e-3
  final_learning_rate: 1.0e-4
  warmup_iterations: 1
  weight_decay: 0.0
  horizontal_flip: true
ema_halflife_iterations: 2.0
seed: 0
numerics: {engine: reference, device: cpu, dtype: f32}
";

const EXTRACTOR: &str = "\
recipe: extractor
title: the smallest CNN
extractor: {name: nano_cnn, image_size: 12, channels: 3, widths: [4, 8], target: factors}
data: {kind: faces, image_size: 12, first: 2000, count: 64}
held_out: 16
optimisation:
  iterations: 4
  batch: 4
  learning_rate: 1.0e-3
  final_learning_rate: 1.0e-4
  warmup_iterations: 1
  weight_decay: 0.0
  horizontal_flip: false
seed: 0
numerics: {engine: reference, device: cpu, dtype: f32}
";

/// A repository in a temporary folder.
pub(crate) struct Repository {
    folder: tempfile::TempDir,
}

/// What the runner said, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Repository {
    /// A fresh one.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = Self { folder };
        let presets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/presets/paper.yaml");
        repository.write("experiments/presets/paper.yaml", &std::fs::read_to_string(presets).unwrap());
        repository.write("experiments/nano.yaml", MANIFEST);
        repository.write("experiments/scales/tiny.yaml", SCALE);
        repository.write("experiments/nano-backbone.yaml", BACKBONE);
        repository.write("experiments/nano-extractor.yaml", EXTRACTOR);
        repository
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Replaces a text in a file, which must be there.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`");
        self.write(name, &text.replace(from, to));
    }

    /// The runner, about to start in this repository.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("DMP_DATA").stdin(Stdio::null());
        command
    }

    /// Runs the runner to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs the runner, which must exit with `code`.
    pub(crate) fn exits(&self, code: i32, arguments: &[&str]) -> Said {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:#?}");
        said
    }

    /// Starts the runner; it goes on by itself.
    pub(crate) fn start(&self, arguments: &[&str]) -> Started {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        Started { child, errors, said: String::new() }
    }

    /// Waits until a stage of `kind` is being worked on and has got so far that its log says `text`.
    pub(crate) fn wait_for_log(&self, results: &str, kind: &str, text: &str) {
        let kind = self.path(results).join(kind);
        wait(&format!("`{text}` in a log under {}", kind.display()), || {
            logs(&kind).iter().any(|log| std::fs::read_to_string(log).is_ok_and(|log| log.contains(text)))
        });
    }

    /// A file of a stage of `kind`, finished or not, by its name.
    pub(crate) fn file(&self, kind: &str, name: &str) -> Option<PathBuf> {
        files(&self.path("results").join(kind)).into_iter().find(|path| path.ends_with(name))
    }

    /// Runs the runner and stops it with a signal as soon as a stage of `kind` has left a file: once for each signal and file.
    pub(crate) fn interrupt(&self, arguments: &[&str], kind: &str, stops: [(&str, &str); 2]) {
        for (attempt, (signal, name)) in (1..).zip(stops) {
            let runner = self.start(arguments);
            // The part may be there from the attempt before.
            let log = format!("attempt-{attempt}.log");
            wait(name, || self.file(kind, name).is_some() && self.file(kind, &log).is_some());
            runner.signal(signal);
            runner.finish();
            wait("the child's end", || self.run(&["status", "--json"]).json_lines()[0][kind]["running"] == 0);
            self.exits(0, &["verify"]);
        }
    }

    /// The record of the only finished stage of `kind`.
    pub(crate) fn record(&self, results: &str, kind: &str) -> serde_json::Value {
        let mut records = self.records(results, kind);
        assert_eq!(records.len(), 1, "finished stages of kind {kind}");
        records.remove(0)
    }

    /// The records of all finished stages of `kind`, in the order of their keys.
    pub(crate) fn records(&self, results: &str, kind: &str) -> Vec<serde_json::Value> {
        let mut records = files(&self.path(results).join(kind));
        records.retain(|path| path.ends_with("record.json") && !path.to_string_lossy().contains(".partial"));
        records.sort();
        let read = |path: &PathBuf| -> serde_json::Value {
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap()["record"].clone()
        };
        records.iter().map(read).collect()
    }
}

/// A runner that goes on by itself, and what it has said on its error output so far.
pub(crate) struct Started {
    child: Child,
    errors: BufReader<ChildStderr>,
    said: String,
}

impl Started {
    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits until it says something on its error output.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.said.contains(text) {
            let read = self.errors.read_line(&mut self.said).unwrap();
            assert!(read > 0, "it ended without `{text}`: {}", self.said);
        }
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Said {
        wait("the runner's end", || self.child.try_wait().unwrap().is_some());
        self.errors.read_to_string(&mut self.said).unwrap();
        Said { err: self.said, ..self.child.wait_with_output().unwrap().into() }
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(process: impl Display, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(status.success());
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
    }
}

impl Said {
    /// The last line of standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        let last = self.out.lines().last().unwrap_or_else(|| panic!("no output: {self:#?}"));
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"))
    }

    /// All lines of standard output as JSON.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Waits until something is so.
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All files below a folder; none where it is missing.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let mut logs = files(folder);
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs
}
