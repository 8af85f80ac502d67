//! Precision and recall of as many samples as the paper draws, by the stage `coverage`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use manifest::stage::{Coverage, Stage};
use random::{Draws, Stream};
use safetensors::Dtype;
use tempfile::TempDir;

use super::work::Work;
use super::{Repeat, Setting};
use crate::job::{Device, EngineError, Job};
use crate::{artifact, measures};

/// Rows that are drawn at once.
const ROWS: usize = 1000;

/// Two sets of random features on disk, as the stage finds them.
pub struct Features {
    folder: TempDir,
    threads: usize,
}

impl Features {
    /// Draws them; one part is in memory at a time.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(setting: &Setting) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for (step, role) in ROLES.into_iter().enumerate() {
            let part = |first: usize| {
                let mut values = vec![0.0_f32; ROWS * Work::FEATURES];
                Draws::new(step as u64, Stream::Factors, first as u64).fill_normal(0, &mut values);
                Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
            };
            let tensors = [("features", Dtype::F32, vec![Work::SAMPLES, Work::FEATURES])];
            let parts = (0..Work::SAMPLES).step_by(ROWS).map(part);
            artifact::write_parts(&folder.path().join(role), &tensors, parts)?;
        }
        Ok(Self { folder, threads: setting.threads })
    }
}

const ROLES: [&str; 2] = ["features", "reference"];

impl Repeat for Features {
    fn warm_up(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let coverage = Coverage { neighbours: 3 };
        let input = |role: &str| (role.to_owned(), self.folder.path().join(role));
        let job = Job {
            stage: &Stage::Coverage(coverage.clone()),
            inputs: BTreeMap::from(ROLES.map(input)),
            directory: Path::new("."),
            threads: self.threads,
            device: Device::Cpu,
            progress: &|_| {},
            stop: &AtomicBool::new(false),
        };
        measures::coverage(&job, &coverage)?;
        Ok(())
    }
}
