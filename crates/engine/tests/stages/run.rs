//! Plans of the repository's manifests, and the execution of one of their stages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Device, EngineError, Finished, Job, Progress};
use manifest::digest::Key;
use manifest::plan::{Input, Plan, PlannedStage};
use manifest::stage::Stage;
use manifest::{Request, Workspace};

/// The stages of Table 4 at the smoke scale, one seed, with some values set.
pub fn table4(overrides: &[&str]) -> Vec<PlannedStage> {
    artifact("table4", overrides).stages
}

/// The plan of an artifact at the smoke scale, one seed, with some values set.
pub fn artifact(name: &str, overrides: &[&str]) -> Plan {
    let overrides = overrides.iter().map(|&o| o.to_owned()).collect();
    let request = Request { scale: "smoke".to_owned(), overrides, seeds: Some(vec![0]) };
    workspace().load_artifact(name, &request).unwrap()
}

/// The stages of a recipe.
pub fn recipe(name: &str, overrides: &[&str]) -> Vec<PlannedStage> {
    let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
    workspace().load_recipe(name, &overrides).unwrap().stages
}

fn workspace() -> Workspace {
    Workspace::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

/// Executes a stage in `directory` on its files and the artifacts in `made`; `None` where an input is not made yet.
pub fn execute(
    stage: &Stage,
    inputs: &BTreeMap<String, Input>,
    made: &BTreeMap<Key, PathBuf>,
    threads: usize,
    directory: &Path,
) -> Option<Finished> {
    let file = |(role, input): (&String, &Input)| {
        let path = match input {
            Input::File { path, .. } => path.clone(),
            Input::Stage(key) => made.get(key)?.clone(),
        };
        Some((role.clone(), path))
    };
    let inputs = inputs.iter().map(file).collect::<Option<BTreeMap<_, _>>>()?;
    Some(job(stage, inputs, threads, directory).unwrap())
}

fn job(
    stage: &Stage,
    inputs: BTreeMap<String, PathBuf>,
    threads: usize,
    directory: &Path,
) -> Result<Finished, EngineError> {
    let (stop, progress) = (AtomicBool::new(false), |_| {});
    engine::execute(&Job { stage, inputs, directory, threads, device: Device::Cpu, progress: &progress, stop: &stop })
}

/// Executes a stage in `directory` on its files alone, which may fail.
pub fn attempt(stage: &Stage, inputs: &BTreeMap<String, Input>, directory: &Path) -> Result<Finished, EngineError> {
    job(stage, files(inputs), 2, directory)
}

fn files(inputs: &BTreeMap<String, Input>) -> BTreeMap<String, PathBuf> {
    let file = |(role, input): (&String, &Input)| match input {
        Input::File { path, .. } => (role.clone(), path.clone()),
        Input::Stage(_) => panic!("{role} is shipped"),
    };
    inputs.iter().map(file).collect()
}

/// Executes a stage in `directory` on its files alone, and stops it when something is done.
pub fn stop_at_first_progress(stage: &Stage, inputs: &BTreeMap<String, Input>, directory: &Path) {
    let stop = AtomicBool::new(false);
    let progress = |progress: Progress| stop.store(progress.done > 0, Ordering::Relaxed);
    let inputs = files(inputs);
    let job = Job { stage, inputs, directory, threads: 2, device: Device::Cpu, progress: &progress, stop: &stop };
    assert!(matches!(engine::execute(&job), Err(EngineError::Interrupted)));
}
