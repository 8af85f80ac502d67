//! Every gradient of every variant against differences of the loss, in `f64`: at the initial values, after ten steps
//! from there (zero initial values hide the gate's gradient), and at random values.

mod gated;

use candle_core::{DType, Device, Result, Tensor};
use gated::gated_variants;
use manifest::dit::DitConfig;
use manifest::gate::{Architecture, Gate, GateNoise, KeptWeights, Selection, SelectionGradient, Soft};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, Finetune, Init, LoadFormula, Lora, Method, Position, Prepend, PromptTuning,
    Prompts, Zero,
};
use models::weights::{Tensors, Weights, constants, from_tensors, gradients, variables};
use models::{Condition, Dit, Hooks, Unpatched, dit};
use patches::{Applied, PROMPTS, Patch, apply, balance, initial_weights, trainable};
use random::{Draws, Stream};

/// Step of the difference, along a direction of unit normal elements. Where prompts in front are zero, the network bends
/// over 1e-3 (the root of LayerNorm's epsilon): hence a difference of fourth order.
const STEP: f64 = 1e-7;

/// What the difference may be off, relative to a slope above 1; besides it, losses are rounded by their own size.
const TOLERANCE: f64 = 1e-6;

const BATCH: usize = 3;

fn config() -> DitConfig {
    DitConfig {
        image_size: 8,
        channels: 1,
        patch: 4,
        hidden: 8,
        depth: 3,
        heads: 2,
        classes: Some(2),
        text_width: None,
        label_dropout: 0.1,
        learn_sigma: true,
    }
}

fn normals(shape: &[usize], seed: u64, std: f64) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    Draws::new(seed, Stream::TrainNoise, 0).fill_normal(0, &mut values);
    (Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap() * std).unwrap()
}

fn random_weights(shapes: &[(String, Vec<usize>)], std: f64) -> Weights {
    let tensor =
        |(i, (name, shape)): (usize, &(String, Vec<usize>))| (name.clone(), normals(shape, 50 + i as u64, std));
    from_tensors(&shapes.iter().enumerate().map(tensor).collect()).unwrap()
}

fn doubles(weights: &Weights) -> Tensors {
    constants(weights, DType::F64, &Device::Cpu).unwrap()
}

fn scalar(tensor: &Tensor) -> f64 {
    tensor.to_scalar().unwrap()
}

/// Gradients of `loss` at `weights` against differences of `smooth`; returns the slopes by name.
fn compare(
    what: &str,
    weights: &Weights,
    loss: &dyn Fn(&Tensors) -> Result<Tensor>,
    smooth: &dyn Fn(&Tensors) -> Result<Tensor>,
) -> Vec<(String, f64)> {
    let learning = variables(weights, DType::F64, &Device::Cpu).unwrap();
    let gradient = gradients(&loss(&learning).unwrap(), &learning).unwrap();
    let start = doubles(weights);
    let slope = |(number, (name, value)): (usize, (&String, &Tensor))| {
        let direction = normals(value.dims(), 1000 + number as u64, 1.0);
        let at = |step: f64| {
            let mut tensors = start.clone();
            tensors.insert(name.clone(), (value + (&direction * step).unwrap()).unwrap());
            scalar(&smooth(&tensors).unwrap())
        };
        let theirs = (8.0 * (at(STEP) - at(-STEP)) - (at(2.0 * STEP) - at(-2.0 * STEP))) / (12.0 * STEP);
        let ours = scalar(&(&gradient[name] * &direction).unwrap().sum_all().unwrap());
        let allowed = TOLERANCE * theirs.abs().max(1.0) + 4.0 * f64::EPSILON * at(0.0).abs() / STEP;
        assert!((ours - theirs).abs() <= allowed, "{what}: {name}: {ours:e} against {theirs:e}");
        (name.clone(), ours)
    };
    start.iter().enumerate().map(slope).collect()
}

/// A frozen network of random weights and a fixed batch.
struct Bench {
    network: Dit,
    condition: Condition,
    x: Tensor,
    output_weight: Tensor,
}

impl Bench {
    fn new(backbone: &Tensors) -> Result<Self> {
        let network = Dit::new(&config(), backbone)?;
        let t = Tensor::new(&[3_f32, 250.0, 900.0], &Device::Cpu)?;
        let condition = network.condition(&t, &Tensor::new(&[0_u32, 1, 2], &Device::Cpu)?)?;
        let side = config().image_size;
        let x = normals(&[BATCH, config().channels, side, side], 1, 1.0);
        let output_weight = normals(&[BATCH, config().out_channels(), side, side], 2, 0.3);
        Ok(Self { network, condition, x, output_weight })
    }

