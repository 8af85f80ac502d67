//! A UNet, conditioned on captions token by token, through all stages: latents, training of every method, samples, activation;
//! from a formula and from a checkpoint of Stable Diffusion's kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Device, EngineError, Job, Outcome, artifact};
use manifest::denoiser::Denoiser;
use manifest::digest::{Digest, Key};
use manifest::extractor::WeightsFrom;
use manifest::gate::GateNoise;
use manifest::method::Method;
use manifest::plan::{Input, PlannedStage};
use manifest::stage::{Import, Sample, Stage, Train};
use manifest::unet::UnetNetwork;
use models::formula::FORMULA_SEED;
use models::unet::formula_weights;
use models::weights::{self, Weights};
use safetensors::Dtype;

use crate::run;

const SMALL: [&str; 7] = [
    "data.count=24",
    "train.iterations=4",
    "train.batch=3",
    "sample.count=6",
    "sample.sampler.steps=3",
    "evaluation.subsets=2",
    "evaluation.activation_timesteps=4",
];

/// Table 2's stages of the UNet up to samples and activation, executed as far as `wanted`.
struct Chain {
    stages: Vec<PlannedStage>,
    made: BTreeMap<Key, PathBuf>,
    folder: tempfile::TempDir,
}

fn is_unet(stage: &Stage) -> bool {
    let denoiser = match stage {
        Stage::Train(stage) => &stage.denoiser,
        Stage::Sample(stage) => &stage.denoiser,
        Stage::Activation(stage) => &stage.denoiser,
        _ => return matches!(stage, Stage::Encode(_) | Stage::Embeddings(_)),
    };
    denoiser.dit().is_none()
}

impl Chain {
    fn new(threads: usize, overrides: &[&str], wanted: impl Fn(&Stage) -> bool) -> Self {
        let mut stages = run::artifact("table2", &[&SMALL[..], overrides].concat()).stages;
        stages.retain(|planned| is_unet(&planned.stage));
        let mut chain = Self { stages, made: BTreeMap::new(), folder: tempfile::tempdir().unwrap() };
        for planned in chain.stages.clone().iter().filter(|planned| wanted(&planned.stage)) {
            let path = chain.execute(&planned.key.to_string(), &planned.stage, &planned.inputs, threads);
            chain.made.insert(planned.key, path);
        }
        chain
    }

    fn execute(&self, name: &str, stage: &Stage, inputs: &BTreeMap<String, Input>, threads: usize) -> PathBuf {
        let directory = self.folder.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let finished = run::execute(stage, inputs, &self.made, threads, &directory).expect("its inputs are made");
        assert_eq!(finished.outcome, Outcome::Completed);
        directory.join(&finished.artifacts[0])
    }

    fn find(&self, is: impl Fn(&Stage) -> bool) -> &PlannedStage {
        self.stages.iter().find(|planned| is(&planned.stage)).unwrap()
    }

    fn train(&self, is: fn(&Method) -> bool) -> (&PlannedStage, &Train) {
        let planned = self.find(|stage| matches!(stage, Stage::Train(train) if is(&train.method)));
        let Stage::Train(train) = &planned.stage else { unreachable!("found") };
        (planned, train)
    }

    fn sample(&self, is: fn(&Method) -> bool, control: bool) -> (&PlannedStage, &Sample) {
        let wanted = |sample: &Sample| is(&sample.method) && (sample.prompt_noise > 0.0) == control;
        let planned = self.find(|stage| matches!(stage, Stage::Sample(sample) if wanted(sample)));
        let Stage::Sample(sample) = &planned.stage else { unreachable!("found") };
        (planned, sample)
    }

    fn learned(&self, is: fn(&Method) -> bool) -> Weights {
        weights::read(&self.made[&self.train(is).0.key]).unwrap()
    }
}

fn is_pretrained(method: &Method) -> bool {
    matches!(method, Method::Pretrained(_))
}

