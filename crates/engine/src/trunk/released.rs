//! The authors' released code as a golden file's configuration names it (tests only).

use manifest::dit::DitConfig;
use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient, Soft, TopK,
};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, Finetune, ImportanceFormula, Init, LoadFormula, Method, Position, PromptTuning,
    Prompts, Zero,
};
use serde_json::Value;

/// The network of a golden file's configuration.
pub fn dit(config: &Value) -> DitConfig {
    let size = |key: &str| config[key].as_u64().expect("a count") as usize;
    let unconditional = config["uncond"].as_bool().unwrap_or(false);
    DitConfig {
        image_size: size("input"),
        channels: size("in_channels"),
        patch: size("patch"),
        hidden: size("hidden"),
        depth: size("depth"),
        heads: size("heads"),
        classes: (!unconditional).then(|| size("num_classes")),
        text_width: None,
        label_dropout: if unconditional { 0.0 } else { config["drop"].as_f64().unwrap_or(0.1) },
        learn_sigma: config["learn_sigma"] != false,
    }
}

/// The released code's method of a run: `linear`, `PT` or `FT`.
pub fn method(config: &Value) -> Method {
    let prompts = Prompts { position: Position::Add(Add {}), depth: Depth::All, init: Init::Zero(Zero {}) };
    let keep = config["topk"].as_f64().unwrap_or(1.0);
    let selection = if keep < 1.0 {
        Selection::TopK(TopK { keep, weights: KeptWeights::Softmax, gradient: SelectionGradient::None })
    } else {
        Selection::Soft(Soft {})
    };
    match config["kind"].as_str() {
        Some("FT") => Method::Finetune(Finetune::default()),
        Some("PT") => Method::PromptTuning(PromptTuning { prompts }),
        _ => Method::Dmp(Dmp {
            backbone: Backbone::Pretrained,
            prompts,
            gate: Gate {
                architecture: Architecture::Linear,
                selection,
                prompts_per_block: BlockAwareness::Distinct,
                input: GateInput::AsReleased,
                noise: GateNoise::Learned,
                learning_rate_factor: 10.0,
            },
            balance: Balance {
                importance: 1.0,
                importance_formula: ImportanceFormula::OfficialCode,
                load: 1.0,
                load_formula: LoadFormula::Smooth,
            },
        }),
    }
}