    fn random() -> Self {
        Self::new(&doubles(&random_weights(&dit::named_shapes(&config()), 0.3))).unwrap()
    }

    fn loss(&self, hooks: &dyn Hooks) -> Result<Tensor> {
        (self.network.forward(&self.x, &self.condition, hooks)? * &self.output_weight)?.sum_all()
    }

    fn mix(&self, method: &Method, tensors: &Tensors) -> Result<patches::Mixture> {
        let patch = Patch::build(method, &config(), tensors).unwrap().expect("a patch");
        let noise = normals(&[patch.blocks(), BATCH, patch.prompts()], 77, 1.0);
        patch.mix(&self.condition, Some(&noise))
    }

    /// Loss of a patched network with the balancing losses.
    fn patched(&self, method: &Method, tensors: &Tensors) -> Result<Tensor> {
        let mixture = self.mix(method, tensors)?;
        let loss = self.loss(&mixture)?;
        mixture.balance()?.map_or(Ok(loss.clone()), |balance| loss + balance.total)
    }
}

/// What a straight-through gradient is the gradient of: the loss with weights that follow the softmax from the constant
/// they have at `start`. Prompts enter as they should, written again.
struct FollowingSoftmax<'a> {
    bench: &'a Bench,
    hard: &'a Dmp,
    soft: Method,
    offset: Tensor,
}

impl<'a> FollowingSoftmax<'a> {
    fn new(bench: &'a Bench, hard: &'a Dmp, start: &Tensors) -> Result<Self> {
        let gate = Gate { selection: Selection::Soft(Soft {}), ..hard.gate.clone() };
        let soft = Method::Dmp(Dmp { gate, ..hard.clone() });
        let constant = bench.mix(&Method::Dmp(hard.clone()), start)?.weights()?;
        let offset = (constant - bench.mix(&soft, start)?.weights()?)?;
        Ok(Self { bench, hard, soft, offset })
    }

    fn loss(&self, tensors: &Tensors) -> Result<Tensor> {
        let weights = (self.bench.mix(&self.soft, tensors)?.weights()? + &self.offset)?;
        let mixture = self.bench.mix(&Method::Dmp(self.hard.clone()), tensors)?;
        let Balance { importance, importance_formula, .. } = self.hard.balance;
        let balance = mixture.balance()?.expect("DMP has balancing losses");
        let importance = (balance::importance(importance_formula, &weights)? * importance)?;
        let load = (balance.load * self.hard.balance.load)?;
        let in_front = matches!(self.hard.prompts.position, Position::Prepend(_));
        let trunk = self.bench.loss(&Given { weights, prompts: tensors[PROMPTS].clone(), in_front })?;
        (trunk + importance)? + load
    }
}

struct Given {
    weights: Tensor,
    prompts: Tensor,
    in_front: bool,
}

impl Hooks for Given {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        let (blocks, n, _) = self.prompts.dims3()?;
        if block >= blocks {
            return Ok(x);
        }
        let prompts = self.weights.get(block)?.unsqueeze(2)?.broadcast_mul(&self.prompts.get(block)?.unsqueeze(0)?)?;
        match (self.in_front, block) {
            (false, _) => x + prompts,
            (true, 0) => Tensor::cat(&[prompts, x], 1),
            (true, _) => Tensor::cat(&[prompts, x.narrow(1, n, x.dim(1)? - n)?], 1),
        }
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        let n = if self.in_front { self.prompts.dim(1)? } else { 0 };
        x.narrow(1, n, x.dim(1)? - n)
    }
}

/// Whether nothing is learned by `tensor`, by the definition of the variant.
fn silent(dmp: &Dmp, tensor: &str) -> bool {
    let noise = dmp.gate.noise == GateNoise::Learned;
    let constant = match &dmp.gate.selection {
        Selection::Soft(_) => false,
        Selection::TopK(top) => (top.weights, top.gradient) == (KeptWeights::One, SelectionGradient::None),
    };
    match dmp.gate.architecture {
        Architecture::AttentionLiteral => tensor == PROMPTS,
        _ if tensor == PROMPTS => false,
        _ => constant && !(noise && dmp.balance.load_formula == LoadFormula::Smooth),
    }
}

