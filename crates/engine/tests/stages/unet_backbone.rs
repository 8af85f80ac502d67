//! A UNet that is trained from scratch, as far as the samples of what it has become.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Device, EngineError, Finished, Job, Outcome, artifact};
use manifest::digest::Key;
use manifest::plan::{Input, PlannedStage};
use manifest::stage::Stage;
use models::weights::{self, Weights};

use crate::run;

const SMALL: [&str; 10] = [
    "unet.image_size=8",
    "unet.widths=[8, 16]",
    "unet.attending=[false, true]",
    "unet.groups=4",
    "training.data={kind: faces, image_size: 8, first: 0, count: 64}",
    "training.optimisation.iterations=60",
    "training.optimisation.warmup_iterations=4",
    "training.optimisation.batch=8",
    "training.optimisation.learning_rate=4.0e-3",
    "training.ema_halflife_iterations=4",
];

/// The recipe of the tiny scale, cut to seconds, with its captions embedded.
struct Recipe {
    pretrain: PlannedStage,
    made: BTreeMap<Key, PathBuf>,
    folder: tempfile::TempDir,
}

impl Recipe {
    fn new() -> Self {
        let [embeddings, pretrain] = Self::stages(&[]);
        let folder = tempfile::tempdir().unwrap();
        run::execute(&embeddings.stage, &embeddings.inputs, &BTreeMap::new(), 2, folder.path()).unwrap();
        let made = [(embeddings.key, folder.path().join(artifact::EMBEDDINGS))].into();
        Self { pretrain, made, folder }
    }

    fn stages(overrides: &[&str]) -> [PlannedStage; 2] {
        run::recipe("tiny-unet-backbone", &[&SMALL[..], overrides].concat()).try_into().unwrap()
    }

    /// Trains under other values on these threads.
    fn train(&self, name: &str, overrides: &[&str], threads: usize) -> (Finished, Weights) {
        let directory = self.directory(name);
        let [_, PlannedStage { stage, inputs, .. }] = Self::stages(overrides);
        let finished = run::execute(&stage, &inputs, &self.made, threads, &directory).expect("its inputs are made");
        assert_eq!(finished.outcome, Outcome::Completed);
        (finished, weights::read(&directory.join(artifact::WEIGHTS)).unwrap())
    }

    fn directory(&self, name: &str) -> PathBuf {
        let directory = self.folder.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        directory
    }

    /// Trains as planned up to the first report.
    fn stop(&self, directory: &Path) {
        let inputs = self.pretrain.inputs.iter().map(|(role, input)| match input {
            Input::Stage(key) => (role.clone(), self.made[key].clone()),
            Input::File { .. } => panic!("{role} is a file"),
        });
        let stop = AtomicBool::new(false);
        let progress = |_| stop.store(true, Ordering::Relaxed);
        let (stage, device) = (&self.pretrain.stage, Device::Cpu);
        let job =
            Job { stage, inputs: inputs.collect(), directory, threads: 2, device, progress: &progress, stop: &stop };
        assert!(matches!(engine::execute(&job), Err(EngineError::Interrupted)));
    }
}

/// It forgets what it started from: the loss falls from that of a network that says nothing to a fraction of it. The average of
/// its weights is what is kept, and its seed decides it.
#[test]
fn it_learns_and_keeps_the_average_of_its_weights() {
    let recipe = Recipe::new();
    let (finished, average) = recipe.train("average", &[], 2);
    let mean = |points: &[engine::CurvePoint]| {
        points.iter().map(|point| point.losses.total).sum::<f64>() / points.len() as f64
    };
    let (first, last) = (mean(&finished.curve[..5]), mean(&finished.curve[finished.curve.len() - 10..]));
    assert!(first > 0.8 && last < 0.5 * first, "{first} to {last}");

    let Stage::Pretrain(stage) = &recipe.pretrain.stage else { panic!("no training") };
    let manifest::denoiser::Denoiser::Unet(unet) = &stage.denoiser else { panic!("a DiT") };
    let initial = models::unet::initial_weights(&unet.shape, stage.seed).unwrap();
    let shapes =
        |weights: &Weights| weights.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect::<Vec<_>>();
    assert_eq!(shapes(&average), shapes(&initial));
    let still: Vec<&String> = initial.keys().filter(|name| initial[*name] == average[*name]).collect();
    assert!(still.is_empty(), "every weight learns, but {still:?}");

    let (_, newest) = recipe.train("newest", &["training.ema_halflife_iterations=0"], 2);
    let apart = |a: &Weights, b: &Weights| {
        let squares = a.iter().flat_map(|(name, a)| a.values.iter().zip(&b[name].values).map(|(a, b)| (a - b).powi(2)));
        f64::from(squares.sum::<f32>()).sqrt()
    };
    let (moved, averaged) = (apart(&initial, &newest), apart(&average, &newest));
    assert!(averaged > 0.0 && averaged < 0.5 * moved, "moved by {moved}, the average is {averaged} behind");
    let (_, other) = recipe.train("other", &["training.seed=1"], 2);
    assert!(average.keys().all(|name| average[name] != other[name]));
}

#[test]
fn stopped_on_the_way_and_on_another_number_of_threads_it_ends_in_the_same_bits() {
    let recipe = Recipe::new();
    let (_, undisturbed) = recipe.train("undisturbed", &[], 1);
    let directory = recipe.directory("stopped");
    for _ in 0..2 {
        recipe.stop(&directory);
    }
    let PlannedStage { stage, inputs, .. } = &recipe.pretrain;
    run::execute(stage, inputs, &recipe.made, 2, &directory).unwrap();
    assert_eq!(weights::read(&directory.join(artifact::WEIGHTS)).unwrap(), undisturbed);
}

/// As another network's weights would be, those of a run that goes astray are no artifact.
#[test]
fn a_run_that_diverges_says_where() {
    let recipe = Recipe::new();
    let [_, PlannedStage { stage, inputs, .. }] = Recipe::stages(&["training.optimisation.learning_rate=1.0e+30"]);
    let directory = recipe.directory("diverging");
    let finished = run::execute(&stage, &inputs, &recipe.made, 2, &directory).unwrap();
    assert!(matches!(finished.outcome, Outcome::Diverged { .. }) && finished.artifacts.is_empty());
    assert!(!directory.join(artifact::WEIGHTS).exists());
}
