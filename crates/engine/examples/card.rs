//! The figures of a scale's model card: how good its backbone's samples are, and whether its extractor notices damage.
//!
//! `cargo run --release -p engine --example card -- tiny BACKBONE.safetensors EXTRACTOR.safetensors GRID.png`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use data::Images;
use engine::{Device, Job, artifact};
use manifest::dataset::{Faces, Source};
use manifest::method::Method;
use manifest::stage::{self, Stage};
use manifest::workspace::{Request, Workspace};
use metrics::{Gaussian, Reference, Summary, subsets};

/// Images of each set that is compared with the reference.
const COUNT: usize = 2000;

/// First index of the real images that are compared: none of training, reference or extractor.
const FRESH: u64 = 5_000_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scale, backbone, extractor, grid] = arguments.as_slice() else {
        bail!("usage: card SCALE BACKBONE.safetensors EXTRACTOR.safetensors GRID.png");
    };
    let request = Request { scale: scale.clone(), overrides: Vec::new(), seeds: Some(vec![0]) };
    let plan = Workspace::find(&std::env::current_dir()?)?.load_artifact("table4", &request)?;
    let card = Card::new(&plan, extractor)?;

    let samples = card.samples(&plan, backbone)?;
    data::grid_png(&samples.take(96), 12, 6, Path::new(grid))?;
    println!("| set of {COUNT} images | distance to the reference |\n|---|---|");
    card.print("real images", &card.fresh(0))?;
    card.print("real images, another set", &card.fresh(COUNT as u64))?;
    card.print("samples of the backbone", &samples)?;
    let real = card.fresh(0);
    for rounds in 1..=3 {
        card.print(&format!("real, blurred {rounds} times"), &blurred(&real, rounds))?;
    }
    for strength in [4, 8, 16, 32] {
        card.print(&format!("real, noise of {strength} grey levels"), &noisy(&real, strength))?;
    }
    for share in [0.25, 0.5, 0.75] {
        card.print(&format!("real, without the {share} that face most to the right"), &card.without_mode(share))?;
    }
    Ok(())
}

/// What all sets are compared under.
struct Card {
    folder: tempfile::TempDir,
    extractor: PathBuf,
    features: stage::Features,
    image_size: usize,
    reference: Reference,
}

impl Card {
    fn new(plan: &manifest::plan::Plan, extractor: &str) -> Result<Self> {
        let features = plan.stages.iter().find_map(|planned| match &planned.stage {
            Stage::Features(features) if features.data.is_some() => Some(features.clone()),
            _ => None,
        });
        let features = features.context("the plan has no reference")?;
        let Some(Source::Faces(Faces { image_size, .. })) = features.data else {
            bail!("the reference is not procedural")
        };
        let nothing = Reference::new(Gaussian::from_moments(vec![0.0], &[0.0])?)?;
        let extractor = PathBuf::from(extractor);
        let mut card = Self { folder: tempfile::tempdir()?, extractor, features, image_size, reference: nothing };
        let whole = Stage::Features(card.features.clone());
        let (values, _, width) = card.run(&whole, &[("extractor", &card.extractor)], artifact::FEATURES)?;
        card.reference = Reference::new(Gaussian::from_features(&values, width)?)?;
        Ok(card)
    }

    fn fresh(&self, offset: u64) -> Images {
        data::faces::faces(self.image_size, FRESH + offset, COUNT)
    }

    /// Real images without the share of them whose first factor is highest, filled up with others.
    fn without_mode(&self, share: f64) -> Images {
        let all = data::faces::faces(self.image_size, FRESH, COUNT * 8);
        let limit = (1.0 - 2.0 * share) as f32;
        let kept: Vec<usize> = (0..all.len()).filter(|&i| all.factors(i)[0] < limit).take(COUNT).collect();
        let pixels = kept.iter().flat_map(|&i| all.image(i)).copied().collect();
        Images::new(all.channels, all.side, pixels)
    }

