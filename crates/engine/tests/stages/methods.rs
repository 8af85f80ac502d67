//! Methods that Table 4 has not, through the same stages: training, a kill on the way, sampling by both engines.

use std::collections::BTreeMap;
use std::path::Path;

use engine::{Outcome, artifact};
use manifest::dataset::Source;
use manifest::gate::Architecture;
use manifest::method::{Backbone, Dmp, Finetune, Lora, Method};
use manifest::plan::{Input, PlannedStage};
use manifest::scale::Engine;
use manifest::stage::{Sample, Stage, Train};
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

/// What the engines learn is compared in `trunk/engines.rs`: Adam turns the rounding of vanishing gradients into whole steps.
fn check(method: &Method) {
    let [fast, again] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let learned = train(method, Engine::Fast, 2, fast.path());
    assert_eq!(learned, train(method, Engine::Fast, 1, again.path()), "threads");

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
    let (dmp, _) = first(|stage| match stage {
        Stage::Train(Train { method: Method::Dmp(dmp), .. }) => {
            (dmp.gate.architecture == Architecture::Linear).then(|| dmp.clone())
        }
        _ => None,
    });
    check(&Method::Dmp(Dmp { backbone: Backbone::FromScratch, ..dmp }));
    check(&Method::Finetune(Finetune { backbone: Backbone::FromScratch }));
}