fn is_finetune(method: &Method) -> bool {
    matches!(method, Method::Finetune(_))
}

fn is_prompt_tuning(method: &Method) -> bool {
    matches!(method, Method::PromptTuning(_))
}

fn is_dmp(method: &Method) -> bool {
    matches!(method, Method::Dmp(_))
}

fn floats(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let (shape, bytes) = artifact::read(path, name, Dtype::F32).unwrap();
    (shape, bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn samples(path: &Path) -> Vec<f32> {
    floats(path, "samples").1
}

/// `mean |x_i (1 + cos i)|`.
fn print(values: &[f32]) -> f64 {
    let weighted = values.iter().enumerate().map(|(i, v)| (f64::from(*v) * (1.0 + (i as f64).cos())).abs());
    weighted.sum::<f64>() / values.len() as f64
}

/// Pinned, to 1e-4 of itself: what was trained, and what is sampled of it. A change here is a change of the stages' results,
/// and their versions must say so.
const TRAINED: f64 = 4.37585978e-3;
const SAMPLED: f64 = 3.94814563e0;

#[test]
fn every_method_trains_and_samples_whatever_the_threads() {
    let chain = Chain::new(2, &[], |_| true);
    // What is attended to has a row for each token; the null caption's is the last.
    let embedded = chain.find(|stage| matches!(stage, Stage::Embeddings(e) if e.of != Default::default()));
    let (shape, _) = floats(&chain.made[&embedded.key], "embeddings");
    assert_eq!(shape[1..], [77, 32]);

    let (base, tuned) = (formula(&chain), chain.learned(is_finetune));
    assert_eq!(base.keys().collect::<Vec<_>>(), tuned.keys().collect::<Vec<_>>());
    let still: Vec<&String> = base.keys().filter(|name| base[*name] == tuned[*name]).collect();
    assert!(still.is_empty(), "every weight learns, but {still:?}");
    let (prompts, patch) = (chain.learned(is_prompt_tuning), chain.learned(is_dmp));
    let named = |weights: &Weights| weights.keys().cloned().collect::<Vec<_>>();
    let blocks: Vec<String> = (0..5).map(|block| format!("prompt_embeddings.{block}")).collect();
    assert_eq!(named(&prompts), blocks);
    assert_eq!(named(&patch), [&["gate.bias".to_owned(), "gate.weight".to_owned()][..], &blocks].concat());
    for learned in [&prompts, &patch] {
        assert!(learned.values().all(|tensor| tensor.values.iter().any(|value| *value != 0.0)));
    }
    assert_ne!(prompts["prompt_embeddings.0"], patch["prompt_embeddings.0"]);

    let drawn = |is: fn(&Method) -> bool, control| samples(&chain.made[&chain.sample(is, control).0.key]);
    let all = [
        drawn(is_pretrained, false),
        drawn(is_finetune, false),
        drawn(is_prompt_tuning, false),
        drawn(is_dmp, false),
        drawn(is_dmp, true),
    ];
    for (i, ours) in all.iter().enumerate() {
        assert!(ours.len() == 6 * 4 * 12 * 12 && ours.iter().all(|value| value.is_finite()));
        assert!(all[..i].iter().all(|other| other != ours), "cell {i} draws what another does");
    }
    let trained: Vec<f32> = patch.values().flat_map(|tensor| tensor.values.clone()).collect();
    for (what, found, pinned) in [("trained", print(&trained), TRAINED), ("sampled", print(&all[3]), SAMPLED)] {
        assert!((found - pinned).abs() < 1e-4 * pinned, "{what}: {found:e}");
    }

    // A file takes the place of each training; a patch may lie beside the network that it is on.
    let file = chain.folder.path().join("elsewhere.safetensors");
    let beside: Weights = base.iter().chain(&patch).map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    for (is, tensors) in [(is_finetune as fn(&Method) -> bool, &tuned), (is_dmp, &patch), (is_dmp, &beside)] {
        weights::write(&file, tensors).unwrap();
        let Train { denoiser, method, .. } = chain.train(is).1.clone();
        let stage = Stage::Import(Import { denoiser, method });
        let inputs = [("trained".to_owned(), Input::File { sha256: Digest::of(b""), path: file.clone() })].into();
        assert_eq!(weights::read(&chain.execute("imported", &stage, &inputs, 2)).unwrap(), chain.learned(is));
    }

    let activation = chain.find(|stage| matches!(stage, Stage::Activation(_)));
    let (shape, weights) = floats(&chain.made[&activation.key], "weights");
    assert_eq!(shape, [4, 5, 144]);
    assert!(weights.chunks(144).all(|places| (places.iter().sum::<f32>() - 1.0).abs() < 1e-5));

    let one = Chain::new(1, &[], |_| true);
    for (key, path) in &one.made {
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(&chain.made[key]).unwrap(), "threads");
    }
}

fn formula(chain: &Chain) -> Weights {
    let Denoiser::Unet(unet) = &chain.train(is_dmp).1.denoiser else { panic!("a DiT") };
    formula_weights(&unet.shape, FORMULA_SEED).unwrap()
}

/// Sample `i` is the same whatever is drawn beside it, and under another caption or guidance another one.
#[test]
fn guidance_captions_and_noise_decide_a_sample() {
    let chain = Chain::new(2, &[], |stage| match stage {
        Stage::Sample(sample) => is_pretrained(&sample.method),
        stage => matches!(stage, Stage::Embeddings(_)),
    });
    let (planned, sample) = chain.sample(is_pretrained, false);
    let draw = |name: &str, sample: Sample| samples(&chain.execute(name, &Stage::Sample(sample), &planned.inputs, 2));
    let all = samples(&chain.made[&planned.key]);
    // 15 of this shape go through the network together: fewer, and two in the next call.
    let [four, fourteen, seventeen] =
        [4, 14, 17].map(|count| draw(&count.to_string(), Sample { count, ..sample.clone() }));
    assert_eq!(four, all[..four.len()]);
    assert_eq!(all, seventeen[..all.len()]);
    assert_eq!(fourteen, seventeen[..fourteen.len()]);
    assert_ne!(
        draw("class", Sample { class: Some(1), ..sample.clone() }),
        draw("other", Sample { class: Some(2), ..sample.clone() })
    );
    let mut unguided = sample.clone();
    unguided.sampler.guidance = 1.0;
    assert_ne!(draw("unguided", unguided), all);
}

#[test]
fn stopped_on_the_way_it_ends_in_the_same_bits() {
    let chain = Chain::new(2, &["method.gate.noise=learned"], |stage| match stage {
        Stage::Train(train) => !is_prompt_tuning(&train.method),
        stage => matches!(stage, Stage::Encode(_) | Stage::Embeddings(_)),
    });
    for is in [is_dmp, is_finetune] {
        let (planned, train) = chain.train(is);
        if let Method::Dmp(dmp) = &train.method {
            assert_eq!(dmp.gate.noise, GateNoise::Learned);
        }
        let directory = chain.folder.path().join(format!("stopped-{}", planned.key));
        std::fs::create_dir(&directory).unwrap();
        for _ in 0..2 {
            chain.stop(planned, &planned.stage, &directory);
        }
        run::execute(&planned.stage, &planned.inputs, &chain.made, 1, &directory).unwrap();
        assert_eq!(weights::read(&directory.join(artifact::WEIGHTS)).unwrap(), chain.learned(is));
    }
    // Samples: between the first hundred and the others.
    let (planned, sample) = chain.sample(is_dmp, false);
    let mut sample = Sample { count: 103, ..sample.clone() };
    (sample.sampler.steps, sample.sampler.guidance) = (1, 1.0);
    let stage = Stage::Sample(sample);
    let directory = chain.folder.path().join("stopped-samples");
    std::fs::create_dir(&directory).unwrap();
    chain.stop(planned, &stage, &directory);
    run::execute(&stage, &planned.inputs, &chain.made, 1, &directory).unwrap();
    let undisturbed = chain.execute("undisturbed", &stage, &planned.inputs, 2);
    assert_eq!(samples(&directory.join(artifact::SAMPLES)), samples(&undisturbed));
}

impl Chain {
    /// Executes a stage up to its first report.
    fn stop(&self, planned: &PlannedStage, stage: &Stage, directory: &Path) {
        let file = |(role, input): (&String, &Input)| match input {
            Input::Stage(key) => (role.clone(), self.made[key].clone()),
            Input::File { path, .. } => (role.clone(), path.clone()),
        };
        let stop = AtomicBool::new(false);
        let progress = |_| stop.store(true, Ordering::Relaxed);
        let inputs = planned.inputs.iter().map(file).collect();
        let job = Job { stage, inputs, directory, threads: 2, device: Device::Cpu, progress: &progress, stop: &stop };
        assert!(matches!(engine::execute(&job), Err(EngineError::Interrupted)));
    }
}

/// A checkpoint of several networks gives what the formula that it was written from gives; another network's is refused
/// before anything runs.
#[test]
fn weights_come_from_a_checkpoint_of_several_networks() {
    let chain = Chain::new(2, &[], |stage| match stage {
        Stage::Train(train) => is_dmp(&train.method),
        Stage::Sample(sample) => is_dmp(&sample.method) && sample.prompt_noise == 0.0,
        stage => matches!(stage, Stage::Encode(_) | Stage::Embeddings(_)),
    });
    let path = chain.folder.path().join("checkpoint.safetensors");
    let other = weights::Tensor { shape: vec![1], values: vec![1.0] };
    let own = formula(&chain).into_iter().map(|(name, tensor)| (format!("model.diffusion_model.{name}"), tensor));
    let checkpoint: Weights = own.chain([("first_stage_model.x".to_owned(), other)]).collect();
    weights::write(&path, &checkpoint).unwrap();

    let from_file = |denoiser: &Denoiser| match denoiser {
        Denoiser::Unet(unet) => Denoiser::Unet(UnetNetwork { shape: unet.shape.clone(), weights: WeightsFrom::File }),
        Denoiser::Dit(_) => panic!("a DiT"),
    };
    let with_file = |inputs: &BTreeMap<String, Input>| {
        let mut inputs = inputs.clone();
        inputs.insert("backbone".to_owned(), Input::File { sha256: Digest::of(b""), path: path.clone() });
        inputs
    };
    let (planned, train) = chain.train(is_dmp);
    let denoiser = from_file(&train.denoiser);
    let stage = Stage::Train(Train { denoiser: denoiser.clone(), ..train.clone() });
    let trained = chain.execute("train", &stage, &with_file(&planned.inputs), 2);
    assert_eq!(weights::read(&trained).unwrap(), chain.learned(is_dmp));
    let (planned, sample) = chain.sample(is_dmp, false);
    let stage = Stage::Sample(Sample { denoiser, ..sample.clone() });
    let drawn = chain.execute("sample", &stage, &with_file(&planned.inputs), 2);
    assert_eq!(samples(&drawn), samples(&chain.made[&planned.key]));

    let Denoiser::Unet(mut wider) = from_file(&sample.denoiser) else { unreachable!("a UNet") };
    wider.shape.widths = vec![16, 48];
    let stage = Stage::Sample(Sample { denoiser: Denoiser::Unet(wider), ..sample.clone() });
    let planned = PlannedStage::new(stage, with_file(&planned.inputs)).unwrap();
    let error = format!("{:#}", engine::Inspection::default().look(&planned).unwrap_err());
    let fault = "down_blocks.1.resnets.0.conv1.weight has shape [32, 16, 3, 3], expected [48, 16, 3, 3]";
    assert!(error.contains("checkpoint.safetensors") && error.contains(fault), "{error}");
}
