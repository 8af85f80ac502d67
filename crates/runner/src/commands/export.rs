//! `runner export`: what a cell has made, in files that others' tools read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::{Job, export};
use manifest::digest::Key;
use manifest::plan::{CellRun, Plan, PlannedStage};
use manifest::stage::{Features, Stage};

use super::show::artifact_and_cell;
use crate::child;
use crate::cli::{Export, ExportCommand};
use crate::exit::{Exit, Failure};
use crate::session::Session;

/// Writes what was asked for.
///
/// # Errors
/// When there is no such cell, it has not run, or the file is there already or cannot be written.
pub(crate) fn run(session: &Session, command: &ExportCommand) -> Result<Exit, Failure> {
    let (ExportCommand::Samples(asked) | ExportCommand::Statistics(asked)) = command;
    let Export { cell, to } = asked;
    free(to)?;
    let cell = Ran::find(session, cell)?;
    let (planned, stage) = cell.features();
    let (count, what) = match command {
        ExportCommand::Samples(_) => (export::samples(&cell.job(planned)?, stage, to)?, "samples"),
        ExportCommand::Statistics(_) => {
            let features = cell.artifact(cell.run.features)?;
            (export::statistics(&features, &stage.extractor, to)?, "features, their mean and covariance")
        }
    };
    let object = serde_json::json!({"file": to, "cell": cell.id, "seed": cell.run.seed, "count": count});
    session.output.emit(&object, format!("{}: {count} {what} of {} seed {}", to.display(), cell.id, cell.run.seed))?;
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
