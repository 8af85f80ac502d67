//! A manifest's methods as crate `gpu` knows them, and a refusal of those that it does not.

use anyhow::{Result, bail};
use gpu::{Gating, Importance};
use manifest::dit::DitConfig;
use manifest::gate::{Architecture, BlockAwareness, Gate, GateInput, GateNoise, Selection};
use manifest::method::{Backbone, ImportanceFormula, Method, Position, Prompts};

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
            // where all prompts are kept, the load loss is zero by either formula
            Some((blocks(&dmp.prompts)?, Some((gating(&dmp.gate)?, importance))))
        }
    })
}

/// A gate whose prompts are added to the tokens.
fn gating(gate: &Gate) -> Result<Gating> {
    if gate.architecture != Architecture::Linear {
        return refuse("gates of attention");
    }
    let Selection::Soft(_) = gate.selection else { return refuse("gates that keep the highest prompts") };
    Ok(Gating {
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
