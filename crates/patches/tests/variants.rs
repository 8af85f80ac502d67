//! What each variant is by definition: counts, ties, block awareness, inputs, attention to the letter, bad tensors.

use candle_core::{DType, Device, Tensor};
use manifest::dit::DitConfig;
use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient, Soft, TopK,
};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, Finetune, ImportanceFormula, Init, LoadFormula, Lora, Method, Normal, Position,
    Prepend, Pretrained, PromptTuning, Prompts, Zero,
};
use models::weights::{Tensors, Weights, constants};
use models::{Condition, Hooks};
use patches::{Adapters, Contribution, Initial, PROMPTS, Patch, Trainable, apply, balance, initial_weights, trainable};
use serde_json::Value;

fn dit(hidden: usize, depth: usize, image_size: usize) -> DitConfig {
    DitConfig {
        image_size,
        channels: 4,
        patch: 2,
        hidden,
        depth,
        heads: 4,
        classes: Some(1000),
        text_width: None,
        label_dropout: 0.1,
        learn_sigma: true,
    }
}

fn prompts() -> Prompts {
    Prompts { position: Position::Add(Add {}), depth: Depth::All, init: Init::Zero(Zero {}) }
}

fn dmp() -> Dmp {
    Dmp {
        backbone: Backbone::Pretrained,
        prompts: prompts(),
        gate: Gate {
            architecture: Architecture::Linear,
            selection: Selection::Soft(Soft {}),
            prompts_per_block: BlockAwareness::Distinct,
            input: GateInput::T,
            noise: GateNoise::None,
            learning_rate_factor: 10.0,
        },
        balance: Balance {
            importance: 1.0,
            importance_formula: ImportanceFormula::Paper,
            load: 1.0,
            load_formula: LoadFormula::Count,
        },
    }
}

fn count(tensors: &[Trainable]) -> usize {
    tensors.iter().map(Trainable::elements).sum()
}

/// Tensor number `i` holds `sin(k + i)`, `k = 0, 1, ..`.
fn waves(method: &Method, dit: &DitConfig) -> Tensors {
    let wave = |(i, tensor): (usize, Trainable)| {
        let values = (0..tensor.elements()).map(|k| ((k + i) as f32).sin()).collect();
        (tensor.name, models::weights::Tensor { shape: tensor.shape, values })
    };
    let weights: Weights = trainable(method, dit).into_iter().enumerate().map(wave).collect();
    constants(&weights, DType::F32, &Device::Cpu).unwrap()
}

fn condition(width: usize) -> Condition {
    let row = |scale: f32| (0..2 * width).map(|i| (scale * i as f32).cos()).collect::<Vec<_>>();
    let tensor = |scale| Tensor::from_vec(row(scale), (2, width), &Device::Cpu).unwrap();
    Condition { t: tensor(1.0), label: tensor(0.7) }
}

fn weights(method: &Dmp, dit: &DitConfig, tensors: &Tensors, noise: Option<&Tensor>) -> Vec<Vec<Vec<f32>>> {
    let patch = Patch::build(&Method::Dmp(method.clone()), dit, tensors).unwrap().unwrap();
    patch.mix(&condition(dit.hidden), noise).unwrap().weights().unwrap().to_vec3().unwrap()
}

#[test]
fn goldens_names_shapes_and_counts() {
    let keys: Value = serde_json::from_str(&goldens::model_keys()).unwrap();
    let released = Gate { noise: GateNoise::Learned, ..dmp().gate };
    let mut checked = 0;
    // The file holds other networks too, which `models` checks.
    for (name, entry) in keys.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("DiT")) {
        let parts: Vec<&str> = name.split(':').collect();
        let config = match parts[0] {
            "DiT-B/2" => dit(768, 12, 32),
            "DiT-L/2" => dit(1024, 24, 32),
            "DiT-XL/2" => dit(1152, 28, 32),
            other => panic!("no size {other}"),
        };
        let config = DitConfig { classes: (parts[1] == "cond").then_some(1000), ..config };
        let method = match parts[2] {
            "FT" => Method::Finetune(Finetune::default()),
            "PT" => Method::PromptTuning(PromptTuning { prompts: prompts() }),
            "linear" => Method::Dmp(Dmp { gate: released.clone(), ..dmp() }),
            other => panic!("no method {other}"),
        };
        let tensors = trainable(&method, &config);
        assert_eq!(count(&tensors) as u64, entry["trainable_in_code"].as_u64().unwrap(), "{name}");
        let theirs = entry["tensors"].as_object().unwrap();
        assert_eq!(tensors.len(), theirs.len() - usize::from(parts[2] == "FT"), "{name}: all but pos_embed");
        for tensor in tensors {
            assert_eq!(serde_json::to_value(&tensor.shape).unwrap(), theirs[&tensor.name], "{name}: {}", tensor.name);
        }
        checked += 1;
    }
    assert_eq!(checked, 18);
}

