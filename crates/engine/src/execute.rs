//! The one place where a stage's kind decides what runs.

use manifest::stage::Stage;

use crate::job::{EngineError, Finished, Job};
use crate::{activation, denoising, distance, extractor, sampling};

/// Executes one stage on the job's threads.
///
/// # Errors
/// [`EngineError::Interrupted`] when stopped, [`EngineError::MissingInput`] where a file or device is missing, and
/// [`EngineError::Failed`] for everything else; the working directory then holds the last checkpoint.
pub fn execute(job: &Job) -> Result<Finished, EngineError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build();
    pool.map_err(anyhow::Error::from)?.install(|| match job.stage {
        Stage::Pretrain(stage) => denoising::pretrain(job, stage),
        Stage::TrainExtractor(stage) => extractor::train_extractor(job, stage),
        Stage::Train(stage) => denoising::train(job, stage),
        Stage::Sample(stage) => sampling::sample(job, stage),
        Stage::Features(stage) => extractor::features(job, stage),
        Stage::Statistics(_) => distance::statistics(job),
        Stage::Metrics(stage) => distance::metrics(job, stage),
        Stage::Activation(stage) => activation::activation(job, stage),
    })
}
