//! What a run made, as others' tools read it: ADM's evaluator, pytorch-fid, the authors' code.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use data::Images;
use manifest::denoiser::Denoiser;
use manifest::extractor::FeatureNetwork;
use manifest::stage::{FeatureKind, Features, Sample};
use metrics::Gaussian;
use metrics::npz::{Storage, Writer};
use models::weights::{self, WeightFile};
pub use patches::Released;

use crate::archive::{IMAGES, arrays};
use crate::artifact;
use crate::extractor::PART;
use crate::job::Job;
use crate::pictures::Pictures;

/// Writes the images that a stage looks at as `arr_0`, unsigned bytes `[n, side, side, 3]`, which ADM's evaluator reads: samples in
/// latents are decoded on the way, grey images have three channels alike. Returns how many there are.
///
/// # Errors
/// As of the stage; the file cannot be written, and then there is none.
pub fn samples(job: &Job, stage: &Features, to: &Path) -> Result<usize> {
    let mut pictures = Pictures::open(job, stage)?;
    let (count, side) = (pictures.len(), pictures.side());
    archived(to, |writer| {
        writer.array_in_parts(IMAGES, &[count, side, side, 3], |write| {
            Ok(pictures.each_from(0, PART, |_, images| Ok(write(&interleaved(&images))?))?)
        })
    })?;
    Ok(count)
}

/// Writes the mean and covariance of features, which pytorch-fid reads: `mu` and `sigma` of pooled ones and, where there are
/// any, `mu_s` and `sigma_s` of spatial ones, as ADM names them. Returns how many pooled ones there are.
///
/// # Errors
/// The features cannot be read, or are too few; the file cannot be written, and then there is none.
pub fn statistics(features: &Path, network: &FeatureNetwork, to: &Path) -> Result<usize> {
    let gaussian = |of| -> Result<Gaussian> {
        let (values, _, width) = artifact::read_features(features, of)?;
        Gaussian::from_features(&values, width).with_context(|| features.display().to_string())
    };
    let pooled = gaussian(FeatureKind::Pooled)?;
    let spatial = network.has_spatial().then(|| gaussian(FeatureKind::Spatial)).transpose()?;
    archived(to, |writer| {
        arrays(FeatureKind::Pooled).write(writer, &pooled)?;
        spatial.iter().try_for_each(|spatial| arrays(FeatureKind::Spatial).write(writer, spatial))?;
        Ok(())
    })?;
    Ok(pooled.dimensions())
}

/// The network that a stage samples from, backbone and patch, as the authors' class has it. `backbone` is `None` where the method
/// starts from scratch.
///
/// # Errors
/// A file cannot be read; their class has no such network.
pub fn patch(stage: &Sample, backbone: Option<&Path>, trained: &Path) -> Result<Released> {
    let Denoiser::Dit(dit) = &stage.denoiser else { bail!("the authors' class is a diffusion transformer, no UNet") };
    let backbone =
        backbone.map(|path| artifact::read_backbone(path, WeightFile::open(path, None)?, dit)).transpose()?;
    let backbone = backbone.unwrap_or_default();
    Ok(patches::released(&stage.method, dit, &backbone, &weights::read(trained)?)?)
}

/// Writes an archive that is there whole or not at all.
fn archived(to: &Path, fill: impl FnOnce(&mut Writer<&mut BufWriter<&mut File>>) -> Result<()>) -> Result<()> {
    weights::write_atomically_with(to, |file| {
        let mut buffered = BufWriter::new(file);
        let mut writer = Writer::new(&mut buffered, Storage::Stored);
        fill(&mut writer).map_err(io::Error::other)?;
        writer.finish().map_err(io::Error::other)?;
        buffered.flush()
    })?;
    Ok(())
}

/// Planar images as numpy's tools hold them, `[n, side, side, 3]`.
fn interleaved(images: &Images) -> Vec<u8> {
    let (channels, pixels) = (images.channels, images.side * images.side);
    let mut out = Vec::with_capacity(images.len() * pixels * 3);
    for image in images.pixels.chunks_exact(channels * pixels) {
        let channel = |c: usize| &image[c.min(channels - 1) * pixels..][..pixels];
        let (red, green, blue) = (channel(0), channel(1), channel(2));
        out.extend((0..pixels).flat_map(|p| [red[p], green[p], blue[p]]));
    }
    out
}