#[test]
fn the_paper_counts_its_parameters_without_noise() {
    for (size, expected) in [("DiT-B/2", 2_556_416), ("DiT-L/2", 6_554_112), ("DiT-XL/2", 8_552_960)] {
        let config = DitConfig::published(size, Some(1000)).unwrap();
        assert_eq!(patches::count(&Method::Dmp(dmp()), &config), expected);
        // The scale of the noise is `[D, N]`.
        let noisy = Dmp { gate: Gate { noise: GateNoise::Learned, ..dmp().gate }, ..dmp() };
        assert_eq!(patches::count(&Method::Dmp(noisy), &config), expected + 256 * config.hidden);
    }
    assert_eq!(trainable(&Method::Pretrained(Pretrained {}), &dit(8, 2, 8)), []);
}

#[test]
fn prompts_scale_with_tokens_and_blocks_with_depth() {
    let shape = |position, depth, config: &DitConfig| {
        let prompts = Prompts { position, depth, init: Init::Zero(Zero {}) };
        trainable(&Method::PromptTuning(PromptTuning { prompts }), config)[0].shape.clone()
    };
    let front = |per_256_tokens| Position::Prepend(Prepend { per_256_tokens });
    let config = dit(8, 5, 16); // 64 tokens
    assert_eq!(shape(Position::Add(Add {}), Depth::All, &config), [5, 64, 8]);
    assert_eq!(shape(front(50), Depth::Half, &config), [2, 13, 8]);
    assert_eq!(shape(front(50), Depth::First, &dit(8, 5, 32)), [1, 50, 8]);
    assert_eq!(shape(front(16), Depth::Half, &dit(8, 1, 8)), [1, 1, 8]);
    assert_eq!(shape(Position::Add(Add {}), Depth::Blocks(3), &config), [3, 64, 8]);
}

#[test]
fn only_the_first_blocks_have_prompts() {
    let config = dit(8, 4, 6);
    let method = Method::Dmp(Dmp { prompts: Prompts { depth: Depth::Blocks(2), ..prompts() }, ..dmp() });
    let patch = Patch::build(&method, &config, &waves(&method, &config)).unwrap().unwrap();
    assert_eq!(patch.blocks(), 2);
    let mixture = patch.mix(&condition(8), None).unwrap();
    let x = Tensor::zeros((2, 9, 8), DType::F32, &Device::Cpu).unwrap();
    for block in 0..4 {
        let entered = mixture.before_block(block, x.clone()).unwrap().abs().unwrap().sum_all().unwrap();
        assert_eq!(entered.to_scalar::<f32>().unwrap() > 0.0, block < 2, "block {block}");
    }
}

/// Eq. 12-13 by hand: sums over blocks `[1, 1/2, 1/4, 1/4]` for one sample, `[1/2, 1/2, 1/2, 1/2]` for the other. Both
/// have mean 1/2; the variances are 3/32 and 0.
#[test]
fn the_importance_of_the_paper_is_its_formula() {
    let weights = [0.75_f32, 0.25, 0.0, 0.0, 0.125, 0.125, 0.25, 0.5, 0.25, 0.25, 0.25, 0.25, 0.375, 0.375, 0.25, 0.0];
    let weights = Tensor::from_slice(&weights, (2, 2, 4), &Device::Cpu).unwrap();
    let value = |formula| balance::importance(formula, &weights).unwrap().to_scalar::<f32>().unwrap();
    let expected = 0.5 * 0.09375 / (0.25 + 1e-5);
    assert!((value(ImportanceFormula::Paper) - expected).abs() < 1e-7);
    // The released code's: one variance over all eight sums, unbiased.
    assert!((value(ImportanceFormula::OfficialCode) - 4.0 * 0.09375 / 7.0 / 0.25).abs() < 1e-7);
}