    fn samples(&self, plan: &manifest::plan::Plan, backbone: &str) -> Result<Images> {
        let sample = plan.stages.iter().find_map(|planned| match &planned.stage {
            Stage::Sample(sample) if matches!(sample.method, Method::Pretrained(_)) => Some(sample.clone()),
            _ => None,
        });
        let sample = stage::Sample { count: COUNT, ..sample.context("the plan draws no samples")? };
        self.execute(&Stage::Sample(sample), &[("backbone", Path::new(backbone))])?;
        artifact::read_images(&self.folder.path().join(artifact::SAMPLES))
    }

    /// Distance to the reference, and the standard deviation of the distance over half-size subsets.
    fn print(&self, what: &str, images: &Images) -> Result<()> {
        let path = self.folder.path().join("set.safetensors");
        artifact::write_images(&path, images)?;
        let stage = Stage::Features(stage::Features { data: None, ..self.features.clone() });
        let inputs = [("extractor", self.extractor.as_path()), ("samples", path.as_path())];
        let (values, n, width) = self.run(&stage, &inputs, artifact::FEATURES)?;
        let distance = self.reference.distance(&Gaussian::from_features(&values, width)?)?;
        let halves = subsets::halves(n, 16, 0).into_iter();
        let over = halves.map(|half| Ok(self.reference.distance(&Gaussian::from_subset(&values, width, &half)?)?));
        let spread = Summary::of(&over.collect::<Result<Vec<_>>>()?).and_then(|s| s.sd).unwrap_or(f64::NAN);
        println!("| {what} | {distance:.4} +- {:.4} |", 1.96 * spread);
        Ok(())
    }

    fn run(&self, stage: &Stage, inputs: &[(&str, &Path)], file: &str) -> Result<(Vec<f32>, usize, usize)> {
        self.execute(stage, inputs)?;
        artifact::read_features(&self.folder.path().join(file), stage::FeatureKind::Pooled)
    }

    fn execute(&self, stage: &Stage, inputs: &[(&str, &Path)]) -> Result<()> {
        let inputs: BTreeMap<String, PathBuf> =
            inputs.iter().map(|(role, path)| ((*role).to_owned(), path.to_path_buf())).collect();
        let threads = std::thread::available_parallelism()?.get();
        let (stop, progress) = (AtomicBool::new(false), |_| {});
        let directory = self.folder.path();
        engine::execute(&Job {
            stage,
            inputs,
            directory,
            threads,
            device: Device::Cpu,
            progress: &progress,
            stop: &stop,
        })?;
        Ok(())
    }
}

/// A 3x3 box blur, `rounds` times.
fn blurred(images: &Images, rounds: usize) -> Images {
    let mut blurred = images.clone();
    let side = images.side;
    for _ in 0..rounds {
        let before = blurred.pixels.clone();
        for (plane, out) in before.chunks(side * side).zip(blurred.pixels.chunks_mut(side * side)) {
            for (i, out) in out.iter_mut().enumerate() {
                let near = |v: usize| v.saturating_sub(1)..=(v + 1).min(side - 1);
                let (rows, columns) = (near(i / side), near(i % side));
                let count = rows.clone().count() * columns.clone().count();
                let sum: usize =
                    rows.flat_map(|y| columns.clone().map(move |x| usize::from(plane[y * side + x]))).sum();
                *out = ((sum + count / 2) / count) as u8;
            }
        }
    }
    blurred
}

/// Normal noise with a standard deviation in grey levels.
fn noisy(images: &Images, strength: u32) -> Images {
    let mut noise = vec![0.0; images.pixels.len()];
    random::Draws::new(0, random::Stream::TrainNoise, 0).fill_normal(0, &mut noise);
    let pixels = images.pixels.iter().zip(noise).map(|(&v, z)| (f32::from(v) + z * strength as f32).round() as u8);
    Images { pixels: pixels.collect(), ..images.clone() }
}
