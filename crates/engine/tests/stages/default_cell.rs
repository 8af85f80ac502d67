//! What the default cell must visibly do after training, whatever the distances say: prompts that are not zero, a gate
//! that looks at the timestep, samples that are not the frozen backbone's.

use std::collections::BTreeMap;

use engine::artifact;
use manifest::digest::Key;
use models::weights;
use patches::PROMPTS;
use safetensors::Dtype;

use crate::run;

const SHORT: [&str; 6] = [
    "data.count=64",
    "train.iterations=20",
    "train.batch=8",
    "sample.count=8",
    "sample.sampler.steps=5",
    "evaluation.activation_timesteps=5",
];

#[test]
fn it_learns_prompts_and_a_gate_that_change_the_samples() {
    let plan = run::artifact("table4", &SHORT);
    let table = &plan.tables[0];
    let runs = |id: &str| &table.cells.iter().find(|cell| cell.id == id).unwrap().runs[0];
    let (default, baseline) = (runs(table.default_cell.as_deref().unwrap()), runs("baseline"));
    let (folder, mut made) = (tempfile::tempdir().unwrap(), BTreeMap::new());
    let mut execute = |key: Key| {
        let planned = plan.stage(key).unwrap();
        let directory = folder.path().join(key.to_string());
        std::fs::create_dir(&directory).unwrap();
        let finished = run::execute(&planned.stage, &planned.inputs, &made, 2, &directory).unwrap();
        let path = directory.join(&finished.artifacts[0]);
        made.insert(key, path.clone());
        path
    };

    let learned = weights::read(&execute(default.trained.unwrap())).unwrap();
    assert!(learned[PROMPTS].values.iter().any(|value| value.abs() > 1e-3), "prompts have left zero");

    let (shape, bytes) = artifact::read(&execute(default.activation.unwrap()), "weights", Dtype::F32).unwrap();
    let weights: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let timestep = weights.len() / shape[0];
    let (first, last) = (&weights[..timestep], &weights[weights.len() - timestep..]);
    let moved = first.iter().zip(last).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f32::max);
    assert!(moved > 0.01, "weights move by {moved} of themselves over the timesteps");

    let [ours, theirs] = [default.sample, baseline.sample].map(|key| {
        let (_, pixels) = artifact::read(&execute(key), "samples", Dtype::U8).unwrap();
        pixels
    });
    let changed = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count() as f64 / ours.len() as f64;
    assert!(changed > 0.1, "{changed} of the pixels differ from the frozen backbone's");
}
