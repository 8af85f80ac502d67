//! A class-conditional backbone through all stages: labels of the data, label dropout, a gate that reads t or t + c, guidance
//! of three channels or all, every sampler, both engines. A text-conditional one too, on a caption for each class.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use engine::{Outcome, artifact};
use goldens::Golden;
use manifest::gate::{Architecture, Gate, GateInput};
use manifest::method::{Dmp, Method};
use manifest::plan::Input;
use manifest::scale::{Engine, GuidanceChannels, Sampler, SamplerKind};
use manifest::stage::{Activation, Pretrain, Sample, Stage, Train};
use models::clip::{ClipText, ClipTextConfig};
use models::weights::{self, Weights};
use random::{Draws, Stream};

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
    let Pretrain { dit, data, diffusion, mut optimisation, numerics, .. } = pretrain.clone();
    optimisation.learning_rate = 1e-3;
    execute("backbone", &Stage::Pretrain(Pretrain { optimisation: optimisation.clone(), ..pretrain }), &[]);
    (optimisation.learning_rate, optimisation.final_learning_rate) = (1e-4, 1e-4);
    assert_eq!(weights::read(&artifact_of("backbone")).unwrap()["y_embedder.embedding_table.weight"].shape[0], 5);

    let text = with_text(weights::read(&artifact_of("backbone")).unwrap());
    std::fs::create_dir(folder.path().join("text")).unwrap();
    weights::write(&artifact_of("text"), &text).unwrap();

    let mut learned = Vec::new();
    for (backbone, input) in [
        ("backbone", GateInput::T),
        ("backbone", GateInput::TPlusC),
        ("text", GateInput::T),
        ("text", GateInput::TPlusC),
    ] {
        let method = dmp(input);
        for engine in [Engine::Fast, Engine::Reference] {
            let name = format!("{backbone}-{input:?}-{engine:?}");
            let mut numerics = numerics.clone();
            numerics.engine = engine;
            let train = Train {
                dit: dit.clone(),
                method: method.clone(),
                data: data.clone(),
                latents: None,
                diffusion: diffusion.clone(),
                optimisation: optimisation.clone(),
                seed: 3,
                numerics: numerics.clone(),
            };
            execute(&name, &Stage::Train(train), &[("backbone", backbone)]);
            learned.push(weights::read(&artifact_of(&name)).unwrap());
            let activation = Activation {
                dit: dit.clone(),
                method: method.clone(),
                timesteps: 3,
                diffusion: diffusion.clone(),
                numerics,
            };
            let roles = [("backbone", backbone), ("trained", name.as_str())];
            execute(&format!("activation-{name}"), &Stage::Activation(activation), &roles);
        }
    }
    for pair in learned.chunks(2) {
        for (name, fast) in &pair[0] {
            let apart = fast.values.iter().zip(&pair[1][name].values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-5, "{name}: the engines are {apart:e} apart");
        }
    }
    for (t, t_plus_c) in [(0, 2), (4, 6)] {
        assert_ne!(learned[t], learned[t_plus_c], "a gate that reads the label too learns something else");
    }
    assert_ne!(learned[2], learned[6], "captions are other conditions than classes");

    let sample =
        |backbone: &str, kind: SamplerKind, guidance: f64, guidance_channels: GuidanceChannels, engine: Engine| {
            let mut numerics = numerics.clone();
            numerics.engine = engine;
            let stage = Sample {
                dit: dit.clone(),
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
            let trained = format!("{backbone}-TPlusC-Fast");
            let roles = [("backbone", backbone), ("trained", trained.as_str())];
            let name = format!("samples-{backbone}-{kind:?}-{guidance}-{guidance_channels:?}-{engine:?}");
            let directory = execute(&name, &Stage::Sample(stage), &roles);
            artifact::read_images(&directory.join(artifact::SAMPLES)).unwrap().pixels
        };
    use GuidanceChannels::{All, FirstThree};
    for (backbone, kind) in [
        ("backbone", SamplerKind::Ddpm),
        ("backbone", SamplerKind::Ddim),
        ("backbone", SamplerKind::Pndm),
        ("text", SamplerKind::Ddpm),
    ] {
        let plain = sample(backbone, kind, 1.0, All, Engine::Fast);
        let guided = sample(backbone, kind, 7.5, All, Engine::Fast);
        assert_ne!(guided, plain, "{backbone} {kind:?}");
        // An image has three channels: both choices mean all of them.
        assert_eq!(guided, sample(backbone, kind, 7.5, FirstThree, Engine::Fast));
        let reference = sample(backbone, kind, 7.5, All, Engine::Reference);
        let off = guided.iter().zip(&reference).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        assert!(off * 100 < guided.len(), "{backbone} {kind:?}: {off} of {} bytes differ by more than 1", guided.len());
    }
}

/// The same backbone, conditioned on captions in the place of classes: the small text encoder of the goldens embeds a
/// caption for each class and the null caption, and a projection of random weights stands in front.
fn with_text(backbone: Weights) -> Weights {
    let golden = Golden::open("clip_text_tiny");
    let count = |key: &str| golden.config()[key].as_u64().unwrap() as usize;
    let config = ClipTextConfig {
        vocabulary: count("vocabulary"),
        positions: count("positions"),
        width: count("width"),
        depth: count("depth"),
        heads: count("heads"),
    };
    let state = golden.group("sd.").into_iter();
    let state: Weights =
        state.map(|(name, array)| (name, weights::Tensor { values: array.f32(), shape: array.shape })).collect();
    let clip = ClipText::new(&config, &weights::constants(&state, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let end = config.vocabulary as u32 - 1;
    let captions = [
        [end - 1, 1, 2, end],
        [end - 1, 3, end, end],
        [end - 1, 4, 5, end],
        [end - 1, 6, end, end],
        [end - 1, end, end, end],
    ];
    let pooled = clip.forward(&Tensor::new(&captions, &Device::Cpu).unwrap()).unwrap().pooled;

    let mut tensors = weights::constants(&backbone, DType::F32, &Device::Cpu).unwrap();
    let table = tensors.remove("y_embedder.embedding_table.weight").unwrap();
    let hidden = table.dim(1).unwrap();
    let mut values = vec![0.0; hidden * config.width];
    Draws::new(11, Stream::Init, 0).fill_normal(0, &mut values);
    let weight = Tensor::from_vec(values, (hidden, config.width), &Device::Cpu).unwrap();
    tensors.insert("y_embedder.proj.weight".to_owned(), (weight * 0.2).unwrap());
    tensors.insert("y_embedder.proj.bias".to_owned(), Tensor::zeros(hidden, DType::F32, &Device::Cpu).unwrap());
    weights::from_tensors(&models::dit::with_captions(&tensors, &pooled).unwrap()).unwrap()
}
