//! A cell judged by Inception, with weights by formula: features of two kinds, both distances, score, precision and recall.

use std::collections::BTreeMap;

use engine::artifact;
use manifest::plan::PlannedStage;
use manifest::stage::{FeatureKind, Stage};
use models::inception::{self, Inception};
use models::weights::constants;

use crate::run;

const SMALL: [&str; 7] = [
    "extractor={kind: inception_formula}",
    "sample.count=5",
    "sample.sampler.steps=2",
    "evaluation.reference.count=6",
    "evaluation.floor=~",
    "evaluation.subsets=2",
    "data.count=32",
];

#[test]
fn the_baseline_is_judged_from_image_to_number() {
    let stages = run::artifact("table2", &SMALL).stages;
    let folder = tempfile::tempdir().unwrap();
    let (mut made, mut numbers) = (BTreeMap::new(), BTreeMap::new());
    // Those of the baseline alone: no training is made, so what needs one is left out.
    for PlannedStage { stage, inputs, key, .. } in stages.iter().filter(|s| !matches!(s.stage, Stage::Train(_))) {
        let directory = folder.path().join(key.to_string());
        std::fs::create_dir(&directory).unwrap();
        let Some(finished) = run::execute(stage, inputs, &made, 2, &directory) else { continue };
        made.extend(finished.artifacts.first().map(|name| (*key, directory.join(name))));
        numbers.extend(finished.metrics);
    }
    let features =
        stages.iter().find(|s| matches!(&s.stage, Stage::Features(features) if features.data.is_none())).unwrap();
    let read = |kind| artifact::read_features(&made[&features.key], kind).unwrap();
    let ((pooled, n, width), (_, _, places)) = (read(FeatureKind::Pooled), read(FeatureKind::Spatial));
    assert_eq!((n, width, places), (5, 2048, 2023));

    // The network itself, on the same images.
    let manifest::plan::Input::Stage(sample) = features.inputs["samples"] else { panic!("a file") };
    let images = artifact::read_images(&made[&sample]).unwrap();
    let device = candle_core::Device::Cpu;
    let pixels = candle_core::Tensor::from_slice(&images.pixels, (5, 3, images.side, images.side), &device).unwrap();
    let weights = inception::formula_weights(models::formula::FORMULA_SEED).unwrap();
    let network = Inception::new(&constants(&weights, candle_core::DType::F32, &device).unwrap()).unwrap();
    let x = inception::resized(&inception::normalised(&pixels).unwrap()).unwrap();
    let expected: Vec<f32> = network.features(&x).unwrap().pool2048.flatten_all().unwrap().to_vec1().unwrap();
    let largest = expected.iter().fold(0_f32, |m, v| m.max(v.abs()));
    assert!(pooled.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));

    let named = |name: &str| *numbers.get(name).unwrap_or_else(|| panic!("no {name} in {numbers:?}"));
    assert!(named("fd_inception_formula") > 0.0 && named("fd_inception_formula_spatial") > 0.0);
    assert!(named("fd_inception_formula_infinity").is_finite());
    assert!((1.0..=1008.0).contains(&named("is_inception_formula")));
    assert!((0.0..=1.0).contains(&named("precision")) && (0.0..=1.0).contains(&named("recall")));
}