/// Whether prompts that start equal stay so, which leaves the gate nothing to learn: in front of the tokens all of the same
/// weight get the same gradient. Noise tells them apart, and so does the softmax behind a weight of 1.
fn symmetric(dmp: &Dmp) -> bool {
    let straight_through = matches!(&dmp.gate.selection, Selection::TopK(top)
        if top.gradient == SelectionGradient::StraightThrough);
    matches!(dmp.prompts.position, Position::Prepend(_))
        && dmp.gate.noise == GateNoise::None
        && dmp.gate.architecture != Architecture::AttentionLiteral
        && !straight_through
}

/// When the logits of a selection are equal, where it jumps.
#[derive(PartialEq)]
enum Tied {
    Never,
    /// Before the first step: without noise a gate that starts at zero is one big tie.
    AtFirst,
    /// Also later: the gate does not learn.
    Always,
}

fn tied(dmp: &Dmp) -> Tied {
    let Gate { architecture, noise, .. } = dmp.gate;
    match &dmp.gate.selection {
        _ if noise == GateNoise::Learned || architecture == Architecture::AttentionLiteral => Tied::Never,
        Selection::Soft(_) => Tied::Never,
        // What is compared follows the softmax, which does not jump.
        Selection::TopK(top) if top.gradient == SelectionGradient::StraightThrough => Tied::Never,
        Selection::TopK(_) if symmetric(dmp) => Tied::Always,
        Selection::TopK(_) if architecture == Architecture::Linear && silent(dmp, "gate.weight") => Tied::Always,
        Selection::TopK(_) => Tied::AtFirst,
    }
}

fn check(bench: &Bench, method: &Method, state: &str, weights: &Weights) -> Vec<(String, f64)> {
    let what = format!("{state}, {method:?}");
    let loss = |tensors: &Tensors| bench.patched(method, tensors);
    match method {
        Method::Dmp(dmp) if dmp.gate.architecture != Architecture::AttentionLiteral => match &dmp.gate.selection {
            Selection::TopK(top) if top.gradient == SelectionGradient::StraightThrough => {
                let following = FollowingSoftmax::new(bench, dmp, &doubles(weights)).unwrap();
                compare(&what, weights, &loss, &|tensors| following.loss(tensors))
            }
            _ => compare(&what, weights, &loss, &loss),
        },
        _ => compare(&what, weights, &loss, &loss),
    }
}

/// Ten steps down the gradient, each tensor by a tenth at most.
fn ten_steps(loss: &dyn Fn(&Tensors) -> Result<Tensor>, mut weights: Weights) -> Weights {
    for _ in 0..10 {
        let tensors = variables(&weights, DType::F64, &Device::Cpu).unwrap();
        let gradient = gradients(&loss(&tensors).unwrap(), &tensors).unwrap();
        for (name, gradient) in from_tensors(&gradient).unwrap() {
            let largest = gradient.values.iter().fold(f32::MIN_POSITIVE, |m, g| m.max(g.abs()));
            let values = &mut weights.get_mut(&name).unwrap().values;
            values.iter_mut().zip(gradient.values).for_each(|(v, g)| *v -= 0.1 * g / largest);
        }
    }
    weights
}

#[test]
fn gated_prompts() {
    let bench = Bench::random();
    for dmp in gated_variants() {
        let method = Method::Dmp(dmp.clone());
        let tensors = trainable(&method, &config());
        let start = initial_weights(&tensors, &Weights::new(), 3);
        let learns = |slope: f64| slope.abs() >= 1e-9;
        let tied = tied(&dmp);
        if tied == Tied::Never {
            check(&bench, &method, "start", &start);
        }
        if tied != Tied::Always {
            let stepped = ten_steps(&|tensors| bench.patched(&method, tensors), start);
            for (name, slope) in check(&bench, &method, "ten steps", &stepped) {
                let idle = silent(&dmp, &name) || (symmetric(&dmp) && name != PROMPTS);
                assert_eq!(learns(slope), !idle, "ten steps: {name} has slope {slope:e} in {dmp:?}");
            }
        }
        let shapes: Vec<_> = tensors.into_iter().map(|t| (t.name, t.shape)).collect();
        for (name, slope) in check(&bench, &method, "random", &random_weights(&shapes, 0.5)) {
            assert_eq!(learns(slope), !silent(&dmp, &name), "random: {name} has slope {slope:e} in {dmp:?}");
        }
    }
}

