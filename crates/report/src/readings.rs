//! Where the paper leaves something open, or the released code does otherwise: which reading each cell uses.

use manifest::denoiser::Denoiser;
use manifest::gate::{Architecture, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient, TopK};
use manifest::method::{
    Backbone, Balance, Depth, Dmp, Finetune, ImportanceFormula, LoadFormula, Lora, Method, Position, Prompts,
};
use manifest::plan::{Input, Plan, Table};
use manifest::scale::{Sampler, SamplerKind};
use manifest::stage::Stage;
use manifest::text::{ClipFormula, TextNetwork};
use manifest::unet::UnetConfig;

/// A reading and the cells that use it, in the order in which they first appear.
pub(crate) fn of(plan: &Plan, table: &Table) -> Vec<(String, Vec<String>)> {
    let mut readings: Vec<(String, Vec<String>)> = Vec::new();
    let (tokens, blocks) = (table.denoiser.tokens(), table.denoiser.blocks());
    let network = match &table.denoiser {
        Denoiser::Dit(_) => encoder(plan, table).map(of_text).into_iter().collect(),
        Denoiser::Unet(unet) => of_unet(&unet.shape, &table.scale.sample.sampler),
    };
    for cell in &table.cells {
        let of_patch = table.denoiser.dit().is_none() && cell.written.prompts().is_some();
        let of_patch = of_patch.then(|| {
            "Prompts of a UNet: one tensor at the input of each block, on the way down, in the middle and on the way up; one gate \
             for all, whose softmax over the places of the largest map is summed for smaller ones. The paper says only that \
             prompts are adjusted to the input size."
                .to_owned()
        });
        let of_method = of_patch.into_iter().chain(of_method(&cell.written, tokens, blocks));
        for reading in network.iter().cloned().chain(of_method) {
            match readings.iter_mut().find(|(known, _)| *known == reading) {
                Some((_, cells)) => cells.push(cell.id.clone()),
                None => readings.push((reading, vec![cell.id.clone()])),
            }
        }
    }
    readings
}

/// What embeds the captions that the table's samples are conditioned on.
fn encoder<'p>(plan: &'p Plan, table: &Table) -> Option<&'p TextNetwork> {
    let sample = plan.stage(table.cells.first()?.runs.first()?.sample)?;
    let Some(Input::Stage(embeddings)) = sample.inputs.get("embeddings") else { return None };
    match &plan.stage(*embeddings)?.stage {
        Stage::Embeddings(stage) => Some(&stage.encoder),
        _ => None,
    }
}

fn of_text(encoder: &TextNetwork) -> String {
    let from = match encoder {
        TextNetwork::Clip => "of CLIP's text encoder".to_owned(),
        TextNetwork::ClipFormula(ClipFormula { width, .. }) => format!(
            "of {width} numbers, from an encoder of CLIP's structure with weights by formula, which knows nothing of what captions mean"
        ),
    };
    format!(
        "Text: the pooled embedding of an image's first caption ({from}), through a linear layer, in the place of the class's; \
         the empty text is the null caption. The paper does not say how."
    )
}

fn of_unet(unet: &UnetConfig, sampler: &Sampler) -> Vec<String> {
    let share = 100.0 * unet.label_dropout;
    let mut readings = vec![format!(
        "Captions of the UNet: every token of CLIP's text encoder, padding among them, as Stable Diffusion has it; in training \
         {share}% of them are the empty text. The paper does not say whether any are."
    )];
    if sampler.kind == SamplerKind::Pndm {
        readings.push(format!("PNDM in {} steps: the paper does not say how many.", sampler.steps));
    }
    readings
}

fn of_method(method: &Method, tokens: usize, blocks: usize) -> Vec<String> {
    match method {
        Method::Pretrained(_) => Vec::new(),
        Method::Finetune(Finetune { backbone }) => of_backbone(*backbone),
        Method::PromptTuning(tuning) => of_prompts(&tuning.prompts, tokens, blocks),
        Method::Lora(Lora { rank, alpha }) => vec![format!(
            "LoRA on the attention's projections with rank {rank} and alpha {alpha}: the paper says neither."
        )],
        Method::Dmp(Dmp { backbone, prompts, gate, balance }) => {
            let mut readings = of_backbone(*backbone);
            readings.extend(of_prompts(prompts, tokens, blocks));
            readings.extend(of_gate(gate));
            // To the letter, attention weights every token by 1: no loss on the weights acts on it.
            if gate.architecture != Architecture::AttentionLiteral {
                readings.extend(of_balance(balance));
            }
            readings
        }
    }
}

