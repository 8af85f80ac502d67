//! Stages that keep finished parts: stopped on the way, they go on from there and leave the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Device, EngineError, Finished, Job, artifact};
use manifest::autoencoder::{AutoencoderNetwork, LatentSpace, VaeConfig};
use manifest::dataset::{Faces, Source};
use manifest::extractor::WeightsFrom;
use manifest::plan::Input;
use manifest::scale::{DeviceKind, Dtype, Engine, Numerics};
use manifest::stage::{Captions, Embeddings, Features, Stage};
use manifest::text::{ClipFormula, TextNetwork, TextVectors};

use crate::run;

/// Files of a stage, by role.
type Files = BTreeMap<String, PathBuf>;

fn numerics() -> Numerics {
    Numerics { engine: Engine::Fast, device: DeviceKind::Cpu, dtype: Dtype::F32 }
}

fn faces(count: usize) -> Source {
    Source::Faces(Faces { image_size: 24, first: 0, count })
}

/// Executes a stage until `most` of its items are done, or to its end; how many were done at the first report and how many
/// at the last.
fn execute(stage: &Stage, files: &Files, directory: &Path, most: u64) -> (Result<Finished, EngineError>, [u64; 2]) {
    let (stop, done) = (AtomicBool::new(false), Mutex::new(None));
    let progress = |progress: engine::Progress| {
        let mut done = done.lock().unwrap();
        let [first, _] = done.unwrap_or([progress.done; 2]);
        *done = Some([first, progress.done]);
        stop.store(progress.done >= most, Ordering::Relaxed);
    };
    let job = Job {
        stage,
        inputs: files.clone(),
        directory,
        threads: 2,
        device: Device::Cpu,
        progress: &progress,
        stop: &stop,
    };
    let finished = engine::execute(&job);
    (finished, done.into_inner().unwrap().unwrap())
}

/// `part` is the number of items of a part, of which there are at least three.
fn check(stage: &Stage, files: &Files, name: &str, part: u64) {
    let [undisturbed, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (finished, [_, count]) = execute(stage, files, undisturbed.path(), u64::MAX);
    let artifacts = finished.unwrap().artifacts;
    for done in [part, 2 * part] {
        let (interrupted, [first, last]) = execute(stage, files, stopped.path(), done);
        assert!(matches!(interrupted, Err(EngineError::Interrupted)));
        assert_eq!((first, last), (done - part, done), "{name} went on from where it was stopped");
    }
    // A part that was damaged since is made again.
    let kept = stopped.path().join(format!("{name}-{part:06}.part"));
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    let (finished, done) = execute(stage, files, stopped.path(), u64::MAX);
    assert_eq!((finished.unwrap().artifacts, done), (artifacts.clone(), [part, count]));
    for artifact in &artifacts {
        let [ours, theirs] =
            [&stopped, &undisturbed].map(|folder| std::fs::read(folder.path().join(artifact)).unwrap());
        assert!(ours == theirs, "{name}: other bytes");
    }
    let left = std::fs::read_dir(stopped.path()).unwrap().count();
    assert_eq!(left, artifacts.len(), "no part is left");
}

#[test]
fn embeddings_that_are_stopped_go_on() {
    let encoder = TextNetwork::ClipFormula(ClipFormula { width: 64, depth: 2, heads: 4 });
    let (of, captions) = (TextVectors::Pooled, Captions::Of(faces(20_000)));
    let stage = Embeddings { encoder, of, captions, numerics: numerics() };
    check(&Stage::Embeddings(stage), &Files::new(), "embeddings", 64);
}

/// Features of faces by the shipped extractor, and its file.
fn features(count: usize) -> (Features, Files) {
    let count = format!("evaluation.reference.count={count}");
    let stages = run::table4(&["evaluation.floor=~", &count]);
    let of_images = |stage: &Stage| match stage {
        Stage::Features(features) if features.data.is_some() => Some(features.clone()),
        _ => None,
    };
    let (stage, inputs) = stages.iter().find_map(|s| Some((of_images(&s.stage)?, &s.inputs))).unwrap();
    let Input::File { path, .. } = &inputs["extractor"] else { panic!("it is shipped") };
    (stage, [("extractor".to_owned(), path.clone())].into())
}

#[test]
fn features_of_images_that_are_stopped_go_on() {
    let (stage, files) = features(1000);
    check(&Stage::Features(stage), &files, "features", 320);
}

#[test]
fn features_of_latents_that_are_stopped_go_on() {
    let (stage, mut files) = features(4);
    let shape = VaeConfig { image_channels: 3, latent_channels: 4, widths: vec![8, 16], depth: 1, groups: 4 };
    let autoencoder = AutoencoderNetwork { weights: WeightsFrom::Formula, shape };
    let latents = Some(LatentSpace { autoencoder, scale_factor: 0.5 });
    let folder = tempfile::tempdir().unwrap();
    let (path, shape) = (folder.path().join(artifact::SAMPLES), vec![50, 4, 12, 12]);
    let values = (0..50 * 4 * 144).flat_map(|i| (((i * 37) % 101) as f32 / 50.0 - 1.0).to_le_bytes()).collect();
    artifact::write(&path, &[("samples", safetensors::Dtype::F32, shape, values)]).unwrap();
    files.insert("samples".to_owned(), path);
    check(&Stage::Features(Features { data: None, latents, ..stage }), &files, "features", 16);
}
