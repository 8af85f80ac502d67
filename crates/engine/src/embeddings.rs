//! The stage `embeddings`: CLIP's text encoder reads captions.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use manifest::dataset::Source;
use manifest::plan::Input;
use manifest::stage::{self, Captions};
use manifest::text::{ClipFormula, TextNetwork, TextVectors};
use models::clip::{self, ClipText, ClipTextConfig, Tokenizer};
use models::weights::{self, WeightFile, names::Family};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::artifact;
use crate::job::{EngineError, Finished, Job};
use crate::mapped::floats;
use crate::parts::Parts;

/// Captions of a part.
const BATCH: usize = 64;
/// Captions that one thread encodes at once. The embeddings do not depend on the number of threads.
const PART: usize = 16;

/// Embeds captions, each once: `embeddings` f32 `[captions + 1, W]`, or of tokens `[captions + 1, tokens, W]`, the null
/// caption's (that of the empty text) last, and `captions` i64 `[images]`, which of them each image has; empty where they are
/// listed. Parts that are finished are kept: a killed stage goes on at the next one, to the same bits.
///
/// # Errors
/// An input is missing or not what it claims to be, an image has no caption; [`EngineError::Interrupted`] with all finished
/// parts kept.
pub fn embeddings(job: &Job, stage: &stage::Embeddings) -> Result<Finished, EngineError> {
    let (captions, of_images) = match &stage.captions {
        Captions::Of(source) => distinct(captions(job, source)?),
        Captions::Listed(captions) => (captions.clone(), Vec::new()),
    };
    let device = job.tensor_device()?;
    let encoder = Encoder::open(job, &stage.encoder, stage.of, &device)?;
    let texts: Vec<&str> = captions.iter().map(String::as_str).chain([""]).collect();
    let (count, bytes) = (texts.len(), encoder.shape(1).iter().product::<usize>() * size_of::<f32>());
    let parts = Parts { job, name: "embeddings", unit: "captions", count, size: BATCH, bytes };
    for range in parts.left() {
        if job.stopping() {
            return Err(EngineError::Interrupted);
        }
        let first = range.start;
        let vectors = texts[range].par_chunks(PART).map(|part| encoder.embed(part, &device));
        let vectors = vectors.collect::<Result<Vec<_>>>().context("cannot read the captions")?.concat();
        parts.keep(first, &vectors.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    let rows = parts.all().map(|part| {
        let part = part?;
        ensure!(floats(&part).all(f32::is_finite), "the embeddings of {count} captions are not finite: other weights?");
        Ok(part)
    });
    let indices = of_images.iter().flat_map(|i| i.to_le_bytes()).collect();
    let tensors = [("captions", Dtype::I64, vec![of_images.len()]), ("embeddings", Dtype::F32, encoder.shape(count))];
    artifact::write_parts(
        &job.directory.join(artifact::EMBEDDINGS),
        &tensors,
        std::iter::once(Ok(indices)).chain(rows),
    )?;
    parts.remove()?;
    let metrics = BTreeMap::from([("captions".to_owned(), captions.len() as f64)]);
    Ok(Finished { metrics, ..Finished::completed(artifact::EMBEDDINGS) })
}

/// The captions of a dataset's images; no image is decoded.
fn captions(job: &Job, source: &Source) -> Result<Vec<String>, EngineError> {
    let failed = |error: data::Error| EngineError::Failed(error.into());
    let captions = match source {
        Source::Faces(faces) => Some(data::faces::captions(faces.first, faces.count)),
        Source::Captions { image_size } => {
            data::captions::open(job.input("captions")?, job.input("folder")?, *image_size).map_err(failed)?.captions
        }
        Source::WebDataset { image_size } => {
            data::shards::open(job.input("shards")?, *image_size).map_err(failed)?.captions
        }
        Source::Idx { .. } | Source::ImageFolder { .. } | Source::ClassFolders { .. } | Source::Npz { .. } => None,
    };
    Ok(captions.context("these images have no captions; use `kind: captions`, `web_dataset` or `faces`")?)
}

/// Each caption once, in the order of their bytes, and which of them each image has.
fn distinct(captions: Vec<String>) -> (Vec<String>, Vec<i64>) {
    let mut once = captions.clone();
    once.sort();
    once.dedup();
    let place = |caption: &String| once.binary_search(caption).expect("it is among them") as i64;
    let of_images = captions.iter().map(place).collect();
    (once, of_images)
}

/// Text to vectors.
struct Encoder {
    tokenizer: Tokenizer,
    clip: ClipText,
    of: TextVectors,
}

impl Encoder {
    fn open(job: &Job, network: &TextNetwork, of: TextVectors, device: &Device) -> Result<Self, EngineError> {
        let (config, weights, tokenizer) = match network {
            TextNetwork::Clip => {
                let weights = open_clip(job.input("encoder")?)?.read().map_err(anyhow::Error::from)?;
                let tokenizer = Tokenizer::read(job.input("vocabulary")?).map_err(anyhow::Error::from)?;
                (ClipTextConfig::vit_l_14(), weights, tokenizer)
            }
            TextNetwork::ClipFormula(ClipFormula { width, depth, heads }) => {
                let config = ClipTextConfig::over_bytes(*width, *depth, *heads);
                let weights = clip::formula_weights(&config).map_err(anyhow::Error::from)?;
                (config, weights, Tokenizer::of_bytes())
            }
        };
        let clip = weights::constants(&weights, DType::F32, device).and_then(|w| ClipText::new(&config, &w));
        Ok(Self { tokenizer, clip: clip.map_err(anyhow::Error::from)?, of })
    }

    /// Shape of the vectors of `rows` captions.
    fn shape(&self, rows: usize) -> Vec<usize> {
        let config = self.clip.config();
        match self.of {
            TextVectors::Pooled => vec![rows, config.width],
            TextVectors::Tokens => vec![rows, config.positions, config.width],
        }
    }

    /// Their vectors, one behind the other. A caption that has more tokens than the encoder has positions is cut.
    fn embed(&self, captions: &[&str], device: &Device) -> Result<Vec<f32>> {
        let positions = self.clip.config().positions;
        let ids: Vec<u32> = captions.iter().flat_map(|caption| self.tokenizer.encode(caption, positions)).collect();
        let ids = Tensor::from_vec(ids, (captions.len(), positions), device)?;
        let said = self.clip.forward(&ids)?;
        let vectors = match self.of {
            TextVectors::Pooled => said.pooled,
            TextVectors::Tokens => said.tokens,
        };
        Ok(vectors.flatten_all()?.to_vec1()?)
    }
}

/// A file that holds the text encoder of CLIP ViT-L/14, alone or among Stable Diffusion's networks. No number is read.
fn open_clip(path: &Path) -> Result<WeightFile> {
    let mut file = WeightFile::open(path, None)?;
    file.translate(Family::ClipText);
    file.keep(&clip::named_shapes(&ClipTextConfig::vit_l_14())?)?;
    Ok(file)
}

/// Looks into the encoder's files before anything runs.
///
/// # Errors
/// As [`crate::inspect`].
pub(crate) fn inspect(inputs: &BTreeMap<String, Input>) -> Result<()> {
    if let Some(Input::File { path, .. }) = inputs.get("encoder") {
        open_clip(path)?;
    }
    if let Some(Input::File { path, .. }) = inputs.get("vocabulary") {
        Tokenizer::read(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_numbered_once_in_the_order_of_their_bytes() {
        let captions = ["b", "a", "b", "A"].map(str::to_owned).to_vec();
        let (once, of_images) = distinct(captions);
        assert_eq!((once, of_images), (["A", "a", "b"].map(str::to_owned).to_vec(), vec![2, 1, 2, 0]));
    }
}
