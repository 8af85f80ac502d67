//! Embedded captions, as the stages of a text-conditional network read them: over them it is a class-conditional one.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use data::Examples;
use manifest::dit::DitConfig;
use models::dit::{LABEL_TABLE, PROJECTION, label_table};
use models::weights::{self, Weights};
use random::Draws;
use safetensors::Dtype;

use crate::artifact;
use crate::job::{EngineError, Job};
use crate::mapped::Mapped;

/// The artifact of a stage `embeddings`.
pub struct Captions {
    /// `[captions + 1, W]`, the null caption's last.
    pub(crate) embeddings: Tensor,
    /// The caption of each image of the dataset, as a label; empty where the captions belong to no images.
    pub of_images: Vec<u32>,
}

impl Captions {
    /// The job's input `embeddings`; `None` for a network that is not conditioned on text.
    ///
    /// # Errors
    /// The input is missing, damaged, or of another width than the network's.
    pub fn open(job: &Job, dit: &DitConfig) -> Result<Option<Self>, EngineError> {
        let Some(expected) = dit.text_width else { return Ok(None) };
        let path = job.input("embeddings")?;
        let read = || -> Result<Self> {
            let (shape, bytes) = artifact::read(path, "embeddings", Dtype::F32)?;
            let &[rows, width] = shape.as_slice() else {
                anyhow::bail!("{}: embeddings have shape {shape:?}", path.display())
            };
            ensure!(rows > 0, "{}: there is no null caption", path.display());
            let found = format!("{}: embeddings have width {width}", path.display());
            ensure!(width == expected, "{found}, but the network reads {expected}");
            let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let of_images = of_images(&Mapped::open(path)?, path, rows - 1)?;
            Ok(Self { embeddings: Tensor::from_vec(values, (rows, width), &Device::Cpu)?, of_images })
        };
        Ok(Some(read()?))
    }

    /// The class-conditional network that a text-conditional one is over these captions.
    pub fn network(&self, dit: &DitConfig) -> DitConfig {
        dit.over_captions(self.embeddings.dims()[0] - 1)
    }

    /// What a job of a trained network runs: the class-conditional network over its captions, `weights` changed to fit, and
    /// the caption of each image; `dit` itself and none where text does not condition it.
    ///
    /// # Errors
    /// As [`Captions::open`] and [`Captions::condition`].
    pub fn resolve(
        job: &Job,
        dit: &DitConfig,
        weights: [&mut Weights; 2],
    ) -> Result<(DitConfig, Vec<u32>), EngineError> {
        let Some(captions) = Self::open(job, dit)? else { return Ok((dit.clone(), Vec::new())) };
        captions.condition(dit, weights)?;
        Ok((captions.network(dit), captions.of_images))
    }

    /// The captions' embeddings for some labels, `[B, W]`.
    ///
    /// # Errors
    /// A label beyond them.
    pub fn rows(&self, labels: &[u32]) -> Result<Tensor> {
        Ok(self.embeddings.index_select(&Tensor::new(labels, &Device::Cpu)?, 0)?)
    }

    /// Puts the label table over these captions in the place of the projection, in each of the weights that holds one: where
    /// everything was trained, backbone and trained weights both do.
    ///
    /// # Errors
    /// None of them does: they are not those of a network that is conditioned on text.
    pub fn condition<const N: usize>(&self, dit: &DitConfig, weights: [&mut Weights; N]) -> Result<()> {
        let rows = self.embeddings.narrow(0, 0, self.network(dit).label_rows())?;
        let mut found = false;
        for own in weights.into_iter().filter(|weights| weights.contains_key(PROJECTION[0])) {
            let layer: Weights = PROJECTION.iter().filter_map(|name| own.remove_entry(*name)).collect();
            let layer = weights::constants(&layer, DType::F32, &Device::Cpu)?;
            let [weight, bias] = PROJECTION.map(|name| layer.get(name).with_context(|| format!("no {name}")));
            let table = [(LABEL_TABLE.to_owned(), label_table(&rows, weight?, bias?)?)].into();
            own.extend(weights::from_tensors(&table)?);
            found = true;
        }
        ensure!(found, "these are not the weights of a DiT that is conditioned on text: no {}", PROJECTION[0]);
        Ok(())
    }
}

/// The caption of each image of an artifact that embeds `captions` of them.
///
/// # Errors
/// The file is damaged, or an image has a caption that it does not embed.
pub fn of_images(file: &Mapped, path: &Path, captions: usize) -> Result<Vec<u32>> {
    let (_, place) = file.place("captions", Dtype::I64)?;
    let numbers = file.bytes(place).as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32);
    let of_images: Vec<u32> = numbers.collect();
    let beyond = of_images.iter().any(|&caption| caption as usize >= captions);
    ensure!(!beyond, "{}: an image has a caption that is not embedded", path.display());
    Ok(of_images)
}

/// Examples with the captions of their images as labels.
///
/// # Errors
/// They are of other images than those whose captions were embedded.
pub fn label<'a>(examples: Box<dyn Examples + 'a>, of_images: &[u32]) -> Result<Box<dyn Examples + 'a>> {
    let (ours, theirs) = (of_images.len(), examples.count());
    ensure!(ours == theirs, "captions of {ours} images were embedded, but there are {theirs} images");
    Ok(Box::new(Captioned { examples, labels: of_images.to_vec() }))
}

/// Examples whose labels are captions.
struct Captioned<'a> {
    examples: Box<dyn Examples + 'a>,
    labels: Vec<u32>,
}

impl Examples for Captioned<'_> {
    fn count(&self) -> usize {
        self.examples.count()
    }

    fn elements(&self) -> usize {
        self.examples.elements()
    }

    fn labels(&self) -> Option<&[u32]> {
        Some(&self.labels)
    }

    fn example(&self, index: usize, flip: bool, noise: &Draws, first: u64, out: &mut [f32]) {
        self.examples.example(index, flip, noise, first, out);
    }

    fn scale(&self) -> Option<f32> {
        self.examples.scale()
    }

    fn moments(&self, index: usize, flip: bool, mean: &mut [f32], deviation: &mut [f32]) {
        self.examples.moments(index, flip, mean, deviation);
    }
}
