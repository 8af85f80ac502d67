//! The one place where a stage's kind decides what runs.

use manifest::stage::Stage;

use crate::job::{EngineError, Finished, Job};
use crate::{activation, denoising, distance, embeddings, encoding, extractor, features, import, measures, sampling};

/// Executes one stage on the job's threads.
///
/// # Errors
/// [`EngineError::Interrupted`] when stopped, [`EngineError::MissingInput`] where a file or device is missing, and
/// [`EngineError::Failed`] for everything else; the working directory then holds the last checkpoint.
pub fn execute(job: &Job) -> Result<Finished, EngineError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build();
    pool.map_err(anyhow::Error::from)?.install(|| match job.stage {
        Stage::Embeddings(stage) => embeddings::embeddings(job, stage),
        Stage::Pretrain(stage) => denoising::pretrain(job, stage),
        Stage::TrainExtractor(stage) => extractor::train_extractor(job, stage),
        Stage::Encode(stage) => encoding::encode(job, stage),
        Stage::Train(stage) => denoising::train(job, stage),
        Stage::Import(stage) => import::import(job, stage),
        Stage::Sample(stage) => sampling::sample(job, stage),
        Stage::Decode(stage) => encoding::decode(job, stage),
        Stage::Features(stage) => features::features(job, stage),
        Stage::Statistics(stage) => distance::statistics(job, stage),
        Stage::Metrics(stage) => distance::metrics(job, stage),
        Stage::Extrapolation(stage) => measures::extrapolation(job, stage),
        Stage::Coverage(stage) => measures::coverage(job, stage),
        Stage::InceptionScore(stage) => measures::inception_score(job, stage),
        Stage::Similarity(stage) => measures::similarity(job, stage),
        Stage::Activation(stage) => activation::activation(job, stage),
    })
}
