//! What every kind of stage gave when its version was written down. A stage that gives something else, beyond rounding,
//! needs a new version in `manifest/src/stage.rs` (or the engine's in `scale.rs`): old records would be taken for new ones.

use std::collections::BTreeMap;
use std::path::Path;

use engine::Outcome;
use manifest::method::Method;
use manifest::plan::{Input, PlannedStage};
use manifest::stage::Stage;
use safetensors::{Dtype, SafeTensors};

use crate::run;

/// On the shipped weights: stage, version, and a number that depends on every value of the stage's artifacts and metrics.
const PINNED: &[(&str, &str, f64)] = &[
    ("activation", "activation/v1 fast/v3", 9.99864478e-1),
    ("coverage", "coverage/v1", 7.5e-2),
    ("extrapolation", "extrapolation/v1", 3.19901093e1),
    ("features", "features/v1 fast/v3", 3.51141985e-1),
    ("features of samples", "features/v1 fast/v3", 3.25288805e-1),
    ("metrics", "metrics/v1", 1.55854207e2),
    ("pretrain", "pretrain/v1 fast/v3", 2.04279845e0),
    ("sample", "sample/v1 fast/v3", 1.50882820e2),
    ("sample", "sample/v1 reference/v1", 1.50882774e2),
    ("similarity", "similarity/v1", 3.82996216e0),
    ("statistics", "statistics/v2", 8.03537345e1),
    ("train", "train/v1 fast/v3", 1.12996627e-1),
    ("train", "train/v1 reference/v1", 1.12996628e-1),
    ("train_extractor", "train_extractor/v1 fast/v3", 9.27702681e0),
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
    stages.extend(run::table4(&TABLE4));
    // What table 4 does not measure.
    stages.extend(run::artifact("table5", &TABLE4).stages);
    let by_reference = run::table4(&[&TABLE4[..], &["numerics.engine=reference"]].concat()).into_iter();
    stages.extend(by_reference.filter(|planned| matches!(planned.stage, Stage::Train(_) | Stage::Sample(_))));
    let mut seen = std::collections::BTreeSet::new();
    // The only samples that are drawn here.
    let mut sampled = None;
    stages.retain(|planned| seen.insert(planned.key));
    let (folder, mut made, mut found) = (tempfile::tempdir().unwrap(), BTreeMap::new(), BTreeMap::new());
    for PlannedStage { stage, inputs, key, .. } in &mut stages {
        if let Stage::Coverage(coverage) = stage {
            // Farther than usual: samples as poor as these lie in no ball else, and 0 would pin nothing.
            coverage.neighbours = 10;
        }
        if let (Stage::Similarity(_), Some(samples)) = (&*stage, sampled) {
            *inputs = [("samples".to_owned(), Input::Stage(samples))].into();
        }
        let (stage, key) = (&*stage, *key);
        let directory = folder.path().join(key.to_string());
        std::fs::create_dir(&directory).unwrap();
        let what = match stage {
            Stage::Features(features) if features.data.is_none() => "features of samples",
            // Samples with prompts are the ones to pin.
            Stage::Sample(sample) if matches!(sample.method, Method::Pretrained(_)) => continue,
            stage => stage.kind(),
        };
        let version = stage.version();
        if found.contains_key(&(what, version.clone())) {
            continue;
        }
        let Some(finished) = run::execute(stage, inputs, &made, 1, &directory) else { continue };
        assert_eq!(finished.outcome, Outcome::Completed);
        let artifact = finished.artifacts.first().map(|name| directory.join(name));
        let metrics = finished.metrics.values().map(|value| value.abs()).sum::<f64>();
        found.insert((what, version), artifact.as_deref().map_or(0.0, fingerprint) + metrics);
        made.extend(artifact.map(|path| (key, path)));
        if matches!(stage, Stage::Sample(_)) {
            sampled.get_or_insert(key);
        }
    }
    let line =
        |((what, version), print): (&(&str, String), &f64)| format!("    (\"{what}\", \"{version}\", {print:e}),\n");
    let all: String = found.iter().map(line).collect();
    for ((what, version), print) in &found {
        let pinned = PINNED.iter().find(|(known, at, _)| known == what && at == version);
        let Some((.., pinned)) = pinned else { panic!("{what} {version} is not pinned; all of them:\n{all}") };
        assert!((print / pinned - 1.0).abs() < TOLERANCE, "{what} {version} gave {pinned:e}; all of them:\n{all}");
    }
    assert_eq!(found.len(), PINNED.len(), "every kind of stage has run, the shortest two by both engines");
}

/// `sum over tensors of mean |x_i (1 + cos i)|`.
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
    tensors.names().into_iter().map(of).sum()
}
