//! What was typed, as it stands here: the repository, its plans, the results tree, the slots.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifest::plan::Plan;
use manifest::scale::{DeviceKind, Engine};
use manifest::{Request, Workspace};
use store::Store;

use crate::cli::{EngineName, Mode, Options};
use crate::device::Device;
use crate::executor::Slots;
use crate::exit::Failure;
use crate::output::Output;

/// Whether a command writes to the results tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It looks.
    Read,
    /// It runs stages.
    Write,
}

/// Artifacts of which nothing can be run here, and why.
pub(crate) type LeftOut = Vec<(String, manifest::Error)>;

/// A repository with its results tree, and the options that were typed.
pub(crate) struct Session {
    /// The options.
    pub(crate) options: Options,
    /// Standard output.
    pub(crate) output: Output,
    workspace: Workspace,
    store: Arc<Store>,
    reports: PathBuf,
}

impl Session {
    /// Finds the repository and opens its results tree.
    ///
    /// # Errors
    /// Outside of a repository, and where the results tree cannot be used.
    pub(crate) fn open(options: Options, access: Access) -> Result<Self, Failure> {
        let workspace = workspace(&options)?;
        let absolute = |typed: &Option<PathBuf>, usual: &str| {
            let path = typed.clone().unwrap_or_else(|| workspace.root().join(usual));
            std::path::absolute(path).map_err(anyhow::Error::from)
        };
        let (results, reports) = (absolute(&options.results, "results")?, absolute(&options.reports, "reports")?);
        let store = match access {
            Access::Write if options.mode != Mode::ReadOnly => Store::open(&results)?,
            Access::Read | Access::Write => Store::open_read_only(&results)?,
        };
        let store = Arc::new(store);
        let hashed = Arc::clone(&store);
        let hash = move |path: &Path| Ok(hashed.hashes().sha256(path)?);
        let output = Output::new(options.json);
        Ok(Self { options, output, workspace: workspace.with_hash(Box::new(hash)), store, reports })
    }

    /// The folder that holds `experiments/`.
    pub(crate) fn root(&self) -> &Path {
        self.workspace.root()
    }

    /// The results tree.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Where the results tree lies.
    pub(crate) fn results(&self) -> &Path {
        self.store.tree().root()
    }

    /// Where reports are written.
    pub(crate) fn reports(&self) -> &Path {
        &self.reports
    }

    /// The repository's manifests.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// What becomes of stages that were run before.
    pub(crate) fn mode(&self) -> Mode {
        self.options.mode
    }

    /// Plans an artifact or a recipe at the scale, with the overrides and seeds that were typed.
    ///
    /// # Errors
    /// When a manifest or an option is wrong, or data is missing.
    pub(crate) fn plan(&self, name: &str) -> Result<Plan, Failure> {
        self.plan_at(name, &self.options.scale)
    }

