//! The network against the authors' code: outputs, every intermediate result, every gradient (goldens, group a).

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use goldens::{Array, Golden, assert_close, distance};
use manifest::dit::DitConfig;
use manifest::scale::GuidanceChannels;

use super::block::Block;
use super::embed::{position_embedding, timestep_features};
use super::{Condition, Dit, Guidance};
use crate::layers::{gelu, gelu_exact, layer_norm, modulate, normalise};
use crate::weights::{self, Tensors, Weights, gradients, variables};
use crate::{Hooks, Unpatched};

/// Tolerances of the goldens' README for outputs and gradients; the third file, whose weights are as large as those of
/// the second, has gradients in a set of another configuration only.
const CASES: [(&str, f64, f64); 3] =
    [("dit_small", 2e-6, 5e-6), ("dit_strong", 8e-6, 1e-4), ("dit_pixel_uncond", 8e-6, 1e-4)];

struct Case {
    golden: Golden,
    dit: Dit,
    tensors: Tensors,
    x: Tensor,
    t: Tensor,
    labels: Vec<u32>,
}

fn config(golden: &Golden) -> DitConfig {
    let config = golden.config();
    let count = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("no {key}")) as usize;
    let unconditional = config["uncond"].as_bool().unwrap_or(false);
    DitConfig {
        image_size: count("input"),
        channels: count("in_channels"),
        patch: count("patch"),
        hidden: count("hidden"),
        depth: count("depth"),
        heads: count("heads"),
        classes: (!unconditional).then(|| count("num_classes")),
        text_width: None,
        label_dropout: config["drop"].as_f64().unwrap_or(0.1),
        learn_sigma: config["learn_sigma"].as_bool().unwrap_or(true),
    }
}

fn tensor(array: &Array) -> Tensor {
    Tensor::from_vec(array.f32(), array.shape.as_slice(), &Device::Cpu).unwrap()
}

fn labels(array: &Array) -> Vec<u32> {
    array.usize().into_iter().map(|label| label as u32).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let state = golden.group("sd.").into_iter();
        let state = state.map(|(n, a)| (n, weights::Tensor { values: a.f32(), shape: a.shape }));
        let tensors = variables(&Weights::from_iter(state), DType::F32, &Device::Cpu).unwrap();
        let dit = Dit::new(&config(&golden), &tensors).unwrap();
        let (x, t) = (tensor(&golden.get("in.x")), tensor(&golden.get("in.t")));
        Self { dit, tensors, x, t, labels: labels(&golden.get("in.y")), golden }
    }

    fn condition(&self, t: &Tensor, labels: &[u32]) -> Condition {
        self.dit.condition(t, &Tensor::new(labels, &Device::Cpu).unwrap()).unwrap()
    }

    fn check(&self, ours: &Tensor, name: &str, tolerance: f64) {
        let theirs = self.golden.get(name);
        assert_eq!(ours.dims(), theirs.shape, "{name}");
        assert_close(name, &values(ours), &theirs, tolerance);
    }
}

/// Compares the input of each block with the output of the one before.
struct Watch<'a>(&'a Case, f64);

impl Hooks for Watch<'_> {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        if let Some(before) = block.checked_sub(1) {
            self.0.check(&x, &format!("mid.blocks.{before}"), self.1);
        }
        Ok(x)
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        self.0.check(&x, &format!("mid.blocks.{}", self.0.dit.blocks.len() - 1), self.1);
        Ok(x)
    }
}

