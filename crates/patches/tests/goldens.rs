//! Patches against the authors' code: outputs, gate weights, loads, every gradient (goldens, groups b and c).

use candle_core::{DType, Device, Result, Tensor, Var};
use goldens::{Array, Golden, assert_close};
use manifest::dit::DitConfig;
use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient, Soft, TopK,
};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, ImportanceFormula, Init, LoadFormula, Lora, Method, Position, Prepend,
    PromptTuning, Prompts, Zero,
};
use models::weights::{self, Tensors, Weights, gradients, variables};
use models::{Dit, Hooks, Unpatched};
use patches::{Applied, Contribution, ContributionGradient, Patch, apply, balance};
use serde_json::Value;

fn tensor(array: &Array) -> Tensor {
    Tensor::from_vec(array.f32(), array.shape.as_slice(), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn state(golden: &Golden, prefix: &str) -> Tensors {
    let tensors = golden.group(prefix).into_iter();
    let tensors = tensors.map(|(n, a)| (n, weights::Tensor { values: a.f32(), shape: a.shape }));
    variables(&Weights::from_iter(tensors), DType::F32, &Device::Cpu).unwrap()
}

fn count(config: &Value, key: &str) -> usize {
    config[key].as_u64().unwrap_or_else(|| panic!("no {key}")) as usize
}

fn dit_config(config: &Value) -> DitConfig {
    DitConfig {
        image_size: count(config, "input"),
        channels: count(config, "in_channels"),
        patch: count(config, "patch"),
        hidden: count(config, "hidden"),
        depth: count(config, "depth"),
        heads: count(config, "heads"),
        classes: (config["uncond"] != true).then(|| count(config, "num_classes")),
        text_width: None,
        label_dropout: config["drop"].as_f64().unwrap_or(0.1),
        learn_sigma: config["learn_sigma"] != false,
    }
}

/// The released code's method with a case's switches.
fn method(case: &Value, dit: &DitConfig) -> Method {
    let position = match case["vp"].as_str() {
        Some("add") => Position::Add(Add {}),
        Some("prepend") => {
            let (prompts, tokens) = (count(case, "tokens"), dit.tokens());
            Position::Prepend(Prepend { per_256_tokens: (prompts * 256 + tokens / 2) / tokens })
        }
        other => panic!("vp {other:?}"),
    };
    let prompts = Prompts { position, depth: Depth::All, init: Init::Zero(Zero {}) };
    if case["gate"] == "PT" {
        return Method::PromptTuning(PromptTuning { prompts });
    }
    let keep = case["topk"].as_f64().unwrap();
    let selection = if keep == 1.0 {
        Selection::Soft(Soft {})
    } else {
        Selection::TopK(TopK { keep, weights: KeptWeights::Softmax, gradient: SelectionGradient::None })
    };
    let gate = Gate {
        architecture: Architecture::Linear,
        selection,
        prompts_per_block: BlockAwareness::Distinct,
        input: GateInput::AsReleased,
        noise: GateNoise::Learned,
        learning_rate_factor: 10.0,
    };
    let balance = Balance {
        importance: 1.0,
        importance_formula: ImportanceFormula::OfficialCode,
        load: 1.0,
        load_formula: LoadFormula::Smooth,
    };
    Method::Dmp(Dmp { backbone: Backbone::Pretrained, prompts, gate, balance })
}

/// Checks all cases of a file.
fn check(file: &str, gradient_tolerance: f64) {
    let golden = Golden::open(file);
    let config = dit_config(golden.config());
    let backbone = state(&Golden::open("dmp_backbone"), "sd.");
    let dit = Dit::new(&config, &backbone).unwrap();
    let cases = golden.config()["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let close = |ours: &Tensor, tensor: &str, tolerance: f64| {
            let theirs = golden.get(&format!("{name}.{tensor}"));
            assert_eq!(ours.dims(), theirs.shape, "{name}.{tensor}");
            assert_close(&format!("{name}.{tensor}"), &values(ours), &theirs, tolerance);
        };

        let own = state(&golden, &format!("{name}.sd."));
        // Prompts of the first blocks only are those of all blocks of a shallower network.
        let prompted = DitConfig { depth: count(case, "pt_depth"), ..config.clone() };
        let patch = match Patch::build(&method(case, &config), &prompted, &own) {
            Ok(patch) => patch.expect("a patch"),
            Err(error) => panic!("{name}: {error}"),
        };

        let mut labels: Vec<u32> = golden.get("in.y").usize().into_iter().map(|label| label as u32).collect();
        if let (Some(null), Some(uniform)) = (config.classes, golden.find(&format!("{name}.drop_uniform"))) {
            let dropped = |u: &f64| *u < config.label_dropout;
            labels.iter_mut().zip(&uniform.values).filter(|(_, u)| dropped(u)).for_each(|(y, _)| *y = null as u32);
        }
        let labels = Tensor::new(labels, &Device::Cpu).unwrap();
        let noise = golden.find(&format!("{name}.gate_noise")).as_ref().map(tensor);
        let x = Var::from_tensor(&tensor(&golden.get("in.x"))).unwrap().into_inner();

        let condition = dit.condition(&tensor(&golden.get("in.t")), &labels).unwrap();
        let mixture = patch.mix(&condition, noise.as_ref()).unwrap();
        let out = dit.forward(&x, &condition, &mixture).unwrap();
        close(&out, "out", 5e-6);
        let loss = (out * tensor(&golden.get("in.w"))).unwrap().sum_all().unwrap();
        close(&loss, "loss", 5e-6);
        if case["gate"] != "PT" {
            let weights = mixture.weights().unwrap();
            close(&weights, "routing_mask", 2e-6);
            let none = Tensor::zeros((patch.blocks(), patch.prompts()), DType::F32, &Device::Cpu).unwrap();
            close(mixture.smooth_load().unwrap_or(&none), "load", 5e-6);
        }

        let mut all = backbone.clone();
        all.extend(own);
        all.insert("in.x".to_owned(), x);
        let ours = gradients(&loss, &all).unwrap();
        let theirs = golden.group(&format!("{name}.grad."));
        assert!(theirs.len() >= 6, "{name} has only {} gradients", theirs.len());
        for (parameter, _) in theirs {
            close(&ours[&parameter], &format!("grad.{parameter}"), gradient_tolerance);
        }
    }
}

#[test]
fn goldens_prompts_added() {
    check("dmp_add_linear", 2e-5);
}

#[test]
fn goldens_prompts_in_front() {
    check("dmp_prepend_linear", 1e-4);
}

#[test]
fn goldens_prompt_tuning() {
    check("dmp_add_pt", 2e-5);
}

/// Stands for a trunk that does not know where weights and prompts come from.
struct Outside {
    weights: Tensor,
    prompts: Tensor,
}

impl Hooks for Outside {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        if block >= self.prompts.dim(0)? {
            return Ok(x);
        }
        x + self.weights.get(block)?.unsqueeze(2)?.broadcast_mul(&self.prompts.get(block)?.unsqueeze(0)?)?
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

/// The way of the hand-written trunk: it returns gradients of weights and prompts, and the patch finishes them.
#[test]
fn goldens_gradients_from_outside() {
    let golden = Golden::open("dmp_add_linear");
    let config = dit_config(golden.config());
    let dit = Dit::new(&config, &state(&Golden::open("dmp_backbone"), "sd.")).unwrap();
    for case in golden.config()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if golden.find(&format!("{name}.drop_uniform")).is_some() {
            continue;
        }
        let own = state(&golden, &format!("{name}.sd."));
        let prompted = DitConfig { depth: count(case, "pt_depth"), ..config.clone() };
        let Method::Dmp(mut dmp) = method(case, &config) else { continue };
        (dmp.balance.importance, dmp.balance.load) = (0.0, 0.0);
        let patch = Patch::build(&Method::Dmp(dmp), &prompted, &own).unwrap().unwrap();
        let labels: Vec<u32> = golden.get("in.y").usize().into_iter().map(|label| label as u32).collect();
        let t = tensor(&golden.get("in.t"));
        let condition = dit.condition(&t, &Tensor::new(labels, &Device::Cpu).unwrap()).unwrap();
        let mixture = patch.mix(&condition, None).unwrap();

        // The trunk sees weights and prompts as independent inputs.
        let Contribution::Prompts { weights, prompts } = mixture.contribution() else { panic!("{name}") };
        let inputs = Tensors::from([
            ("weights".to_owned(), Var::from_tensor(&weights.detach()).unwrap().into_inner()),
            ("prompts".to_owned(), Var::from_tensor(&prompts.detach()).unwrap().into_inner()),
        ]);
        let x = tensor(&golden.get("in.x"));
        let outside = Outside { weights: inputs["weights"].clone(), prompts: inputs["prompts"].clone() };
        let out = dit.forward(&x, &condition, &outside).unwrap();
        let loss = (out * tensor(&golden.get("in.w"))).unwrap().sum_all().unwrap();
        let mut d = gradients(&loss, &inputs).unwrap();
        let d = ContributionGradient::Prompts {
            weights: d.remove("weights").unwrap(),
            prompts: d.remove("prompts").unwrap(),
        };
        for (parameter, ours) in mixture.backward_from(&d).unwrap() {
            if let Some(theirs) = golden.find(&format!("{name}.grad.{parameter}")) {
                assert_close(&format!("{name}.grad.{parameter}"), &values(&ours), &theirs, 2e-5);
            }
        }
    }
}

#[test]
fn goldens_balancing_losses() {
    let golden = Golden::open("diffusion_losses");
    for (kind, load) in [("soft", "in.load_soft"), ("sparse", "in.load_hard")] {
        let gates = Var::from_tensor(&tensor(&golden.get(&format!("in.gates_{kind}")))).unwrap().into_inner();
        let importance = balance::importance(ImportanceFormula::OfficialCode, &gates).unwrap();
        let load = balance::load(LoadFormula::Smooth, &gates, Some(&tensor(&golden.get(load)))).unwrap();
        let named = Tensors::from([("gates".to_owned(), gates.clone())]);
        let gradient = gradients(&importance, &named).unwrap();
        let count = balance::load(LoadFormula::Count, &gates, None).unwrap();
        assert_eq!(values(&count), [0.0]);
        for run in ["linear.constant", "linear.min_snr_5", "cosine.constant", "cosine.min_snr_5"] {
            let name = |part: &str| format!("{run}.{kind}.{part}");
            let close = |ours: &Tensor, part: &str| {
                assert_close(&name(part), &values(ours), &golden.get(&name(part)), 2e-6);
            };
            close(&importance, "importance");
            close(&load, "load");
            close(&gradient["gates"], "grad.gates");
        }
    }
    let gates = tensor(&golden.get("in.gates_soft"));
    let all = balance::importance(ImportanceFormula::OfficialCode, &gates).unwrap();
    assert_close("importance_over_BN", &values(&all), &golden.get("check.importance_over_BN"), 2e-6);
    let one = balance::importance(ImportanceFormula::OfficialCode, &gates.narrow(1, 0, 1).unwrap()).unwrap();
    assert_close("batch1.importance", &values(&one), &golden.get("batch1.importance"), 2e-6);
    let load = balance::load(LoadFormula::Smooth, &gates, Some(&tensor(&golden.get("in.load_soft")))).unwrap();
    assert_close("batch1.load", &values(&load), &golden.get("batch1.load"), 2e-6);
}

/// Group i: the base is that of `dit_strong`.
#[test]
fn goldens_adapters() {
    let golden = Golden::open("lora_dit");
    let base = Golden::open("dit_strong");
    let (config, backbone) = (dit_config(base.config()), state(&base, "sd."));
    let tensors = state(&golden, "lora.").into_iter().map(|(name, tensor)| (format!("lora.{name}"), tensor));
    let tensors: Tensors = tensors.collect();
    let labels: Vec<u32> = golden.get("in.y").usize().into_iter().map(|label| label as u32).collect();
    let labels = Tensor::new(labels, &Device::Cpu).unwrap();
    for alpha in [4.0, 8.0] {
        let method = Method::Lora(Lora { rank: 4, alpha });
        let Applied { trunk, patch } = apply(&method, &config, &backbone, &tensors).unwrap();
        assert!(patch.is_none());
        let dit = Dit::new(&config, &trunk).unwrap();
        let condition = dit.condition(&tensor(&golden.get("in.t")), &labels).unwrap();
        let out = dit.forward(&tensor(&golden.get("in.x")), &condition, &Unpatched).unwrap();
        let name = |part: &str| format!("r4_alpha{alpha}.{part}");
        assert_close(&name("out"), &values(&out), &golden.get(&name("out")), 1e-5);
        let loss = (out * tensor(&golden.get("in.w"))).unwrap().sum_all().unwrap();
        let ours = gradients(&loss, &tensors).unwrap();
        let theirs = golden.group(&name("grad."));
        assert_eq!(theirs.len(), tensors.len());
        for (parameter, theirs) in theirs {
            let ours = &ours[&format!("lora.{parameter}")];
            assert_eq!(ours.dims(), theirs.shape, "{parameter}");
            assert_close(&name(&parameter), &values(ours), &theirs, 1e-4);
        }
    }
}
