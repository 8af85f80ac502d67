//! A manifest's methods as crate `gpu` knows them, and a refusal of those that it does not.

use anyhow::{Result, bail};
use gpu::Gating;
use manifest::dit::DitConfig;
use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient,
};
use manifest::method::{Backbone, Dmp, ImportanceFormula, LoadFormula, Method, Position, Prompts};

/// What learns.
///
/// # Errors
/// The kernels do not do it; the error names the next command.
pub fn training(method: &Method, dit: &DitConfig) -> Result<gpu::Method> {
    match method {
        Method::Lora(_) => refuse("training of LoRA"),
        Method::Dmp(dmp) if dmp.backbone == Backbone::FromScratch => refuse("prompts on a backbone that learns"),
        _ => Ok(match prompts(method, dit)? {
            Some(prompts) => gpu::Method::Prompts { prompts, balance: balance(method) },
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
        Method::Dmp(Dmp { prompts, gate, .. }) => {
            let gate = Some(gating(gate, &prompts.position, dit.tokens())?);
            Some(gpu::Prompts { gate, ..placed(prompts, dit) })
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
fn balance(method: &Method) -> gpu::Balance {
    let importance = |coefficient, together| gpu::Importance { coefficient, together };
    match method {
        Method::Dmp(Dmp { balance, .. }) => gpu::Balance {
            importance: importance(balance.importance, balance.importance_formula == ImportanceFormula::OfficialCode),
            load: (balance.load_formula == LoadFormula::Smooth).then_some(balance.load),
        },
        _ => gpu::Balance { importance: importance(0.0, false), load: None },
    }
}

/// A gate over the prompts that enter at `position` of so many image tokens.
fn gating(gate: &Gate, position: &Position, tokens: usize) -> Result<Gating> {
    let architecture = match gate.architecture {
        Architecture::Linear => gpu::Architecture::Linear,
        Architecture::AttentionOverPrompts => gpu::Architecture::AttentionOverPrompts,
        Architecture::AttentionLiteral => gpu::Architecture::AttentionLiteral,
    };
    let selection = match &gate.selection {
        Selection::Soft(_) => gpu::Selection::Soft,
        Selection::TopK(top) => {
            let ones = top.weights == KeptWeights::One;
            let weights = architecture != gpu::Architecture::AttentionLiteral;
            if weights && ones && top.gradient == SelectionGradient::None {
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
        architecture,
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

#[cfg(test)]
mod tests {
    use manifest::denoiser::Denoiser;
    use manifest::stage::Stage;

    use super::*;

    /// Cells that are compared need one engine.
    #[test]
    fn all_of_table_4_is_done() {
        let workspace = manifest::Workspace::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).unwrap();
        for preset in ["paper", "official-code"] {
            let overrides = vec![format!("method.preset={preset}")];
            let request = manifest::Request { scale: "tiny".to_owned(), overrides, seeds: None };
            let plan = workspace.load_artifact("table4", &request).unwrap();
            let trained = plan.stages.iter().filter_map(|planned| match &planned.stage {
                Stage::Train(stage) => Some((&stage.method, &stage.denoiser)),
                _ => None,
            });
            let mut count = 0;
            for (method, denoiser) in trained {
                let Denoiser::Dit(dit) = denoiser else { panic!("a DiT") };
                training(method, dit).unwrap();
                count += 1;
            }
            assert!(count > 10, "{count} trainings");
        }
    }
}
