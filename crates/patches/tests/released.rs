//! Patches written for the authors' class, and what their class computes with them (`bench/peers/patch.py`, which ran their code
//! once on what `writes_what_their_class_is_given` writes; `released.safetensors` is what came out).

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use goldens::assert_close;
use manifest::dit::DitConfig;
use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient, Soft, TopK,
};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, Finetune, ImportanceFormula, Init, LoadFormula, Method, Position, Prepend,
    PromptTuning, Prompts, Zero,
};
use models::dit::{Dit, named_shapes};
use models::weights::{self, Weights, constants};
use patches::{Patch, released, trainable};
use random::{Draws, Stream};

const BATCH: usize = 3;

fn dit(classes: Option<usize>) -> DitConfig {
    DitConfig {
        image_size: 4,
        channels: 2,
        patch: 2,
        hidden: 16,
        depth: 3,
        heads: 2,
        classes,
        text_width: None,
        label_dropout: if classes.is_some() { 0.1 } else { 0.0 },
        learn_sigma: true,
    }
}

fn soft() -> Selection {
    Selection::Soft(Soft {})
}

fn top_k(weights: KeptWeights) -> Selection {
    Selection::TopK(TopK { keep: 0.75, weights, gradient: SelectionGradient::None })
}

fn prompts(position: Position, depth: Depth) -> Prompts {
    Prompts { position, depth, init: Init::Zero(Zero {}) }
}

fn added() -> Position {
    Position::Add(Add {})
}

fn in_front() -> Position {
    Position::Prepend(Prepend { per_256_tokens: 128 })
}

fn dmp(prompts: Prompts, gate: Gate) -> Dmp {
    let balance = Balance {
        importance: 1.0,
        importance_formula: ImportanceFormula::Paper,
        load: 1.0,
        load_formula: LoadFormula::Count,
    };
    Dmp { backbone: Backbone::Pretrained, prompts, gate, balance }
}

fn gate(input: GateInput, selection: Selection) -> Gate {
    Gate {
        architecture: Architecture::Linear,
        selection,
        prompts_per_block: BlockAwareness::Distinct,
        input,
        noise: GateNoise::None,
        learning_rate_factor: 1.0,
    }
}

/// Everything that their class can be given.
fn cases() -> Vec<(&'static str, DitConfig, Method)> {
    let all = |position| prompts(position, Depth::All);
    let paper = gate(GateInput::T, soft());
    let uniform = Gate { prompts_per_block: BlockAwareness::Uniform, ..paper.clone() };
    let learned = Gate { noise: GateNoise::Learned, ..gate(GateInput::AsReleased, top_k(KeptWeights::Softmax)) };
    let scratch = Dmp { backbone: Backbone::FromScratch, ..dmp(all(added()), paper.clone()) };
    vec![
        ("paper", dit(None), Method::Dmp(dmp(all(added()), paper.clone()))),
        ("uniform", dit(None), Method::Dmp(dmp(all(added()), uniform))),
        ("scratch", dit(None), Method::Dmp(scratch)),
        ("released", dit(Some(5)), Method::Dmp(dmp(prompts(added(), Depth::Blocks(2)), learned))),
        ("front", dit(None), Method::Dmp(dmp(all(in_front()), gate(GateInput::TPlusC, soft())))),
        ("front_classes", dit(Some(5)), Method::Dmp(dmp(prompts(in_front(), Depth::First), paper))),
        ("tuning", dit(Some(5)), Method::PromptTuning(PromptTuning { prompts: all(added()) })),
    ]
}

fn drawn(shapes: impl IntoIterator<Item = (String, Vec<usize>)>, seed: u64) -> Weights {
    let tensor = |(number, (name, shape)): (u64, (String, Vec<usize>))| {
        let mut values = vec![0.0; shape.iter().product()];
        Draws::new(seed, Stream::Init, number).fill_normal(0, &mut values);
        values.iter_mut().for_each(|v| *v *= 0.3);
        (name, weights::Tensor { shape, values })
    };
    (0..).zip(shapes).map(tensor).collect()
}

/// Backbone and trained tensors of a case.
fn network(dit: &DitConfig, method: &Method) -> (Weights, Weights) {
    let trained = trainable(method, dit).into_iter().map(|tensor| (tensor.name, tensor.shape));
    let backbone = if method.from_scratch() { Weights::new() } else { drawn(named_shapes(dit), 1) };
    let mut trained = drawn(trained, 2);
    if method.from_scratch() {
        // It does not learn, and is the same for all.
        let positions = drawn(named_shapes(dit).into_iter().take(1), 1);
        trained.extend(positions);
    }
    (backbone, trained)
}

fn inputs(dit: &DitConfig) -> (Vec<f32>, Vec<f32>, Vec<u32>) {
    let mut x = vec![0.0; BATCH * dit.elements()];
    Draws::new(3, Stream::Init, 0).fill_normal(0, &mut x);
    let labels = if dit.classes.is_some() { vec![1, 4, 5] } else { vec![0; BATCH] };
    (x, vec![0.0, 321.0, 999.0], labels)
}

