//! What a stage is given, what it reports while it runs, and what it leaves behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use manifest::stage::Stage;

use crate::causes;
use crate::losses::Losses;

/// Where tensors live. Only its kind (cpu or cuda) is part of a stage's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
}

impl Device {
    /// The device as candle knows it.
    pub(crate) fn tensors(self) -> Result<candle_core::Device, EngineError> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda(number) => candle_core::Device::new_cuda(number).map_err(|error| self.missing(&error)),
        }
    }

    /// That there is no such device, and what to do.
    pub(crate) fn missing(self, reason: &dyn std::fmt::Display) -> EngineError {
        let name = match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Cuda(number) => format!("cuda:{number}"),
        };
        let advice = "use --device cpu, or a runner built with --features cuda on a machine with that GPU";
        EngineError::MissingInput(format!("no device {name} ({reason}): {advice}"))
    }
}

/// One stage to execute.
pub struct Job<'a> {
    /// Its parameters.
    pub stage: &'a Stage,
    /// Input files by role (`backbone`, `trained`, `latents`, `autoencoder`, `samples`, `extractor`, `features`, `reference`,
    /// `images`, `labels`, `folder`, `captions`, `shards`, `encoder`, `vocabulary`, `embeddings`).
    pub inputs: BTreeMap<String, PathBuf>,
    /// Working directory: checkpoints are kept and artifacts left here.
    pub directory: &'a Path,
    /// Threads to use; the result does not depend on it.
    pub threads: usize,
    /// Where tensors live.
    pub device: Device,
    /// Called a few times a second at most.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Set from outside to stop: the stage saves its state and returns [`EngineError::Interrupted`].
    pub stop: &'a AtomicBool,
}

impl Job<'_> {
    /// Whether the stage was asked to stop.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The device as candle knows it.
    pub(crate) fn tensor_device(&self) -> Result<candle_core::Device, EngineError> {
        self.device.tensors()
    }

    /// The input file of a role.
    pub(crate) fn input(&self, role: &str) -> Result<&Path, EngineError> {
        let path = self.inputs.get(role).ok_or_else(|| EngineError::MissingInput(format!("no input `{role}`")))?;
        Ok(path)
    }
}

impl Progress {
    /// Least time between two reports.
    pub(crate) const INTERVAL: std::time::Duration = std::time::Duration::from_millis(250);
}

/// How far a stage is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Units done, those of earlier attempts included.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What is counted: `iterations`, `images`.
    pub unit: &'static str,
    /// A short note, e.g. the running loss.
    pub note: String,
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As planned.
    Completed,
    /// The loss was not finite: a result, not a failure. Stages that need its weights cannot run.
    Diverged {
        /// The first iteration whose loss was not finite.
        iteration: usize,
    },
}

/// Losses at one iteration of training (means over the iterations since the last point).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// Iterations done.
    pub iteration: u64,
    /// Learning rate of the prompts (or of all weights).
    pub learning_rate: f64,
    /// The losses.
    pub losses: Losses,
}

/// What a stage leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// Names of the artifacts in the working directory.
    pub artifacts: Vec<String>,
    /// Numbers by name (finite).
    pub metrics: BTreeMap<String, f64>,
    /// The training curve; empty for stages that do not train.
    pub curve: Vec<CurvePoint>,
}

impl Finished {
    /// A completed stage with one artifact and no numbers.
    pub(crate) fn completed(artifact: &str) -> Self {
        let artifacts = vec![artifact.to_owned()];
        Self { outcome: Outcome::Completed, artifacts, metrics: BTreeMap::new(), curve: Vec::new() }
    }

    /// A completed stage that leaves numbers alone.
    pub(crate) fn measured(metrics: BTreeMap<String, f64>) -> Self {
        Self { outcome: Outcome::Completed, artifacts: Vec::new(), metrics, curve: Vec::new() }
    }

    /// A training run that diverged.
    pub(crate) fn diverged(iteration: usize, curve: Vec<CurvePoint>) -> Self {
        let outcome = Outcome::Diverged { iteration };
        Self { outcome, artifacts: Vec::new(), metrics: BTreeMap::new(), curve }
    }
}

/// Why a stage did not finish.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It was asked to stop; its state is saved.
    #[error("interrupted; the state is saved and the next run goes on from it")]
    Interrupted,
    /// A file or a device is missing.
    #[error("{0}")]
    MissingInput(String),
    /// Anything else.
    #[error("{}", causes(.0))]
    Failed(#[from] anyhow::Error),
}
