//! A manifest's methods as crate `gpu` knows them, and a refusal of those that it does not.

use anyhow::{Result, bail};
use gpu::{Gating, Importance};
use manifest::dit::DitConfig;
use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient,
};
use manifest::method::{Backbone, ImportanceFormula, LoadFormula, Method, Position, Prompts};

/// Blocks with prompts, and what weights them and balances that.
type Mixture = Option<(usize, Option<(Gating, Importance)>)>;

/// What learns.
///
/// # Errors
/// The kernels do not do it; the error names the next command.
pub fn training(method: &Method, dit: &DitConfig) -> Result<gpu::Method> {
    match method {
        Method::Lora(_) => refuse("training of LoRA"),
        Method::Dmp(dmp) if dmp.backbone == Backbone::FromScratch => refuse("prompts on a backbone that learns"),
        _ => Ok(match mixture(method, dit)? {
            Some((blocks, gate)) => gpu::Method::Prompts { blocks, gate },
            None => gpu::Method::Everything,
        }),
    }
}

/// What is mixed in; none without prompts.
///
/// # Errors
/// As [`training`].
pub fn mixture(method: &Method, dit: &DitConfig) -> Result<Mixture> {
    let blocks = |prompts: &Prompts| match prompts.position {
        Position::Add(_) => Ok(prompts.depth.blocks(dit.depth)),
        Position::Prepend(_) => refuse("prompts in front of the tokens"),
    };
    Ok(match method {
        Method::Pretrained(_) | Method::Finetune(_) | Method::Lora(_) => None,
        Method::PromptTuning(tuning) => Some((blocks(&tuning.prompts)?, None)),
        Method::Dmp(dmp) => {
            let importance = Importance {
                coefficient: dmp.balance.importance,
                together: dmp.balance.importance_formula == ImportanceFormula::OfficialCode,
            };
            let blocks = blocks(&dmp.prompts)?;
            let gating = gating(&dmp.gate, dmp.prompts.position.prompts(dit.tokens()))?;
            // where all prompts are kept, or without noise, the load loss is zero by either formula
            let partly = matches!(gating.selection, gpu::Selection::Highest { .. });
            if partly && gating.noisy && dmp.balance.load_formula == LoadFormula::Smooth {
                return refuse("the smooth load loss");
            }
            Some((blocks, Some((gating, importance))))
        }
    })
}

/// A gate over so many `prompts`, which are added to the tokens.
fn gating(gate: &Gate, prompts: usize) -> Result<Gating> {
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
            gpu::Selection::Highest { kept: top.kept(prompts).max(1), ones }
        }
    };
    Ok(Gating {
        selection,
        per_block: gate.prompts_per_block == BlockAwareness::Distinct,
        with_label: gate.input != GateInput::T,
        noisy: gate.noise == GateNoise::Learned,
    })
}

fn refuse<T>(what: &str) -> Result<T> {
    bail!(
        "the fast engine does not do {what} on a GPU: run it with `--engine reference`, and what it is compared with too"
    )
}
