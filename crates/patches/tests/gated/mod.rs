//! Every variant of DMP (tests of `patches` and `engine`).

use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient, Soft, TopK,
};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, ImportanceFormula, Init, LoadFormula, Position, Prepend, Prompts, Zero,
};

/// All combinations of architecture, selection, place and block awareness; the other switches take turns.
pub fn gated_variants() -> Vec<Dmp> {
    let top_k = |weights, gradient| Selection::TopK(TopK { keep: 0.75, weights, gradient });
    let selections = [
        Selection::Soft(Soft {}),
        top_k(KeptWeights::Softmax, SelectionGradient::None),
        top_k(KeptWeights::One, SelectionGradient::None),
        top_k(KeptWeights::One, SelectionGradient::StraightThrough),
    ];
    let mut variants = Vec::new();
    for architecture in [Architecture::Linear, Architecture::AttentionLiteral, Architecture::AttentionOverPrompts] {
        for selection in &selections {
            for position in [Position::Add(Add {}), Position::Prepend(Prepend { per_256_tokens: 192 })] {
                for prompts_per_block in [BlockAwareness::Distinct, BlockAwareness::Uniform] {
                    let i = variants.len();
                    let gate = Gate {
                        architecture,
                        selection: selection.clone(),
                        prompts_per_block,
                        input: [GateInput::T, GateInput::TPlusC, GateInput::AsReleased][i % 3],
                        noise: [GateNoise::Learned, GateNoise::Learned, GateNoise::None][i / 3 % 3],
                        learning_rate_factor: 10.0,
                    };
                    let balance = Balance {
                        importance: 0.7,
                        importance_formula: [ImportanceFormula::Paper, ImportanceFormula::OfficialCode][i % 2],
                        load: 1.3,
                        load_formula: [LoadFormula::Smooth, LoadFormula::Smooth, LoadFormula::Count][i / 2 % 3],
                    };
                    let depth = [Depth::First, Depth::Half, Depth::All][i / 4 % 3];
                    let prompts = Prompts { position: position.clone(), depth, init: Init::Zero(Zero {}) };
                    variants.push(Dmp { backbone: Backbone::Pretrained, prompts, gate, balance });
                }
            }
        }
    }
    variants
}
