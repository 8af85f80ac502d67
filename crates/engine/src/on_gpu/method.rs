//! A manifest's methods as crate `gpu` knows them, and a refusal of those that it does not.

use anyhow::{Result, bail};
use gpu::{Gating, Importance};
use manifest::dit::DitConfig;
use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient,
};
use manifest::method::{Backbone, Balance, Dmp, ImportanceFormula, LoadFormula, Method, Position, Prompts};

/// What learns.
///
/// # Errors
/// The kernels do not do it; the error names the next command.
pub fn training(method: &Method, dit: &DitConfig) -> Result<gpu::Method> {
    match method {
        Method::Lora(_) => refuse("training of LoRA"),
        Method::Dmp(dmp) if dmp.backbone == Backbone::FromScratch => refuse("prompts on a backbone that learns"),
        _ => Ok(match prompts(method, dit)? {
            Some(prompts) => gpu::Method::Prompts { prompts, importance: importance(method) },
            None => gpu::Method::Everything,
        }),
    }
}

/// The prompts that are mixed in; none without.
///
/// # Errors
/// As [`training`].
pub fn prompts(method: &Method, dit: &DitConfig) -> Result<Option<gpu::Prompts>> {
    Ok(match method {
        Method::Pretrained(_) | Method::Finetune(_) | Method::Lora(_) => None,
        Method::PromptTuning(tuning) => Some(placed(&tuning.prompts, dit)),
        Method::Dmp(Dmp { prompts, gate, balance, .. }) => {
            let gating = gating(gate, &prompts.position, dit.tokens())?;
            // where all prompts are kept, or without noise, the load loss is zero by either formula
            let partly = matches!(gating.selection, gpu::Selection::Highest { .. });
            if partly && gating.noisy && balance.load_formula == LoadFormula::Smooth {
                return refuse("the smooth load loss");
            }
            Some(gpu::Prompts { gate: Some(gating), ..placed(prompts, dit) })
        }
    })
}

/// Where prompts enter; nothing weights them.
fn placed(prompts: &Prompts, dit: &DitConfig) -> gpu::Prompts {
    let prepended = match prompts.position {
        Position::Add(_) => 0,
        Position::Prepend(_) => prompts.position.prompts(dit.tokens()),
    };
    gpu::Prompts { blocks: prompts.depth.blocks(dit.depth), prepended, gate: None }
}

/// What keeps a gate balanced; nothing where there is none.
fn importance(method: &Method) -> Importance {
    match method {
        Method::Dmp(Dmp { balance: Balance { importance, importance_formula, .. }, .. }) => {
            Importance { coefficient: *importance, together: *importance_formula == ImportanceFormula::OfficialCode }
        }
        _ => Importance { coefficient: 0.0, together: false },
    }
}

/// A gate over the prompts that enter at `position` of so many image tokens.
fn gating(gate: &Gate, position: &Position, tokens: usize) -> Result<Gating> {
    if gate.architecture != Architecture::Linear {
        return refuse("gates of attention");
    }
    let selection = match &gate.selection {
        Selection::Soft(_) => gpu::Selection::Soft,
        Selection::TopK(top) => {
            let ones = top.weights == KeptWeights::One;
            if ones && top.gradient == SelectionGradient::None {
                return refuse("gates that learn nothing");
            }
            gpu::Selection::Highest { kept: top.kept(position.prompts(tokens)).max(1), ones }
        }
    };
    let with_label = match gate.input {
        GateInput::T => false,
        GateInput::TPlusC => true,
        GateInput::AsReleased => matches!(position, Position::Add(_)),
    };
    Ok(Gating {
        selection,
        per_block: gate.prompts_per_block == BlockAwareness::Distinct,
        with_label,
        noisy: gate.noise == GateNoise::Learned,
    })
}

fn refuse<T>(what: &str) -> Result<T> {
    bail!(
        "the fast engine does not do {what} on a GPU: run it with `--engine reference`, and what it is compared with too"
    )
}
