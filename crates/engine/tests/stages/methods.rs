//! Methods that Table 4 has not, through the same stages: training, a kill on the way, sampling by both engines.

use std::collections::BTreeMap;
use std::path::Path;

use engine::{Outcome, artifact};
use manifest::dataset::Source;
use manifest::digest::Digest;
use manifest::gate::{Architecture, GateInput};
use manifest::method::{Backbone, Dmp, Finetune, Lora, Method};
use manifest::plan::{Input, PlannedStage};
use manifest::scale::Engine;
use manifest::stage::{Import, Sample, Stage, Train};
use models::weights::{self, Weights};

use crate::run;

/// The first stage that `of` finds in Table 4 at the smoke scale.
fn first<T>(of: impl Fn(&Stage) -> Option<T>) -> (T, BTreeMap<String, Input>) {
    let stages = run::table4(&[]);
    let find = |planned: &PlannedStage| Some((of(&planned.stage)?, planned.inputs.clone()));
    stages.iter().find_map(find).unwrap()
}

fn training(method: &Method, engine: Engine) -> (Train, BTreeMap<String, Input>) {
    let (mut train, mut inputs) =
        first(|stage| if let Stage::Train(train) = stage { Some(train.clone()) } else { None });
    if method.from_scratch() {
        inputs.remove("backbone");
    }
    train.method = method.clone();
    train.numerics.engine = engine;
    (train.optimisation.iterations, train.optimisation.batch) = (6, 6);
    (train.optimisation.learning_rate, train.optimisation.final_learning_rate) = (1e-3, 1e-3);
    let Source::Faces(faces) = &mut train.data else { panic!("the smoke scale draws faces") };
    faces.count = 64;
    (train, inputs)
}

fn train(method: &Method, engine: Engine, threads: usize, folder: &Path) -> Weights {
    let (train, inputs) = training(method, engine);
    let finished = run::execute(&Stage::Train(train), &inputs, &BTreeMap::new(), threads, folder).unwrap();
    assert_eq!(finished.outcome, Outcome::Completed);
    weights::read(&folder.join(artifact::WEIGHTS)).unwrap()
}

/// Bytes of six samples drawn with what `trained` holds.
fn sample(method: &Method, engine: Engine, trained: &Path) -> Vec<u8> {
    let trains = |sample: &Sample| !matches!(sample.method, Method::Pretrained(_));
    let (mut sample, mut inputs) = first(|stage| match stage {
        Stage::Sample(sample) if trains(sample) => Some(sample.clone()),
        _ => None,
    });
    sample.method = method.clone();
    sample.numerics.engine = engine;
    sample.count = 6;
    let Some(Input::Stage(key)) = inputs.remove("trained") else { panic!("training comes before") };
    inputs.insert("trained".to_owned(), Input::Stage(key));
    if method.from_scratch() {
        inputs.remove("backbone");
    }
    let (folder, made) = (tempfile::tempdir().unwrap(), BTreeMap::from([(key, trained.join(artifact::WEIGHTS))]));
    run::execute(&Stage::Sample(sample), &inputs, &made, 2, folder.path()).unwrap();
    artifact::read_images(&folder.path().join(artifact::SAMPLES)).unwrap().pixels
}

/// What a file holds of a method.
fn imported(method: &Method, file: &Path) -> Result<Weights, String> {
    let (Train { denoiser, .. }, mut inputs) = training(method, Engine::Fast);
    inputs.retain(|role, _| role == "backbone");
    inputs.insert("trained".to_owned(), Input::File { sha256: Digest::of(b""), path: file.to_owned() });
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::Import(Import { denoiser, method: method.clone() });
    run::attempt(&stage, &inputs, folder.path()).map_err(|error| format!("{error:#}"))?;
    Ok(weights::read(&folder.path().join(artifact::WEIGHTS)).unwrap())
}