#[test]
fn outputs_and_everything_between() {
    for (name, tolerance, _) in CASES {
        let case = Case::open(name);
        let condition = case.condition(&case.t, &case.labels);
        case.check(&condition.t, "mid.t_embedder", tolerance);
        case.check(&condition.label, "mid.y_embedder", tolerance);
        let patches = case.dit.patches.forward(&case.x).unwrap();
        case.check(&patches, "mid.x_embedder", tolerance);

        let x = patches.broadcast_add(&case.dit.positions).unwrap();
        let modulation = case.dit.blocks[0].modulation(&condition.c().unwrap()).unwrap();
        let normed = layer_norm(&x).unwrap();
        case.check(&normed, "mid.blocks.0.norm1", tolerance);
        case.check(&modulation, "mid.blocks.0.adaLN_modulation", tolerance);
        let parts = modulation.chunk(6, 1).unwrap();
        let (attention, mlp) = case.dit.blocks[0].parts();
        let attended = attention.forward(&modulate(&normed, &parts[0], &parts[1]).unwrap()).unwrap();
        case.check(&attended, "mid.blocks.0.attn", tolerance);
        let x = (x + attended.broadcast_mul(&parts[2].unsqueeze(1).unwrap()).unwrap()).unwrap();
        let normed = layer_norm(&x).unwrap();
        let widened = mlp.forward(&modulate(&normed, &parts[3], &parts[4]).unwrap()).unwrap();
        case.check(&widened, "mid.blocks.0.mlp", tolerance);

        let last = tensor(&case.golden.get(&format!("mid.blocks.{}", case.dit.blocks.len() - 1)));
        let last = case.dit.last.forward(&last, &condition.c().unwrap()).unwrap();
        case.check(&last, "mid.final_layer", tolerance);

        let out = case.dit.forward(&case.x, &condition, &Watch(&case, tolerance)).unwrap();
        case.check(&out, "out.eval", tolerance);
    }
}

#[test]
fn gradients_of_every_parameter() {
    let mut checked = 0;
    for (name, _, tolerance) in CASES {
        let mut case = Case::open(name);
        let Some(weight) = case.golden.find("grad_in.w") else { continue };
        checked += 1;
        let x = Var::from_tensor(&case.x).unwrap().into_inner();
        case.tensors.insert("in.x".to_owned(), x.clone());
        let condition = case.condition(&case.t, &case.labels);
        let out = case.dit.forward(&x, &condition, &Unpatched).unwrap();
        let loss = (out * tensor(&weight)).unwrap().sum_all().unwrap();
        let ours = gradients(&loss, &case.tensors).unwrap();
        let theirs = case.golden.group("grad.");
        assert_eq!(theirs.len(), case.tensors.len() - 1, "all but pos_embed have a gradient");
        for (parameter, _) in theirs {
            case.check(&ours[&parameter], &format!("grad.{parameter}"), tolerance);
        }
    }
    assert!(checked > 0, "no file has `grad_in.w`");
}

/// A rule applied to a tensor.
type Rule = fn(&Tensor) -> Result<Tensor>;

/// A block put together from its own layers, with a normalisation and an activation of the test's choice.
fn block_with(block: &Block, x: &Tensor, c: &Tensor, normalise: Rule, activate: Rule) -> Result<Tensor> {
    let parts = block.modulation(c)?.chunk(6, 1)?;
    let (attention, mlp) = block.parts();
    let (widen, narrow) = mlp.layers();
    let attended = attention.forward(&modulate(&normalise(x)?, &parts[0], &parts[1])?)?;
    let x = (x + attended.broadcast_mul(&parts[2].unsqueeze(1)?)?)?;
    let widened = widen.forward(&modulate(&normalise(&x)?, &parts[3], &parts[4])?)?;
    x + narrow.forward(&activate(&widened)?)?.broadcast_mul(&parts[5].unsqueeze(1)?)?
}

/// What the tolerances are for: each wrong rule leaves them, in the output and behind the last block.
#[test]
fn wrong_rules_are_seen() {
    let (name, tolerance, _) = CASES[1];
    let case = Case::open(name);
    let c = case.condition(&case.t, &case.labels).c().unwrap();
    // Of the output of the last block and of the network.
    let distances = |normalise: Rule, activate: Rule| -> Result<[f64; 2]> {
        let mut x = case.dit.patches.forward(&case.x)?.broadcast_add(&case.dit.positions)?;
        for block in &case.dit.blocks {
            x = block_with(block, &x, &c, normalise, activate)?;
        }
        let out = case.dit.unpatchify(&case.dit.last.forward(&x, &c)?)?;
        let apart = |ours: &Tensor, name: &str| {
            let ours: Vec<f64> = values(ours).into_iter().map(f64::from).collect();
            distance(&ours, &case.golden.get(name).values)
        };
        Ok([apart(&x, &format!("mid.blocks.{}", case.dit.blocks.len() - 1)), apart(&out, "out.eval")])
    };
    let right = distances(layer_norm, gelu).unwrap();
    assert!(right.iter().all(|&apart| apart <= tolerance), "{right:?}");
    let wrong: [(&str, Rule, Rule); 2] =
        [("the exact GELU", layer_norm, gelu_exact), ("another epsilon", |x| normalise(x, 1e-5), gelu)];
    for (what, normalise, activate) in wrong {
        for apart in distances(normalise, activate).unwrap() {
            assert!(apart > tolerance, "{what} is {apart:.1e} away only, allowed {tolerance:.0e}");
        }
    }
}