#[test]
fn ungated_prompts() {
    let bench = Bench::random();
    for position in [Position::Add(Add {}), Position::Prepend(Prepend { per_256_tokens: 192 })] {
        for depth in [Depth::First, Depth::Half, Depth::All, Depth::Blocks(2)] {
            let prompts = Prompts { position: position.clone(), depth, init: Init::Zero(Zero {}) };
            let method = Method::PromptTuning(PromptTuning { prompts });
            let tensors = trainable(&method, &config());
            let start = initial_weights(&tensors, &Weights::new(), 3);
            check(&bench, &method, "start", &start);
            let stepped = ten_steps(&|tensors| bench.patched(&method, tensors), start);
            let slopes = check(&bench, &method, "ten steps", &stepped);
            assert!(slopes.iter().all(|(_, slope)| slope.abs() > 1e-3), "{slopes:?}");
        }
    }
}

#[test]
fn full_fine_tuning() {
    let method = Method::Finetune(Finetune::default());
    let shapes = dit::named_shapes(&config());
    let names: Vec<String> = trainable(&method, &config()).into_iter().map(|t| t.name).collect();
    let loss = |tensors: &Tensors| Bench::new(tensors)?.loss(&Unpatched);
    let start = dit::initial_weights(&config(), 4);
    compare("start", &start, &loss, &loss);
    for (state, weights) in [("ten steps", ten_steps(&loss, start)), ("random", random_weights(&shapes, 0.3))] {
        for (name, slope) in compare(state, &weights, &loss, &loss) {
            assert!(slope.abs() > 1e-6, "{state}: {name} has slope {slope:e}");
            assert!(names.contains(&name) || name == dit::POSITION_EMBEDDING);
        }
    }
}

#[test]
fn adapters() {
    let method = Method::Lora(Lora { rank: 2, alpha: 3.0 });
    let backbone = doubles(&random_weights(&dit::named_shapes(&config()), 0.3));
    let loss = |tensors: &Tensors| {
        let trunk = apply(&method, &config(), &backbone, tensors).unwrap().trunk;
        Bench::new(&trunk)?.loss(&Unpatched)
    };
    let tensors = trainable(&method, &config());
    // B starts at zero: then nothing is learned by A.
    for (name, slope) in compare("start", &initial_weights(&tensors, &Weights::new(), 3), &loss, &loss) {
        assert_eq!(slope == 0.0, name.ends_with(".a"), "{name} has slope {slope:e}");
    }
    let shapes: Vec<_> = tensors.into_iter().map(|t| (t.name, t.shape)).collect();
    for (name, slope) in compare("random", &random_weights(&shapes, 0.5), &loss, &loss) {
        assert!(slope.abs() > 1e-6, "{name} has slope {slope:e}");
    }
}

/// The gate reads embeddings of a backbone that learns: its gradient reaches them too.
#[test]
fn prompts_and_backbone_together() {
    for mut dmp in gated_variants().into_iter().filter(|dmp| dmp.gate.selection == Selection::Soft(Soft {})) {
        dmp.backbone = Backbone::FromScratch;
        let method = Method::Dmp(dmp.clone());
        let loss = |tensors: &Tensors| {
            let Applied { trunk, patch } = apply(&method, &config(), &Tensors::new(), tensors).unwrap();
            let (bench, patch) = (Bench::new(&trunk)?, patch.expect("a patch"));
            let noise = normals(&[patch.blocks(), BATCH, patch.prompts()], 77, 1.0);
            let mixture = patch.mix(&bench.condition, Some(&noise))?;
            let loss = bench.loss(&mixture)?;
            mixture.balance()?.map_or(Ok(loss.clone()), |balance| loss + balance.total)
        };
        let mut shapes = dit::named_shapes(&config());
        let tensors = trainable(&method, &config());
        assert_eq!(tensors.iter().filter(|t| t.initial == patches::Initial::Backbone).count(), shapes.len() - 1);
        let own = tensors.into_iter().filter(|t| t.initial != patches::Initial::Backbone);
        shapes.extend(own.map(|t| (t.name, t.shape)));
        compare(&format!("{method:?}"), &random_weights(&shapes, 0.3), &loss, &loss);
    }
}