/// What the engines learn is compared in `trunk/engines.rs`: Adam turns the rounding of vanishing gradients into whole steps.
fn check(method: &Method) {
    let [fast, again] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let learned = train(method, Engine::Fast, 2, fast.path());
    assert_eq!(learned, train(method, Engine::Fast, 1, again.path()), "threads");

    assert_eq!(
        imported(method, &fast.path().join(artifact::WEIGHTS)).unwrap(),
        learned,
        "what is trained is what is imported"
    );

    let ours = sample(method, Engine::Fast, fast.path());
    let theirs = sample(method, Engine::Reference, fast.path());
    let off = ours.iter().zip(&theirs).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    assert!(off * 200 < ours.len(), "{off} of {} bytes differ by more than 1", ours.len());

    // Stopped twice on the way and gone on with, it ends in the same bits.
    let stopped = tempfile::tempdir().unwrap();
    let (train, inputs) = training(method, Engine::Fast);
    let stage = Stage::Train(train);
    // Of training: after the first step of every call.
    for _ in 0..2 {
        run::stop_at_first_progress(&stage, &inputs, stopped.path());
    }
    run::execute(&stage, &inputs, &BTreeMap::new(), 2, stopped.path()).unwrap();
    assert_eq!(weights::read(&stopped.path().join(artifact::WEIGHTS)).unwrap(), learned);
}

#[test]
fn adapters_train_resume_and_sample() {
    check(&Method::Lora(Lora { rank: 4, alpha: 4.0 }));
}

#[test]
fn backbone_and_patch_train_from_scratch_resume_and_sample() {
    check(&Method::Dmp(Dmp { backbone: Backbone::FromScratch, ..dmp() }));
    check(&Method::Finetune(Finetune { backbone: Backbone::FromScratch }));
}

/// DMP with a linear gate.
fn dmp() -> Dmp {
    let of = |stage: &Stage| match stage {
        Stage::Train(Train { method: Method::Dmp(dmp), .. }) => {
            (dmp.gate.architecture == Architecture::Linear).then(|| dmp.clone())
        }
        _ => None,
    };
    first(of).0
}

#[test]
fn a_patch_is_imported_from_a_file_of_it_alone_or_with_its_backbone_and_no_other() {
    let trained = tempfile::tempdir().unwrap();
    let reads = |input| {
        let mut dmp = dmp();
        dmp.gate.input = input;
        Method::Dmp(dmp)
    };
    let learned = train(&reads(GateInput::TPlusC), Engine::Fast, 2, trained.path());
    let (Train { denoiser, .. }, inputs) = training(&reads(GateInput::TPlusC), Engine::Fast);
    let Input::File { path: backbone, .. } = &inputs["backbone"] else { panic!("it is shipped") };
    let backbone = weights::read(backbone).unwrap();
    let file = trained.path().join("theirs.pt");
    let import = |method: &Method, tensors: &Weights| {
        weights::torch::write(&file, tensors, Some("model")).unwrap();
        imported(method, &file)
    };

    // As the authors' code leaves it.
    let dit = denoiser.dit().unwrap();
    let theirs = patches::released(&reads(GateInput::TPlusC), dit, &backbone, &learned).unwrap().state_dict;
    assert!(theirs.contains_key("w_noise") && !learned.contains_key("w_noise"));
    for input in [GateInput::TPlusC, GateInput::AsReleased] {
        assert_eq!(import(&reads(input), &theirs).unwrap(), learned);
    }
    assert_eq!(import(&reads(GateInput::TPlusC), &learned).unwrap(), learned);

    let refused = |spoil: &dyn Fn(&mut Weights), reasons: &[&str]| {
        let mut spoiled = theirs.clone();
        spoil(&mut spoiled);
        let error = import(&reads(GateInput::TPlusC), &spoiled).unwrap_err();
        assert!(error.contains("theirs.pt"), "{error}");
        reasons.iter().for_each(|reason| assert!(error.contains(reason), "{error}"));
    };
    refused(
        &|w| w.get_mut("blocks.1.attn.proj.bias").unwrap().values[0] += 1.0,
        &["another backbone than", "1 of its"],
    );
    refused(&|w| w.get_mut("gate.bias").unwrap().values[1] = f32::NAN, &["gate.bias: 1 of", "not finite"]);
    refused(&|w| _ = w.remove("gate.bias"), &["missing gate.bias"]);
    refused(&|w| _ = w.remove("pos_embed"), &["missing pos_embed"]);
    refused(&|w| _ = w.insert("gate.more".to_owned(), w["gate.bias"].clone()), &["unexpected gate.more"]);
    refused(
        &|w| w.get_mut("prompt_embeddings").unwrap().shape.swap(0, 2),
        &["prompt_embeddings has shape [64, 64, 4], expected [4, 64, 64]"],
    );
}