/// Scores by hand: `q = W_q p` is (1, 0), (2, 1), (3, 1), (0, 0) for the four prompts of both blocks; the key is
/// `W_k (2, -1, block)`, (2, -1) before the first block and (1, 0) before the second.
#[test]
fn attention_over_prompts_scores_prompts_by_the_timestep() {
    let config = dit(2, 2, 4);
    let gate = Gate { architecture: Architecture::AttentionOverPrompts, ..dmp().gate };
    let pool = [1_f32, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0];
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let tensors = Tensors::from([
        (PROMPTS.to_owned(), tensor(&[pool, pool].concat(), &[2, 4, 2])),
        ("gate.q.weight".to_owned(), tensor(&[1.0, 2.0, 0.0, 1.0], &[2, 2])),
        ("gate.k.weight".to_owned(), tensor(&[1.0, 0.0, -1.0, 0.0, 1.0, 1.0], &[2, 3])),
    ]);
    let patch = Patch::build(&Method::Dmp(Dmp { gate, ..dmp() }), &config, &tensors).unwrap().unwrap();
    let condition = Condition { t: tensor(&[2.0, -1.0], &[1, 2]), label: tensor(&[5.0, 5.0], &[1, 2]) };
    let found = patch.mix(&condition, None).unwrap().weights().unwrap().to_vec3::<f32>().unwrap();
    for (found, scores) in found.iter().zip([[2.0_f32, 3.0, 5.0, 0.0], [1.0, 2.0, 3.0, 0.0]]) {
        let powers = scores.map(|score| (score / 2_f32.sqrt()).exp());
        for (found, power) in found[0].iter().zip(powers) {
            assert!((found - power / powers.iter().sum::<f32>()).abs() < 1e-6, "{found:?}, scores {scores:?}");
        }
    }
}

