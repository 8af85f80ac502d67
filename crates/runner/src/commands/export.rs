//! `runner export`: what a cell has made, in files that others' tools read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::Job;
use engine::export::{self, Released};
use manifest::digest::Key;
use manifest::plan::{CellRun, Plan, PlannedStage};
use manifest::stage::{Features, Stage};
use models::weights::Format;

use super::show::artifact_and_cell;
use super::weights::{format_of, write};
use crate::child;
use crate::cli::{Export, ExportCommand};
use crate::exit::{Exit, Failure};
use crate::session::Session;

/// Writes what was asked for.
///
/// # Errors
/// When there is no such cell, it has not run, or the file is there already or cannot be written.
pub(crate) fn run(session: &Session, command: &ExportCommand) -> Result<Exit, Failure> {
    let (ExportCommand::Samples(asked) | ExportCommand::Statistics(asked) | ExportCommand::Patch(asked)) = command;
    let Export { cell, to } = asked;
    let format = match command {
        ExportCommand::Samples(_) | ExportCommand::Statistics(_) => None,
        ExportCommand::Patch(_) => Some(format_of(to)?),
    };
    free(to)?;
    let cell = Ran::find(session, cell)?;
    let (planned, stage) = cell.features();
    let (about, what) = match command {
        ExportCommand::Samples(_) => {
            let count = export::samples(&cell.job(planned)?, stage, to)?;
            (serde_json::json!({"samples": count}), format!("{count} samples"))
        }
        ExportCommand::Statistics(_) => {
            let count = export::statistics(&cell.artifact(cell.run.features)?, &stage.extractor, to)?;
            (serde_json::json!({"features": count}), format!("mean and covariance of {count} features"))
        }
        ExportCommand::Patch(_) => {
            let Released { state_dict, class } = cell.released()?;
            write(to, &state_dict, format.unwrap_or(Format::Safetensors), None)?;
            let text = format!("{} tensors of `{class}`", state_dict.len());
            (serde_json::json!({"tensors": state_dict.len(), "class": class}), text)
        }
    };
    let seed = cell.run.seed;
    let object = serde_json::json!({"file": to, "cell": cell.id, "seed": seed, "holds": about});
    session.output.emit(&object, format!("{}: {} seed {seed}, {what}", to.display(), cell.id))?;
    Ok(Exit::Done)
}

/// An error where a file is in the way: nothing is overwritten.
fn free(to: &Path) -> Result<(), Failure> {
    match to.exists() {
        true => Err(Failure::Usage(format!("{} is there already; move it away, or give another name", to.display()))),
        false => Ok(()),
    }
}

/// A cell at one seed, in its results tree.
struct Ran<'a> {
    session: &'a Session,
    plan: Plan,
    id: String,
    run: CellRun,
}

impl<'a> Ran<'a> {
    fn find(session: &'a Session, what: &str) -> Result<Self, Failure> {
        let (artifact, id) = artifact_and_cell(session, what)?;
        let plan = session.plan(&artifact)?;
        let cell = super::cell(&plan, id)?;
        let run = match &cell.runs[..] {
            [run] => run.clone(),
            runs => {
                let seeds: Vec<String> = runs.iter().map(|run| run.seed.to_string()).collect();
                let (seeds, first) = (seeds.join(", "), &seeds[0]);
                let advice = format!("say which, e.g. `--seeds {first}`");
                return Err(Failure::Usage(format!("{artifact}:{id} has the seeds {seeds}: {advice}")));
            }
        };
        Ok(Self { session, id: format!("{artifact}:{id}"), run, plan })
    }

    fn stage(&self, key: Key) -> &PlannedStage {
        self.plan.stage(key).expect("a plan has the stages of its cells")
    }

    /// The stage that looks at its samples.
    fn features(&self) -> (&PlannedStage, &Features) {
        let planned = self.stage(self.run.features);
        let Stage::Features(stage) = &planned.stage else { unreachable!("it is the key of features") };
        (planned, stage)
    }

    /// Its network as the authors' code has it.
    fn released(&self) -> Result<Released, Failure> {
        let planned = self.stage(self.run.sample);
        let Stage::Sample(stage) = &planned.stage else { unreachable!("it is the key of samples") };
        if self.run.trained.is_none() {
            return Err(Failure::Usage(format!("{} trains nothing: it has no patch", self.id)));
        }
        let inputs = self.inputs(planned)?;
        let file = |role: &str| inputs.get(role).map(PathBuf::as_path);
        let trained = file("trained").expect("an input of samples of what was trained");
        export::patch(stage, file("backbone"), trained).map_err(|error| error.context(self.id.clone()).into())
    }

    /// The file of a finished stage, found to be as recorded.
    fn artifact(&self, key: Key) -> Result<PathBuf, Failure> {
        let stage = &self.stage(key).stage;
        child::artifact(self.session.store(), key, stage).map_err(|(_, error)| self.not_there(&error))
    }

    /// What a stage reads, each found to be what its hash says.
    fn inputs(&self, planned: &PlannedStage) -> Result<BTreeMap<String, PathBuf>, Failure> {
        let producer = |key: Key| self.plan.stage(key);
        child::inputs(planned, producer, self.session.store()).map_err(|(_, error)| self.not_there(&error))
    }

    /// A job that does what a stage does, on the processor; it leaves nothing in the results tree.
    fn job<'j>(&'j self, planned: &'j PlannedStage) -> Result<Job<'j>, Failure> {
        static GOES_ON: AtomicBool = AtomicBool::new(false);
        Ok(Job {
            stage: &planned.stage,
            inputs: self.inputs(planned)?,
            directory: self.session.results(),
            threads: self.session.slots().cores,
            device: engine::Device::Cpu,
            progress: &|_| {},
            stop: &GOES_ON,
        })
    }

    fn not_there(&self, error: &str) -> Failure {
        let (artifact, cell) = self.id.split_once(':').unwrap_or_default();
        Failure::MissingInput(format!("{error}\n  `runner run {artifact} --cell {cell}` makes what is missing"))
    }
}
