//! What every kind of stage gave when its version was written down. A stage that gives something else, beyond rounding,
//! needs a new version in `manifest/src/stage.rs` (or the engine's in `scale.rs`): old records would be taken for new ones.

use std::collections::BTreeMap;
use std::path::Path;

use engine::artifact::SAMPLES;
use engine::{Outcome, artifact};
use manifest::autoencoder::LatentSpace;
use manifest::dataset::{Faces, Source};
use manifest::digest::Digest;
use manifest::extractor::{FeatureNetwork, Target};
use manifest::method::Method;
use manifest::plan::{Input, PlannedStage};
use manifest::stage::{Decode, Features, InceptionScore, Stage};
use safetensors::{Dtype, SafeTensors};

use crate::run;

/// On the shipped weights: stage, version, and a number that depends on every value of the stage's artifacts and metrics.
const PINNED: &[(&str, &str, f64)] = &[
    ("activation", "activation/v1 fast/v3", 1.56154627e-2),
    ("coverage", "coverage/v1", 1.02500000e0),
    ("decode", "decode/v1 fast/v3", 1.11611426e2),
    ("embeddings", "embeddings/v1 fast/v3", 8.28227466e-1),
    ("encode", "encode/v1 fast/v3", 9.11161453e-1),
    ("extrapolation", "extrapolation/v1", 6.98069476e0),
    ("features", "features/v1 fast/v3", 3.51141986e-1),
    ("features of a classifier", "features/v1 fast/v3", 4.29530024e-2),
    ("features of samples", "features/v1 fast/v3", 3.47474510e-1),
    ("inception_score", "inception_score/v1", 1.01143119e0),
    ("metrics", "metrics/v1", 8.43735145e1),
    ("pretrain", "pretrain/v1 fast/v3", 2.12177628e0),
    ("sample", "sample/v1 fast/v3", 1.11981700e2),
    ("sample", "sample/v1 reference/v1", 1.55477142e2),
    ("sample from scratch", "sample/v1 fast/v3", 1.26619178e2),
    ("sample from scratch with prompts", "sample/v1 fast/v3", 1.26618738e2),
    ("sample of LoRA", "sample/v1 fast/v3", 1.11915715e2),
    ("similarity", "similarity/v1", 3.91345374e0),
    ("statistics", "statistics/v2", 8.03537346e1),
    ("train", "train/v1 fast/v3", 9.35535757e-3),
    ("train", "train/v1 reference/v1", 1.12641143e-1),
    ("train from scratch", "train/v1 fast/v3", 2.09866992e0),
    ("train from scratch with prompts", "train/v1 fast/v3", 2.10287043e0),
    ("train of LoRA", "train/v1 fast/v3", 5.42554317e-1),
    ("train_extractor", "train_extractor/v1 fast/v3", 9.27702681e0),
    ("train_extractor by labels", "train_extractor/v1 fast/v3", 7.31783549e-1),
];

/// Relative: far above the rounding of other processors and of other libraries' exponentials (the reference's are the
/// system's), far below what a changed formula does.
const TOLERANCE: f64 = 1e-4;

/// The smallest of everything.
const TABLE4: [&str; 8] = [
    "data.count=32",
    "train.iterations=4",
    "train.batch=4",
    "sample.count=12",
    "sample.sampler.steps=4",
    "evaluation.reference.count=40",
    "evaluation.subsets=2",
    "evaluation.activation_timesteps=4",
];

const RECIPE: [&str; 4] =
    ["data.count=32", "optimisation.iterations=4", "optimisation.batch=4", "optimisation.warmup_iterations=1"];

#[test]
fn every_stage_gives_what_its_version_gave() {
    let mut stages = run::recipe("tiny-backbone", &RECIPE);
    stages.extend(run::recipe("tiny-extractor", &[&RECIPE[..], &["held_out=8"]].concat()));
    // Table 5 first: it measures what table 4 does not.
    stages.extend(run::artifact("table5", &TABLE4).stages);
    stages.extend(run::table4(&TABLE4));
    let by_reference = run::table4(&[&TABLE4[..], &["numerics.engine=reference"]].concat()).into_iter();
    stages.extend(by_reference.filter(|planned| matches!(planned.stage, Stage::Train(_) | Stage::Sample(_))));
    let others = ["table6", "table7"].map(|artifact| run::artifact(artifact, &TABLE4).stages).into_iter().flatten();
    stages.extend(others.filter(|planned| other_method(&planned.stage).is_some()));
    stages.extend(score());
    let folder = tempfile::tempdir().unwrap();
    stages.extend(latents(folder.path()));
    stages.extend(run::recipe("smoke-captions-backbone", &RECIPE).into_iter().take(1));
    let mut seen = std::collections::BTreeSet::new();
    stages.retain(|planned| seen.insert(planned.key));
    let (mut made, mut found) = (BTreeMap::new(), BTreeMap::new());
    for PlannedStage { stage, inputs, key, .. } in &stages {
        let directory = folder.path().join(key.to_string());
        std::fs::create_dir(&directory).unwrap();
        let what = match (stage, other_method(stage)) {
            (_, Some(what)) => what,
            (Stage::TrainExtractor(training), _) if training.extractor.target == Target::Labels => {
                "train_extractor by labels"
            }
            (Stage::Features(features), _) if features.extractor.has_classes() => "features of a classifier",
            (Stage::Features(features), _) if features.data.is_none() => "features of samples",
            // Samples with prompts are the ones to pin.
            (Stage::Sample(sample), _) if matches!(sample.method, Method::Pretrained(_)) => continue,
            (stage, None) => stage.kind(),
        };
        let version = stage.version();
        if found.contains_key(&(what, version.clone())) {
            continue;
        }
        let Some(finished) = run::execute(stage, inputs, &made, 1, &directory) else { continue };
        assert_eq!(finished.outcome, Outcome::Completed);
        let artifacts: Vec<_> = finished.artifacts.iter().map(|name| directory.join(name)).collect();
        // Numbers of images and captions would hide what was made of them.
        let measured = finished.metrics.iter().filter(|(name, _)| !["images", "captions"].contains(&name.as_str()));
        let metrics = measured.map(|(_, value)| value.abs()).sum::<f64>();
        found.insert((what, version), artifacts.iter().map(|path| fingerprint(path)).sum::<f64>() + metrics);
        made.extend(artifacts.first().map(|path| (*key, path.clone())));
    }
    let line =
        |((what, version), print): (&(&str, String), &f64)| format!("    (\"{what}\", \"{version}\", {print:e}),\n");
    let all: String = found.iter().map(line).collect();
    for ((what, version), print) in &found {
        let pinned = PINNED.iter().find(|(known, at, _)| known == what && at == version);
        let Some((.., pinned)) = pinned else { panic!("{what} {version} is not pinned; all of them:\n{all}") };
        assert!(
            (print - pinned).abs() <= TOLERANCE * pinned.abs(),
            "{what} {version} gave {print:e}; all of them:\n{all}"
        );
    }
    assert_eq!(found.len(), PINNED.len(), "every kind of stage has run, the shortest two by both engines");
}