    /// As [`Session::plan`], at another scale.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub(crate) fn plan_at(&self, name: &str, scale: &str) -> Result<Plan, Failure> {
        let seeds = self.options.seeds.as_ref().map(|seeds| seeds.as_slice().to_vec());
        let mut request = Request { scale: scale.to_owned(), overrides: self.options.set.clone(), seeds };
        let plan = self.workspace.load(name, &request)?;
        // An option that says what the scale says anyway is no override: it would change the report's name.
        let numerics = plan.tables.first().map(|table| &table.scale.numerics);
        let Some(key) = plan.numerics_key() else { return Ok(plan) };
        if let Some(device) = self.options.device.map(kind)
            && numerics.is_none_or(|numerics| numerics.device != device)
        {
            request.overrides.push(format!("{key}.device={}", spelt(&device)));
        }
        // The fast engine has not run on a GPU yet: it is taken there by those who ask for it.
        let moved = |device: &DeviceKind| {
            *device == DeviceKind::Cuda && numerics.is_none_or(|numerics| numerics.device != DeviceKind::Cuda)
        };
        let usual = self.options.device.map(kind).filter(moved).map(|_| Engine::Reference);
        if let Some(engine) = self.options.engine.map(implementation).or(usual)
            && numerics.is_none_or(|numerics| numerics.engine != engine)
        {
            request.overrides.push(format!("{key}.engine={}", spelt(&engine)));
        }
        match request.overrides.len() == self.options.set.len() {
            true => Ok(plan),
            false => Ok(self.workspace.load(name, &request)?),
        }
    }

    /// Plans several; `all` is every artifact that can be run here, and of the others it is said why not.
    ///
    /// # Errors
    /// As [`Session::plan`], also where nothing of `all` can be run.
    pub(crate) fn plans(&self, names: &[String]) -> Result<Vec<Plan>, Failure> {
        let mut plans = Vec::new();
        for name in names {
            if name != "all" {
                plans.push(self.plan(name)?);
                continue;
            }
            let (all, mut left_out) = self.everything()?;
            if all.is_empty()
                && let Some((_, why)) = left_out.pop()
            {
                return Err(why.into());
            }
            self.say_left_out(&left_out);
            plans.extend(all);
        }
        Ok(plans)
    }

    /// Plans every artifact; those of which nothing can be run, for want of data or weights, come with the reason.
    ///
    /// # Errors
    /// As [`Session::plan`], but for what is missing.
    pub(crate) fn everything(&self) -> Result<(Vec<Plan>, LeftOut), Failure> {
        let (mut plans, mut left_out) = (Vec::new(), Vec::new());
        for artifact in self.workspace.artifacts() {
            match self.plan(&artifact) {
                Ok(plan) => plans.push(plan),
                Err(Failure::Manifest(why @ manifest::Error::Missing(_))) => left_out.push((artifact, why)),
                Err(error) => return Err(error),
            }
        }
        Ok((plans, left_out))
    }

    /// Says what is not run, and why.
    pub(crate) fn say_left_out(&self, left_out: &LeftOut) {
        for (name, why) in left_out {
            self.say(format_args!("{name} is not run: {why}"));
        }
    }

    /// How much may run at once. A GPU is one slot.
    pub(crate) fn slots(&self) -> Slots {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let usual = if self.device() == Device::Cpu { cores } else { 1 };
        Slots { jobs: self.options.jobs.map_or(usual, usize::from), cores }
    }

    /// Where tensors live.
    pub(crate) fn device(&self) -> Device {
        self.options.device.unwrap_or(Device::Cpu)
    }

    /// Says something to people, on standard error.
    pub(crate) fn say(&self, line: impl std::fmt::Display) {
        // A closed standard error is nobody's loss.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// Whether the folder of an option (`reports`) can be written. Nothing stays behind, not even the folder.
///
/// # Errors
/// Why not, and what to do.
pub(crate) fn writable(option: &str, folder: &Path) -> Result<(), String> {
    let tried = tempfile::Builder::new().prefix(".writable-").tempfile_in(nearest_existing(folder));
    let why = |error| format!("{} cannot be written: {error}; give another with `--{option} DIR`", folder.display());
    tried.map(|_| ()).map_err(why)
}

/// The folder, or the nearest above it that is there.
pub(crate) fn nearest_existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

fn kind(device: Device) -> DeviceKind {
    match device {
        Device::Cpu => DeviceKind::Cpu,
        Device::Cuda(_) => DeviceKind::Cuda,
    }
}

fn implementation(engine: EngineName) -> Engine {
    match engine {
        EngineName::Reference => Engine::Reference,
        EngineName::Fast => Engine::Fast,
    }
}

/// A choice as manifests spell it.
fn spelt(choice: &impl serde::Serialize) -> String {
    serde_json::to_value(choice).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The repository: `--root`, or the nearest folder upwards that holds `experiments/`.
///
/// # Errors
/// Outside of a repository.
pub(crate) fn workspace(options: &Options) -> Result<Workspace, Failure> {
    match &options.root {
        Some(root) => Ok(Workspace::open(root)?),
        None => Ok(Workspace::find(&std::env::current_dir().map_err(anyhow::Error::from)?)?),
    }
}
