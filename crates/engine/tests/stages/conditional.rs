//! A class-conditional backbone through all stages: labels of the data, label dropout, a gate that reads t or t + c, guidance
//! of three channels or all, every sampler, both engines.

use std::collections::BTreeMap;

use engine::{Outcome, artifact};
use manifest::gate::{Architecture, Gate, GateInput};
use manifest::method::{Dmp, Method};
use manifest::plan::Input;
use manifest::scale::{Engine, GuidanceChannels, Sampler, SamplerKind};
use manifest::stage::{Activation, Pretrain, Sample, Stage, Train};
use models::weights;

use crate::run;

const RECIPE: [&str; 6] = [
    "dit.classes=4",
    "dit.label_dropout=0.1",
    "data.count=64",
    "optimisation.iterations=12",
    "optimisation.batch=8",
    "optimisation.warmup_iterations=1",
];

fn dmp(input: GateInput) -> Method {
    let stages = run::table4(&[]);
    let found = stages.iter().find_map(|planned| match &planned.stage {
        Stage::Train(Train { method: Method::Dmp(dmp), .. }) if dmp.gate.architecture == Architecture::Linear => {
            Some(dmp.clone())
        }
        _ => None,
    });
    let dmp: Dmp = found.expect("Table 4 is about DMP");
    Method::Dmp(Dmp { gate: Gate { input, ..dmp.gate }, ..dmp })
}

#[test]
fn labels_guide_from_training_to_samples() {
    let Stage::Pretrain(pretrain) = run::recipe("tiny-backbone", &RECIPE).remove(0).stage else {
        panic!("the recipe of a backbone")
    };
    let folder = tempfile::tempdir().unwrap();
    let artifact_of = |name: &str| folder.path().join(name).join(artifact::WEIGHTS);
    let execute = |name: &str, stage: &Stage, roles: &[(&str, &str)]| {
        let directory = folder.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let input = |(role, of): &(&str, &str)| {
            (role.to_string(), Input::File { sha256: manifest::digest::Digest::of(b""), path: artifact_of(of) })
        };
        let inputs: BTreeMap<String, Input> = roles.iter().map(input).collect();
        let finished = run::execute(stage, &inputs, &BTreeMap::new(), 2, &directory).unwrap();
        assert_eq!(finished.outcome, Outcome::Completed, "{name}");
        directory
    };
    let Pretrain { denoiser, data, diffusion, mut optimisation, numerics, .. } = pretrain.clone();
    optimisation.learning_rate = 1e-3;
    execute("backbone", &Stage::Pretrain(Pretrain { optimisation: optimisation.clone(), ..pretrain }), &[]);
    (optimisation.learning_rate, optimisation.final_learning_rate) = (1e-4, 1e-4);
    assert_eq!(weights::read(&artifact_of("backbone")).unwrap()["y_embedder.embedding_table.weight"].shape[0], 5);

    let mut learned = Vec::new();
    for input in [GateInput::T, GateInput::TPlusC] {
        let method = dmp(input);
        for engine in [Engine::Fast, Engine::Reference] {
            let name = format!("{input:?}-{engine:?}");
            let mut numerics = numerics.clone();
            numerics.engine = engine;
            let train = Train {
                denoiser: denoiser.clone(),
                method: method.clone(),
                data: data.clone(),
                latents: None,
                diffusion: diffusion.clone(),
                optimisation: optimisation.clone(),
                seed: 3,
                numerics: numerics.clone(),
            };
            execute(&name, &Stage::Train(train), &[("backbone", "backbone")]);
            learned.push(weights::read(&artifact_of(&name)).unwrap());
            let activation = Activation {
                denoiser: denoiser.clone(),
                method: method.clone(),
                timesteps: 3,
                diffusion: diffusion.clone(),
                numerics,
            };
            let roles = [("backbone", "backbone"), ("trained", name.as_str())];
            execute(&format!("activation-{name}"), &Stage::Activation(activation), &roles);
        }
    }
    for pair in learned.chunks(2) {
        for (name, fast) in &pair[0] {
            let apart = fast.values.iter().zip(&pair[1][name].values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-5, "{name}: the engines are {apart:e} apart");
        }
    }
    assert_ne!(learned[0], learned[2], "a gate that reads the label too learns something else");

    let sample = |kind: SamplerKind, guidance: f64, guidance_channels: GuidanceChannels, engine: Engine| {
        let mut numerics = numerics.clone();
        numerics.engine = engine;
        let stage = Sample {
            denoiser: denoiser.clone(),
            method: dmp(GateInput::TPlusC),
            diffusion: diffusion.clone(),
            latents: None,
            sampler: Sampler { kind, steps: 4, clip_x0: true, guidance, guidance_channels },
            count: 6,
            seed: 5,
            prompt_noise: 0.0,
            class: None,
            numerics,
        };
        let roles = [("backbone", "backbone"), ("trained", "TPlusC-Fast")];
        let name = format!("samples-{kind:?}-{guidance}-{guidance_channels:?}-{engine:?}");
        let directory = execute(&name, &Stage::Sample(stage), &roles);
        artifact::read_images(&directory.join(artifact::SAMPLES)).unwrap().pixels
    };
    use GuidanceChannels::{All, FirstThree};
    for kind in [SamplerKind::Ddpm, SamplerKind::Ddim, SamplerKind::Pndm] {
        let plain = sample(kind, 1.0, All, Engine::Fast);
        let guided = sample(kind, 7.5, All, Engine::Fast);
        assert_ne!(guided, plain, "{kind:?}");
        // An image has three channels: both choices mean all of them.
        assert_eq!(guided, sample(kind, 7.5, FirstThree, Engine::Fast));
        let reference = sample(kind, 7.5, All, Engine::Reference);
        let off = guided.iter().zip(&reference).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        assert!(off * 100 < guided.len(), "{kind:?}: {off} of {} bytes differ by more than 1", guided.len());
    }
}