#[test]
fn ties_go_to_the_lowest_prompts() {
    let config = dit(8, 2, 6); // 9 tokens
    let top = |keep, kept| TopK { keep, weights: kept, gradient: SelectionGradient::StraightThrough };
    let gated = |top| Dmp { gate: Gate { selection: Selection::TopK(top), ..dmp().gate }, ..dmp() };
    let method = gated(top(0.75, KeptWeights::One));
    let start = initial_weights(&trainable(&Method::Dmp(method.clone()), &config), &Weights::new(), 0);
    let start = constants(&start, DType::F32, &Device::Cpu).unwrap();
    // floor(0.75 * 9) = 6.
    let expected = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0];
    assert!(weights(&method, &config, &start, None).iter().flatten().all(|row| row == &expected));
    let one = weights(&gated(top(0.01, KeptWeights::Softmax)), &config, &start, None);
    assert!(
        one.iter().flatten().all(|row| row[0] == 1.0 && row[1..].iter().all(|&w| w == 0.0)),
        "at least one is kept"
    );

    let tensors = waves(&Method::Dmp(method.clone()), &config);
    for row in weights(&gated(top(0.75, KeptWeights::Softmax)), &config, &tensors, None).iter().flatten() {
        assert_eq!(row.iter().filter(|&&w| w > 0.0).count(), 6);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn a_uniform_gate_does_not_tell_blocks_apart() {
    let config = dit(8, 3, 6);
    for architecture in [Architecture::Linear, Architecture::AttentionLiteral] {
        for (awareness, same) in [(BlockAwareness::Uniform, true), (BlockAwareness::Distinct, false)] {
            let gate = Gate { architecture, prompts_per_block: awareness, noise: GateNoise::Learned, ..dmp().gate };
            let method = Dmp { gate, ..dmp() };
            let tensors = waves(&Method::Dmp(method.clone()), &config);
            let patch = Patch::build(&Method::Dmp(method), &config, &tensors).unwrap().unwrap();
            let noise = Tensor::arange(0_f32, 54.0, &Device::Cpu).unwrap().sin().unwrap().reshape((3, 2, 9)).unwrap();
            let mixture = patch.mix(&condition(8), Some(&noise)).unwrap();
            let enters = match mixture.contribution() {
                Contribution::Prompts { weights, .. } => weights.to_vec3::<f32>().unwrap(),
                Contribution::Vectors { vectors, .. } => vectors.to_vec3::<f32>().unwrap(),
            };
            assert_eq!(enters[0] == enters[1] && enters[1] == enters[2], same, "{architecture:?}, {awareness:?}");
        }
    }
}

#[test]
fn the_released_gate_reads_the_label_where_prompts_are_added() {
    let config = dit(8, 2, 6);
    let front = Position::Prepend(Prepend { per_256_tokens: 256 });
    for (position, like) in [(Position::Add(Add {}), GateInput::TPlusC), (front, GateInput::T)] {
        let with = |input| {
            let prompts = Prompts { position: position.clone(), ..prompts() };
            let method = Dmp { prompts, gate: Gate { input, ..dmp().gate }, ..dmp() };
            weights(&method, &config, &waves(&Method::Dmp(method.clone()), &config), None)
        };
        assert_eq!(with(GateInput::AsReleased), with(like));
        assert_ne!(with(GateInput::T), with(GateInput::TPlusC));
    }
}

#[test]
fn noise_acts_in_training_only_and_where_the_gate_has_it() {
    let config = dit(8, 2, 6);
    let noise = Tensor::ones((2, 2, 9), DType::F32, &Device::Cpu).unwrap();
    let noise = (noise.cumsum(2).unwrap() / 9.0).unwrap();
    for (kind, moves) in [(GateNoise::None, false), (GateNoise::Learned, true)] {
        let method = Dmp { gate: Gate { noise: kind, ..dmp().gate }, ..dmp() };
        let tensors = waves(&Method::Dmp(method.clone()), &config);
        let (calm, noisy) =
            (weights(&method, &config, &tensors, None), weights(&method, &config, &tensors, Some(&noise)));
        assert_eq!(calm != noisy, moves, "{kind:?}");
    }
}

#[test]
fn attention_to_the_letter_adds_one_vector_to_every_token() {
    let config = dit(8, 2, 6);
    let gate = Gate { architecture: Architecture::AttentionLiteral, ..dmp().gate };
    let method = Method::Dmp(Dmp { gate, ..dmp() });
    let mut tensors = waves(&method, &config);
    let condition = condition(8);
    let x = Tensor::zeros((2, 9, 8), DType::F32, &Device::Cpu).unwrap();
    let entered = |tensors: &Tensors, block| {
        let patch = Patch::build(&method, &config, tensors).unwrap().unwrap();
        let mixture = patch.mix(&condition, None).unwrap();
        assert!(mixture.weights().unwrap().to_vec3::<f32>().unwrap().iter().flatten().flatten().all(|&w| w == 1.0));
        mixture.before_block(block, x.clone()).unwrap().to_vec3::<f32>().unwrap()
    };
    let (v, o) = (&tensors["gate.v.weight"], &tensors["gate.o.weight"]);
    for block in 0..2 {
        let index = Tensor::full(block as f32, (2, 1), &Device::Cpu).unwrap();
        let seen = Tensor::cat(&[&condition.t, &index], 1).unwrap();
        let expected = seen.matmul(&v.t().unwrap()).unwrap().matmul(&o.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
        for (tokens, expected) in entered(&tensors, block).iter().zip(expected) {
            for (a, b) in tokens.iter().flat_map(|token| token.iter().zip(&expected)) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
    let before = entered(&tensors, 1);
    let prompts = (&tensors[PROMPTS] + 1.0).unwrap();
    tensors.insert(PROMPTS.to_owned(), prompts);
    assert_eq!(before, entered(&tensors, 1), "prompts drop out");

    let start = trainable(&method, &config);
    let zero: Vec<_> = start.iter().filter(|t| t.initial == Initial::Zero).map(|t| t.name.as_str()).collect();
    assert_eq!(zero, [PROMPTS, "gate.o.weight"]);
}

#[test]
fn initial_values_are_those_asked_for() {
    let config = dit(16, 4, 16);
    let method =
        Method::Dmp(Dmp { prompts: Prompts { init: Init::Normal(Normal { std: 0.3 }), ..prompts() }, ..dmp() });
    let start = initial_weights(&trainable(&method, &config), &Weights::new(), 1);
    let values = &start[PROMPTS].values;
    let deviation = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
    assert!((deviation / 0.3 - 1.0).abs() < 4.0 / (2.0 * values.len() as f32).sqrt(), "{deviation}");
    assert!(start["gate.weight"].values.iter().all(|&v| v == 0.0));

    let backbone = models::dit::initial_weights(&config, 7);
    let tuned = initial_weights(&trainable(&Method::Finetune(Finetune::default()), &config), &backbone, 1);
    assert_eq!(tuned.len(), backbone.len() - 1);
    assert!(tuned.iter().all(|(name, tensor)| tensor == &backbone[name]));
}

#[test]
fn other_tensors_are_refused_with_all_faults() {
    let config = dit(8, 2, 6);
    let method = Method::Dmp(dmp());
    let mut tensors = waves(&method, &config);
    tensors.insert("w_noise".to_owned(), tensors[PROMPTS].clone());
    tensors.insert("gate.bias".to_owned(), tensors[PROMPTS].clone());
    tensors.remove("gate.weight");
    let message = Patch::build(&method, &config, &tensors).unwrap_err().to_string();
    for part in ["missing gate.weight [9, 9]", "gate.bias has shape [2, 9, 8], expected [9]", "unexpected w_noise"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(Patch::build(&Method::Finetune(Finetune::default()), &config, &tensors).unwrap().is_none());
}

#[test]
fn adapters_start_at_the_backbone_and_change_its_projections_only() {
    let config = dit(8, 2, 6);
    let method = Method::Lora(Lora { rank: 3, alpha: 6.0 });
    let tensors = trainable(&method, &config);
    assert_eq!(count(&tensors), 2 * 3 * ((8 + 24) + (8 + 8)));
    let start = initial_weights(&tensors, &Weights::new(), 4);
    // Uniform draws from [-a, a) with a = 1 / sqrt 8.
    let a = &start["lora.blocks.1.attn.proj.a"].values;
    assert!(a.iter().all(|v| v.abs() < 8_f32.sqrt().recip()) && a.iter().any(|v| v.abs() > 0.2), "{a:?}");
    assert!(start["lora.blocks.1.attn.proj.b"].values.iter().all(|&v| v == 0.0));

    let backbone = constants(&models::dit::initial_weights(&config, 7), DType::F32, &Device::Cpu).unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let trunk = |tensors: &Tensors| apply(&method, &config, &backbone, tensors).unwrap().trunk;
    let start = constants(&start, DType::F32, &Device::Cpu).unwrap();
    for (name, tensor) in trunk(&start) {
        assert_eq!(values(&tensor), values(&backbone[&name]), "{name}");
    }
    let waves = waves(&method, &config);
    for (name, tensor) in trunk(&waves) {
        let adapted = name.ends_with("attn.qkv.weight") || name.ends_with("attn.proj.weight");
        assert_eq!(values(&tensor) != values(&backbone[&name]), adapted, "{name}");
    }
    let merged = Adapters::build(&method, &config, &waves).unwrap().unwrap().merged(&backbone).unwrap();
    let dot = |i: usize, j: usize| {
        let at = |part: &str, i: usize, j: usize| {
            waves[&format!("lora.blocks.1.attn.qkv.{part}")].get(i).unwrap().get(j).unwrap().to_scalar::<f32>().unwrap()
        };
        (0..3).map(|k| at("b", i, k) * at("a", k, j)).sum::<f32>()
    };
    let weight = "blocks.1.attn.qkv.weight";
    for (i, row) in merged[weight].to_vec2::<f32>().unwrap().into_iter().enumerate() {
        for (j, value) in row.into_iter().enumerate() {
            let frozen = backbone[weight].get(i).unwrap().get(j).unwrap().to_scalar::<f32>().unwrap();
            assert!((value - (frozen + 6.0 / 3.0 * dot(i, j))).abs() < 1e-5, "{i} {j}");
        }
    }
    assert!(apply(&method, &config, &backbone, &Tensors::new()).unwrap_err().to_string().contains("missing lora."));
}
