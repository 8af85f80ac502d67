//! A stage's images: the one place where a manifest's `Source` becomes a dataset in memory.

use data::{Images, Photographs};
use manifest::dataset::{Faces, Source};

use crate::job::{EngineError, Job};

/// Reads or draws the images of `source`; its files are inputs of the job.
///
/// # Errors
/// A file is missing or not what it claims to be.
pub fn open(job: &Job, source: &Source) -> Result<Images, EngineError> {
    let failed = |error: data::Error| EngineError::Failed(error.into());
    let loaded = |photographs: data::Result<Photographs>| photographs.and_then(Photographs::load).map_err(failed);
    match source {
        Source::Faces(Faces { image_size, first, count }) => Ok(data::faces::faces(*image_size, *first, *count)),
        Source::Idx { image_size, first, count } => {
            data::idx::load(job.input("images")?, job.input("labels")?, *image_size, *first, *count).map_err(failed)
        }
        Source::ImageFolder { image_size } => loaded(data::folder::open(job.input("folder")?, *image_size)),
        Source::ClassFolders { image_size } => loaded(data::folder::open_classes(job.input("folder")?, *image_size)),
        Source::Captions { image_size } => {
            loaded(data::captions::open(job.input("captions")?, job.input("folder")?, *image_size))
        }
        Source::WebDataset { image_size } => loaded(data::shards::open(job.input("shards")?, *image_size)),
    }
}
