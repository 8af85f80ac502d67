//! Captions as sequences of tokens, as the stages of a UNet read them: on disk, of which few captions at a time are looked at.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use candle_core::{Device, Tensor};
use manifest::unet::UnetConfig;
use safetensors::Dtype;

use crate::job::{EngineError, Job};
use crate::mapped::{Mapped, floats};

/// The artifact of a stage `embeddings` of tokens.
pub struct Sequences {
    file: Mapped,
    /// The place of `[captions + 1, tokens, W]`, the null caption's last.
    place: Range<usize>,
    rows: usize,
    tokens: usize,
    width: usize,
    /// The caption of each image of the dataset, as a label; empty where the captions belong to no images.
    pub of_images: Vec<u32>,
}

impl Sequences {
    /// The job's input `embeddings`.
    ///
    /// # Errors
    /// The input is missing, damaged, or of another width than the network's context.
    pub fn open(job: &Job, unet: &UnetConfig) -> Result<Self, EngineError> {
        let path = job.input("embeddings")?;
        let read = || -> Result<Self> {
            let file = Mapped::open(path)?;
            let (shape, place) = file.place("embeddings", Dtype::F32)?;
            let &[rows, tokens, width] = shape.as_slice() else {
                bail!("{}: the embeddings of tokens have shape {shape:?}", path.display())
            };
            ensure!(rows > 0, "{}: there is no null caption", path.display());
            let (found, expected) = (format!("{}: tokens have width {width}", path.display()), unet.context);
            ensure!(width == expected, "{found}, but the network attends to {expected}");
            let of_images = crate::captions::of_images(&file, path, rows - 1)?;
            Ok(Self { file, place, rows, tokens, width, of_images })
        };
        Ok(read()?)
    }

    /// Number of captions; the null caption's label.
    pub fn null(&self) -> u32 {
        self.rows as u32 - 1
    }

    /// What images attend to under `labels` `[B]`: `[B, tokens, W]`.
    ///
    /// # Errors
    /// A label beyond the captions.
    pub fn context(&self, labels: &[u32], device: &Device) -> Result<Tensor> {
        let bytes = self.tokens * self.width * size_of::<f32>();
        let mut values = Vec::with_capacity(labels.len() * self.tokens * self.width);
        for &label in labels {
            ensure!(label <= self.null(), "there is no caption {label} among {}", self.null());
            let start = self.place.start + label as usize * bytes;
            values.extend(floats(self.file.bytes(start..start + bytes)));
        }
        Ok(Tensor::from_vec(values, (labels.len(), self.tokens, self.width), device)?)
    }
}
