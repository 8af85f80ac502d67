//! A patch as the authors' code has it: the state dict of its class `DiT` (`models/DiT/models.py` of their repository), and the
//! arguments that build the class.
//!
//! Their class adds prompts behind one linear gate that reads `[t + c; block index]`, or puts them in front behind one that
//! reads `[t; block index]`. Names are the same on both sides; what differs is what the tensors mean, and here the output
//! decides: whatever can be written for that class so that it computes the same is written so.

use std::fmt::Write;

use manifest::dit::DitConfig;
use manifest::gate::{Architecture, BlockAwareness, Gate, GateInput, KeptWeights, Selection, TopK};
use manifest::method::{Method, Position};
use models::dit::LABEL_TABLE;
use models::weights::{Tensor, Weights};

use crate::PROMPTS;
use crate::gate::NOISE;

/// A network of the authors' class.
#[derive(Clone, Debug, PartialEq)]
pub struct Released {
    /// Its state dict, backbone and patch: `load_state_dict` takes it strictly.
    pub state_dict: Weights,
    /// The Python expression that builds it: `DiT(input_size=32, ...)`.
    pub class: String,
}

/// What of a method their class does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authors' class has no such network: {0}")]
pub struct Unreleased(String);

/// What `method`, with the tensors that it has `trained` on a `backbone` of shape `dit`, is in the authors' class.
///
/// An unconditional network's label embedding is a constant, so that a gate that reads `t` is one that reads `t + c` with
/// another bias. A gate that does not see the block's index has weight 0 for it.
///
/// # Errors
/// Their class computes nothing like it.
///
/// # Panics
/// Where tensors are missing: they are those of [`crate::trainable`] and of [`models::dit::named_shapes`].
pub fn released(
    method: &Method,
    dit: &DitConfig,
    backbone: &Weights,
    trained: &Weights,
) -> Result<Released, Unreleased> {
    let (prompts, gate) = match method {
        Method::PromptTuning(tuning) => (&tuning.prompts, None),
        Method::Dmp(dmp) => (&dmp.prompts, Some(&dmp.gate)),
        Method::Pretrained(_) | Method::Finetune(_) | Method::Lora(_) => return no("the method has no prompts"),
    };
    if dit.text_width.is_some() {
        return no("it is conditioned on text, and theirs on labels alone");
    }
    let added = matches!(prompts.position, Position::Add(_));
    if gate.is_none() && !added {
        return no("`prompts.position` is `prepend` without a gate, and there theirs has one");
    }
    let mut state_dict = backbone.clone();
    state_dict.extend(trained.clone());
    let keep = match gate {
        Some(gate) => with_gate(gate, added, dit, &mut state_dict)?,
        None => 1.0,
    };
    let DitConfig { image_size, patch, channels, hidden, depth, heads, classes, .. } = *dit;
    let [blocks, count] = [0, 1].map(|side| state_dict[PROMPTS].shape[side]);
    let mut class = format!(
        "DiT(input_size={image_size}, patch_size={patch}, in_channels={channels}, hidden_size={hidden}, depth={depth}, \
         num_heads={heads}, "
    );
    _ = match classes {
        None => write!(class, "num_classes=1, uncond=True, "),
        Some(classes) => write!(class, "num_classes={classes}, class_dropout_prob={:?}, ", dit.label_dropout),
    };
    let python = |truth| if truth { "True" } else { "False" };
    _ = write!(
        class,
        "learn_sigma={}, num_tokens={count}, topk={keep:?}, vp_type=\"{}\", init_type=\"zero\", gate_type=\"{}\", \
         pt_depth={blocks})",
        python(dit.learn_sigma),
        if added { "add" } else { "prepend" },
        if gate.is_some() { "linear" } else { "PT" },
    );
    Ok(Released { state_dict, class })
}

/// Makes a gate's tensors those of their linear one; the share of prompts that it keeps.
fn with_gate(gate: &Gate, added: bool, dit: &DitConfig, state_dict: &mut Weights) -> Result<f64, Unreleased> {
    if gate.architecture != Architecture::Linear {
        return no("`gate.architecture` is not `linear`, as theirs is");
    }
    let keep = match gate.selection {
        Selection::Soft(_) => 1.0,
        Selection::TopK(TopK { keep, weights: KeptWeights::Softmax, .. }) => keep,
        Selection::TopK(TopK { weights: KeptWeights::One, .. }) => {
            return no("`gate.selection.weights` is `one`, and theirs are a softmax over the kept logits");
        }
    };
    let [prompts, width] = [state_dict[PROMPTS].shape[1], dit.hidden];
    if gate.prompts_per_block == BlockAwareness::Uniform {
        let weight = state_dict.get_mut("gate.weight").expect("a linear gate has it");
        let rows = weight.values.chunks_exact(width).flat_map(|row| row.iter().copied().chain([0.0]));
        *weight = Tensor { shape: vec![prompts, width + 1], values: rows.collect() };
    }
    // What is learned of the noise does not count when samples are drawn.
    state_dict
        .entry(NOISE.to_owned())
        .or_insert_with(|| Tensor { shape: vec![width, prompts], values: vec![0.0; width * prompts] });
    let (sign, reads, theirs) = match (gate.input, added) {
        (GateInput::T, true) => (-1.0, "t", "t + c"),
        (GateInput::TPlusC, false) => (1.0, "t_plus_c", "t"),
        _ => return Ok(keep),
    };
    if dit.is_conditional() {
        let place = if added { "added" } else { "prepended" };
        return no(&format!("`gate.input` is `{reads}`, and where prompts are {place} theirs reads {theirs}"));
    }
    let label = state_dict[LABEL_TABLE].values.clone();
    let weight = state_dict["gate.weight"].values.clone();
    let bias = state_dict.get_mut("gate.bias").expect("a linear gate has it");
    for (bias, row) in bias.values.iter_mut().zip(weight.chunks_exact(width + 1)) {
        let product: f64 = row.iter().zip(&label).map(|(&w, &c)| f64::from(w) * f64::from(c)).sum();
        *bias = (f64::from(*bias) + sign * product) as f32;
    }
    Ok(keep)
}

fn no<T>(reason: &str) -> Result<T, Unreleased> {
    Err(Unreleased(reason.to_owned()))
}
