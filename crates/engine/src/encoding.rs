//! The stages between images and latents: `encode` (a dataset to moments, shard by shard) and `decode` (the first samples
//! to images).

use anyhow::ensure;
use data::Images;
use manifest::stage;

use crate::artifact;
use crate::autoencoder::Autoencoder;
use crate::decoder::Decoder;
use crate::images::Reader;
use crate::job::{EngineError, Finished, Job, Progress};
use crate::latents::{LATENTS, Shape, has_shard, shard_name, write_index, write_shard};
use crate::samples::Samples;

/// Encodes all images, mirrored ones too where that is asked for. Each shard that is there stays: a killed stage goes on at
/// the next one, to the same bits.
///
/// # Errors
/// Those of the data and of the autoencoder's file; the side of the images is no multiple of what it divides sides by;
/// [`EngineError::Interrupted`] with all finished shards kept.
pub fn encode(job: &Job, stage: &stage::Encode) -> Result<Finished, EngineError> {
    let reader = Reader::open(job, &stage.data)?;
    let autoencoder = Autoencoder::open(job, &stage.autoencoder)?;
    let (side, divisor) = (stage.data.image_size(), autoencoder.shape().downsampling());
    let shape = Shape {
        images: reader.len(),
        orientations: if stage.horizontal_flip { 2 } else { 1 },
        channels: autoencoder.shape().latent_channels,
        side: side / divisor,
    };
    let whole = || -> anyhow::Result<()> {
        ensure!(side % divisor == 0, "images of side {side} have no latents: it is no multiple of {divisor}");
        Ok(())
    };
    whole()?;
    let report = |done: usize| {
        (job.progress)(Progress { done: done as u64, total: shape.images as u64, unit: "images", note: String::new() });
    };
    for shard in 0..shape.shards() {
        let range = shape.of_shard(shard);
        if !has_shard(job.directory, shape, shard) {
            let mut moments = [Vec::new(), Vec::new()];
            // One for each thread: more would only make stopping slow.
            reader.each(range.clone(), rayon::current_num_threads(), |first, images| {
                if job.stopping() {
                    return Err(EngineError::Interrupted);
                }
                let part = autoencoder.encode(&images, stage.horizontal_flip)?;
                moments.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
                report(first + images.len());
                Ok(())
            })?;
            write_shard(job.directory, shape, shard, &moments)?;
        }
        report(range.end);
    }
    write_index(job.directory, shape, reader.labels())?;
    let mut finished = Finished::completed(LATENTS);
    finished.artifacts.extend((0..shape.shards()).map(shard_name));
    finished.metrics.insert("images".to_owned(), shape.images as f64);
    Ok(finished)
}

/// Decodes the first samples.
///
/// # Errors
/// The samples or the autoencoder's file are missing or damaged; as [`Decoder::open`].
pub fn decode(job: &Job, stage: &stage::Decode) -> Result<Finished, EngineError> {
    let samples = Samples::open(job.input("samples")?)?;
    let mut decoder = Decoder::open(job, &stage.latents, samples.side(), &stage.numerics)?;
    let count = stage.count.min(samples.len());
    let (mut pixels, at_once) = (Vec::new(), decoder.at_once());
    for first in (0..count).step_by(at_once) {
        if job.stopping() {
            return Err(EngineError::Interrupted);
        }
        let range = first..(first + at_once).min(count);
        let (done, total) = (range.end as u64, count as u64);
        pixels.extend(decoder.decode(&samples.latents(range)?)?.pixels);
        (job.progress)(Progress { done, total, unit: "images", note: String::new() });
    }
    let (channels, side) = decoder.image();
    let images = Images::new(channels, side, pixels);
    artifact::write_images(&job.directory.join(artifact::SAMPLES), &images)?;
    Ok(Finished::completed(artifact::SAMPLES))
}