#[test]
fn guidance_of_the_first_three_channels() {
    let mut checked = 0;
    for (name, tolerance, _) in CASES {
        let case = Case::open(name);
        let Some(t) = case.golden.find("cfg.t") else { continue };
        checked += 1;
        let condition = case.condition(&tensor(&t), &labels(&case.golden.get("cfg.y")));
        let (b, c) = (case.x.dim(0).unwrap() / 2, case.dit.config().channels);
        let x = case.x.narrow(0, 0, b).unwrap();
        for scale in case.golden.config()["cfg_scales"].as_array().unwrap() {
            let guidance = Guidance { scale: scale.as_f64().unwrap(), channels: GuidanceChannels::FirstThree };
            let ours = case.dit.forward_with_guidance(&x, &condition, &Unpatched, guidance).unwrap();
            // The reference's second half: the same guided channels, the others from the null label.
            let both = Tensor::cat(&[&x, &x], 0).unwrap();
            let null = case.dit.forward(&both, &condition, &Unpatched).unwrap().narrow(0, b, b).unwrap();
            let guided = c.min(3);
            let rest = null.dim(1).unwrap() - guided;
            let second =
                Tensor::cat(&[ours.narrow(1, 0, guided).unwrap(), null.narrow(1, guided, rest).unwrap()], 1).unwrap();
            let both = Tensor::cat(&[ours, second], 0).unwrap();
            case.check(&both, &format!("cfg.out_scale_{scale}"), tolerance);
        }
    }
    assert!(checked > 0, "no file has `cfg.t`");
}

#[test]
fn training_mode_replaces_dropped_labels() {
    let mut checked = 0;
    for (name, tolerance, _) in CASES {
        let case = Case::open(name);
        let Some(uniform) = case.golden.find("train.drop_uniform") else { continue };
        checked += 1;
        let config = case.dit.config();
        let null = config.classes.unwrap() as u32;
        let drop = |(&label, &u): (&u32, &f64)| if u < config.label_dropout { null } else { label };
        let dropped: Vec<u32> = case.labels.iter().zip(&uniform.values).map(drop).collect();
        let condition = case.condition(&case.t, &dropped);
        let out = case.dit.forward(&case.x, &condition, &Unpatched).unwrap();
        case.check(&out, "train.out", tolerance);
    }
    assert!(checked > 0, "no file has `train.drop_uniform`");
}

#[test]
fn fixed_embeddings() {
    let golden = Golden::open("dit_embeds");
    for size in golden.config()["pos"].as_array().unwrap() {
        let (width, side) = (size[0].as_u64().unwrap(), size[1].as_u64().unwrap());
        let name = format!("pos_embed.h{width}_g{side}");
        assert_close(&name, &position_embedding(width as usize, side as usize), &golden.get(&name), 2e-6);
    }
    let t = tensor(&golden.get("t"));
    // Of 256 channels and of all whose exponents are among theirs to the bit: of others a frequency may be one bit off the
    // reference's, whose exponential does not always round to the nearest (`timestep_frequencies`).
    for channels in golden.config()["dims"].as_array().unwrap() {
        let name = format!("timestep_embedding.d{channels}");
        let ours = timestep_features(&t, channels.as_u64().unwrap() as usize).unwrap();
        assert_close(&name, &values(&ours), &golden.get(&name), 2e-6);
    }
}