fn run(dit: &DitConfig, method: &Method, backbone: &Weights, own: &Weights) -> Vec<f32> {
    let tensors = |weights: &Weights| constants(weights, DType::F32, &Device::Cpu).unwrap();
    let network = Dit::new(dit, &tensors(backbone)).unwrap();
    let patch = Patch::build(method, dit, &tensors(own)).unwrap().unwrap();
    let (x, t, labels) = inputs(dit);
    let x = Tensor::from_vec(x, (BATCH, dit.channels, dit.image_size, dit.image_size), &Device::Cpu).unwrap();
    let t = Tensor::new(t, &Device::Cpu).unwrap();
    let condition = network.condition(&t, &Tensor::new(labels, &Device::Cpu).unwrap()).unwrap();
    let mixture = patch.mix(&condition, None).unwrap();
    network.forward(&x, &condition, &mixture).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn their_class_computes_what_is_computed_here() {
    let theirs = weights::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released.safetensors")).unwrap();
    for (name, dit, method) in cases() {
        let (mut backbone, mut own) = network(&dit, &method);
        for (tensor, _) in named_shapes(&dit) {
            // From scratch, both lie in one file.
            backbone.extend(own.remove_entry(&tensor));
        }
        let ours = run(&dit, &method, &backbone, &own);
        let theirs =
            goldens::Array { shape: vec![ours.len()], values: theirs[name].values.iter().map(|&v| v.into()).collect() };
        assert_close(name, &ours, &theirs, 5e-6);
    }
}

#[test]
fn what_is_written_is_their_state_dict() {
    for (name, dit, method) in cases() {
        let (backbone, trained) = network(&dit, &method);
        let written = released(&method, &dit, &backbone, &trained).unwrap();
        let prompts = &written.state_dict["prompt_embeddings"].shape;
        let mut expected: Vec<String> = named_shapes(&dit).into_iter().map(|(name, _)| name).collect();
        expected.push("prompt_embeddings".to_owned());
        if name != "tuning" {
            expected.extend(["gate.weight", "gate.bias", "w_noise"].map(str::to_owned));
            assert_eq!(written.state_dict["gate.weight"].shape, [prompts[1], dit.hidden + 1], "{name}");
            assert_eq!(written.state_dict["w_noise"].shape, [dit.hidden, prompts[1]], "{name}");
        }
        expected.sort();
        assert!(written.state_dict.keys().eq(&expected), "{name}: {:?}", written.state_dict.keys());
        assert!(written.class.contains(&format!("num_tokens={}, ", prompts[1])), "{name}: {}", written.class);
    }
}

#[test]
fn what_their_class_does_not_compute_is_refused_with_its_reason() {
    let all = |position| prompts(position, Depth::All);
    let refused = |dit: &DitConfig, method: &Method| {
        let (backbone, trained) = network(dit, method);
        released(method, dit, &backbone, &trained).unwrap_err().to_string()
    };
    let attention = Gate { architecture: Architecture::AttentionOverPrompts, ..gate(GateInput::T, soft()) };
    let text = DitConfig { text_width: Some(8), label_dropout: 0.1, ..dit(None) };
    for (dit, method, reason) in [
        (dit(None), Method::Finetune(Finetune::default()), "no prompts"),
        (dit(None), Method::PromptTuning(PromptTuning { prompts: all(in_front()) }), "`prepend` without a gate"),
        (dit(None), Method::Dmp(dmp(all(added()), attention)), "`gate.architecture`"),
        (
            dit(None),
            Method::Dmp(dmp(all(added()), gate(GateInput::T, top_k(KeptWeights::One)))),
            "`gate.selection.weights` is `one`",
        ),
        (dit(Some(5)), Method::Dmp(dmp(all(added()), gate(GateInput::T, soft()))), "theirs reads t + c"),
        (dit(Some(5)), Method::Dmp(dmp(all(in_front()), gate(GateInput::TPlusC, soft()))), "theirs reads t"),
        (text, Method::Dmp(dmp(all(added()), gate(GateInput::T, soft()))), "on text"),
    ] {
        let message = refused(&dit, &method);
        assert!(message.contains(reason), "{message}");
    }
}

/// `RELEASED=folder cargo test --release -p runner -p patches --test released -- --ignored` writes each case's checkpoint,
/// inputs and class for `bench/peers/patch.py`.
#[test]
#[ignore = "writes files for the authors' code, which is run by hand"]
fn writes_what_their_class_is_given() {
    let folder = std::env::var_os("RELEASED").expect("RELEASED is the folder to write to");
    for (name, dit, method) in cases() {
        let path = |end: &str| Path::new(&folder).join(format!("{name}.{end}"));
        let (backbone, trained) = network(&dit, &method);
        let written = released(&method, &dit, &backbone, &trained).unwrap();
        weights::torch::write(&path("pt"), &written.state_dict, None).unwrap();
        std::fs::write(path("class"), written.class).unwrap();
        let (x, t, labels) = inputs(&dit);
        let labels = labels.into_iter().map(|label| label as f32).collect();
        let tensor = |shape: &[usize], values| weights::Tensor { shape: shape.to_vec(), values };
        let image = [BATCH, dit.channels, dit.image_size, dit.image_size];
        let inputs = Weights::from([
            ("x".to_owned(), tensor(&image, x)),
            ("t".to_owned(), tensor(&[BATCH], t)),
            ("y".to_owned(), tensor(&[BATCH], labels)),
        ]);
        weights::write(&path("inputs.safetensors"), &inputs).unwrap();
    }
}