fn of_backbone(backbone: Backbone) -> Vec<String> {
    match backbone {
        Backbone::Pretrained => Vec::new(),
        Backbone::FromScratch => vec![
            "From scratch: all weights start from initial values, the patch among them, and learn together for the scale's \
             iterations; no weight average is kept."
                .to_owned(),
        ],
    }
}

fn of_prompts(prompts: &Prompts, tokens: usize, blocks: usize) -> Vec<String> {
    let mut readings = Vec::new();
    if let Position::Prepend(prepend) = &prompts.position {
        let (count, of_256) = (prompts.position.prompts(tokens), prepend.per_256_tokens);
        readings.push(format!(
            "Prepended prompts: {count} beside {tokens} image tokens, the share of the paper's {of_256} beside 256."
        ));
    }
    if prompts.depth == Depth::Half && !blocks.is_multiple_of(2) {
        readings.push(format!("First half of {blocks} blocks: rounded down, at least one."));
    }
    readings
}

fn of_gate(gate: &Gate) -> Vec<String> {
    let mut readings = Vec::new();
    let mut say = |text: &str| readings.push(text.to_owned());
    match gate.architecture {
        Architecture::Linear => {}
        Architecture::AttentionLiteral => say(
            "Attention gate to the letter: prompts are the query, the timestep embedding is the one key and value. A softmax \
             over one key is 1, so every token receives W_o W_v t and the prompts drop out.",
        ),
        Architecture::AttentionOverPrompts => say(
            "Attention gate over the prompts: scores q(prompt) . k(t), a softmax over the prompts, used as their weights.",
        ),
    }
    match &gate.selection {
        Selection::Soft(_) => {}
        Selection::TopK(TopK { weights: KeptWeights::One, gradient, .. }) => match gradient {
            SelectionGradient::None => {
                say("Hard selection, weight 1: the gate gets no gradient. Ties go to the lowest index.");
            }
            SelectionGradient::StraightThrough => say(
                "Hard selection, weight 1: a constant has no gradient, so the gate learns straight through the softmax \
                 probabilities. Ties go to the lowest index.",
            ),
        },
        Selection::TopK(TopK { weights: KeptWeights::Softmax, .. }) => {
            say("Hard selection as in the released code: a softmax over the kept logits, not weight 1.");
        }
    }
    match gate.input {
        GateInput::T => {
            say("The gate reads the timestep embedding t (the released code: t + label, where prompts are added).")
        }
        GateInput::TPlusC => say("The gate reads the sum of timestep and label embedding."),
        GateInput::AsReleased => {
            say(
                "The gate reads t + label where prompts are added and t where they are prepended, as in the released code.",
            );
        }
    }
    match gate.noise {
        GateNoise::None => say("No noise on the gate's logits (the released code adds learned noise in training)."),
        GateNoise::Learned => say("Learned noise on the gate's logits in training, as in the released code."),
    }
    if gate.learning_rate_factor == 1.0 {
        say("One learning rate for prompts and gate (the released code gives the gate ten times the prompts').");
    } else {
        readings.push(format!("The gate learns {} times as fast as the prompts.", gate.learning_rate_factor));
    }
    readings
}

fn of_balance(balance: &Balance) -> Vec<String> {
    let mut readings = Vec::new();
    if balance.importance > 0.0 {
        readings.push(match balance.importance_formula {
            ImportanceFormula::Paper => {
                "Importance loss (Eq. 12-13) per sample, then averaged: the paper does not say what the batch axis does."
                    .to_owned()
            }
            ImportanceFormula::OfficialCode => {
                "Importance loss as in the released code: one variance over all samples and prompts.".to_owned()
            }
        });
    }
    if balance.load > 0.0 {
        readings.push(match balance.load_formula {
            LoadFormula::Count => {
                "Load loss (Eq. 11) is a count: it has no gradient, and its coefficient cannot change the training.".to_owned()
            }
            LoadFormula::Smooth => {
                "Load loss as in the released code: the smooth probability of being kept; zero where all prompts are kept."
                    .to_owned()
            }
        });
    }
    readings
}