/// What trains or samples otherwise than the usual cells of table 4.
fn other_method(stage: &Stage) -> Option<&'static str> {
    match stage {
        Stage::Train(train) => match &train.method {
            Method::Lora(_) => Some("train of LoRA"),
            Method::Finetune(_) if train.method.from_scratch() => Some("train from scratch"),
            Method::Dmp(_) if train.method.from_scratch() => Some("train from scratch with prompts"),
            _ => None,
        },
        Stage::Sample(sample) => match &sample.method {
            Method::Lora(_) => Some("sample of LoRA"),
            Method::Finetune(_) if sample.method.from_scratch() => Some("sample from scratch"),
            Method::Dmp(_) if sample.method.from_scratch() => Some("sample from scratch with prompts"),
            _ => None,
        },
        _ => None,
    }
}

/// A classifier, its features of a dozen faces, and their Inception score.
fn score() -> [PlannedStage; 3] {
    let labels = [&RECIPE[..], &["held_out=8", "extractor.target=labels"]].concat();
    let classifier = run::recipe("tiny-extractor", &labels).remove(0);
    let Stage::TrainExtractor(training) = &classifier.stage else { panic!("the recipe of an extractor") };
    let (extractor, numerics) = (FeatureNetwork::Cnn(training.extractor.clone()), training.numerics.clone());
    let image_size = training.extractor.image_size;
    let data = Some(Source::Faces(Faces { image_size, first: 0, count: 12 }));
    let input = |role: &str, of: &PlannedStage| (role.to_owned(), Input::Stage(of.key));
    let features = Features { extractor: extractor.clone(), data, latents: None, numerics };
    let features = PlannedStage::new(Stage::Features(features), [input("extractor", &classifier)].into()).unwrap();
    let score = InceptionScore { name: "is_faces_cnn".to_owned(), extractor, split: 6 };
    let inputs = [input("features", &features), input("extractor", &classifier)].into();
    let score = PlannedStage::new(Stage::InceptionScore(score), inputs).unwrap();
    [classifier, features, score]
}

/// Faces to moments by the smallest autoencoder, and latents, written in `folder`, to images.
fn latents(folder: &Path) -> [PlannedStage; 2] {
    let space = "space={kind: latents, scale_factor: 0.5, autoencoder: {kind: formula, shape: \
                 {image_channels: 3, latent_channels: 4, widths: [8, 16], depth: 1, groups: 4}}}";
    let recipe = [&RECIPE[..], &[space, "dit.image_size=12", "dit.channels=4"]].concat();
    let encode = run::recipe("tiny-backbone", &recipe).remove(0);
    let Stage::Encode(encoding) = &encode.stage else { panic!("images are encoded first") };
    let (autoencoder, numerics) = (encoding.autoencoder.clone(), encoding.numerics.clone());

    let path = folder.join(SAMPLES);
    let values = (0..3 * 4 * 36).flat_map(|i| (((i * 37) % 101) as f32 / 50.0 - 1.0).to_le_bytes()).collect();
    artifact::write(&path, &[("samples", Dtype::F32, vec![3, 4, 6, 6], values)]).unwrap();
    let decode = Decode { latents: LatentSpace { autoencoder, scale_factor: 0.5 }, count: 3, numerics };
    let input = ("samples".to_owned(), Input::File { sha256: Digest::of(b""), path });
    [encode, PlannedStage::new(Stage::Decode(decode), [input].into()).unwrap()]
}

/// `sum over tensors of mean |x_i (1 + cos i)|`, hashes left out.
fn fingerprint(path: &Path) -> f64 {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of = |name: &str| {
        let tensor = tensors.tensor(name).unwrap();
        let data = tensor.data();
        let values: Vec<f64> = match tensor.dtype() {
            Dtype::U8 => data.iter().map(|&v| f64::from(v)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            // Timesteps, which are parameters.
            _ => Vec::new(),
        };
        let weighted = values.iter().enumerate().map(|(i, v)| (v * (1.0 + (i as f64).cos())).abs());
        weighted.sum::<f64>() / values.len().max(1) as f64
    };
    tensors.names().into_iter().filter(|name| *name != "sha256").map(of).sum()
}
