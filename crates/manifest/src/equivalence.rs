//! Which methods, though written differently, cannot train differently: they are brought to one canonical form, so that
//! they share one chain of stages.

use crate::denoiser::Denoiser;
use crate::gate::{Architecture, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient, Soft, TopK};
use crate::method::{Balance, Depth, Dmp, ImportanceFormula, LoadFormula, Method, Position, PromptTuning, Prompts};

impl Method {
    /// The form in which it is run. Two methods with the same form train to the same bits (with common random numbers).
    ///
    /// - The load loss has no gradient where it counts (Eq. 11), and is zero where all prompts are kept or the gate has
    ///   no noise: its coefficient becomes 0 (Table 4(e); difference 1 in `presets/official-code.yaml`).
    /// - Attention to the letter has no weights: nothing is selected, gets noise or is balanced.
    /// - A loss with coefficient 0 has no formula.
    /// - The gate's input `as_released` is `t_plus_c` with `add` and `t` with `prepend` (difference 4); on a UNet, which was not
    ///   released and has no one vector `c`, it is `t`.
    /// - Prompts in the first one of all blocks are those of `first`.
    /// - A softmax over the kept logits has a gradient of its own, so `gradient` says nothing; over all logits it is `soft`.
    pub fn canonical(&self, denoiser: &Denoiser) -> Self {
        match self {
            Self::Pretrained(_) | Self::Finetune(_) | Self::Lora(_) => self.clone(),
            Self::PromptTuning(tuning) => {
                Self::PromptTuning(PromptTuning { prompts: canonical_prompts(&tuning.prompts) })
            }
            Self::Dmp(dmp) => {
                let input = match (dmp.gate.input, &dmp.prompts.position, denoiser) {
                    (GateInput::AsReleased, Position::Add(_), Denoiser::Dit(_)) => GateInput::TPlusC,
                    (GateInput::AsReleased, ..) => GateInput::T,
                    (input, ..) => input,
                };
                let gate = Gate { input, ..dmp.gate.clone() };
                let (gate, balance) = match gate.architecture {
                    Architecture::Linear | Architecture::AttentionOverPrompts => {
                        let gate = Gate { selection: canonical_selection(&gate.selection), ..gate };
                        let balance = canonical_balance(&dmp.balance, &gate);
                        (gate, balance)
                    }
                    Architecture::AttentionLiteral => {
                        (Gate { selection: Selection::Soft(Soft {}), noise: GateNoise::None, ..gate }, unbalanced())
                    }
                };
                Self::Dmp(Dmp { backbone: dmp.backbone, prompts: canonical_prompts(&dmp.prompts), gate, balance })
            }
        }
    }
}

fn canonical_prompts(prompts: &Prompts) -> Prompts {
    let depth = if prompts.depth == Depth::Blocks(1) { Depth::First } else { prompts.depth };
    Prompts { depth, ..prompts.clone() }
}

fn canonical_selection(selection: &Selection) -> Selection {
    match selection {
        Selection::TopK(TopK { keep: 1.0, weights: KeptWeights::Softmax, .. }) => Selection::Soft(Soft {}),
        Selection::TopK(TopK { keep, weights: KeptWeights::Softmax, .. }) => {
            Selection::TopK(TopK { keep: *keep, weights: KeptWeights::Softmax, gradient: SelectionGradient::None })
        }
        other => other.clone(),
    }
}

/// No balancing loss.
fn unbalanced() -> Balance {
    Balance {
        importance: 0.0,
        importance_formula: ImportanceFormula::Paper,
        load: 0.0,
        load_formula: LoadFormula::Count,
    }
}

/// The gate is canonical.
fn canonical_balance(balance: &Balance, gate: &Gate) -> Balance {
    let keeps_all = match &gate.selection {
        Selection::Soft(_) => true,
        Selection::TopK(top_k) => top_k.keep == 1.0,
    };
    let load = match balance.load_formula {
        LoadFormula::Smooth if !keeps_all && gate.noise == GateNoise::Learned => balance.load,
        LoadFormula::Smooth | LoadFormula::Count => 0.0,
    };
    Balance {
        importance: balance.importance,
        importance_formula: if balance.importance == 0.0 {
            ImportanceFormula::Paper
        } else {
            balance.importance_formula
        },
        load,
        load_formula: if load == 0.0 { LoadFormula::Count } else { balance.load_formula },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dit::DitConfig;
    use crate::gate::BlockAwareness;
    use crate::method::Backbone;
    use crate::method::{Add, Init, Prepend, Zero};

    fn dmp() -> Dmp {
        Dmp {
            backbone: Backbone::Pretrained,
            prompts: Prompts { position: Position::Add(Add {}), depth: Depth::All, init: Init::Zero(Zero {}) },
            gate: Gate {
                architecture: Architecture::Linear,
                selection: Selection::Soft(Soft {}),
                prompts_per_block: BlockAwareness::Distinct,
                input: GateInput::T,
                noise: GateNoise::None,
                learning_rate_factor: 1.0,
            },
            balance: Balance {
                importance: 1.0,
                importance_formula: ImportanceFormula::Paper,
                load: 1.0,
                load_formula: LoadFormula::Count,
            },
        }
    }

    fn canonical(change: impl Fn(&mut Dmp)) -> Method {
        let mut changed = dmp();
        change(&mut changed);
        Method::Dmp(changed).canonical(&Denoiser::Dit(DitConfig::published("DiT-B/2", None).unwrap()))
    }

    fn top_k(keep: f64, weights: KeptWeights, gradient: SelectionGradient) -> Selection {
        Selection::TopK(TopK { keep, weights, gradient })
    }

    #[test]
    fn the_count_of_unused_prompts_never_trains_anything() {
        let one = canonical(|_| {});
        assert_eq!(canonical(|d| d.balance.load = 0.0), one);
        assert_eq!(canonical(|d| d.balance.load = 2.0), one);
        let hard = |d: &mut Dmp| d.gate.selection = top_k(0.75, KeptWeights::One, SelectionGradient::StraightThrough);
        let hard_with_load = |d: &mut Dmp| {
            hard(d);
            d.balance.load = 2.0;
        };
        assert_eq!(canonical(hard_with_load), canonical(hard));
    }

    #[test]
    fn the_smooth_load_trains_only_where_prompts_are_left_out_by_a_noisy_gate() {
        let smooth = |load: f64, keep: f64, noise: GateNoise| {
            canonical(|d| {
                d.gate.noise = noise;
                d.balance.load_formula = LoadFormula::Smooth;
                d.balance.load = load;
                d.gate.selection = top_k(keep, KeptWeights::One, SelectionGradient::None);
            })
        };
        use GateNoise::{Learned, None};
        assert_eq!(smooth(1.0, 1.0, Learned), smooth(2.0, 1.0, Learned));
        assert_ne!(smooth(1.0, 0.75, Learned), smooth(2.0, 0.75, Learned));
        assert_eq!(smooth(1.0, 0.75, None), smooth(2.0, 0.75, None));
        assert_eq!(canonical(|d| d.balance.load_formula = LoadFormula::Smooth), canonical(|_| {}));
    }

    #[test]
    fn attention_to_the_letter_has_nothing_to_select_disturb_or_balance() {
        let with = |architecture: Architecture, change: fn(&mut Dmp)| {
            canonical(|d| {
                d.gate.architecture = architecture;
                change(d);
            })
        };
        let changes: [fn(&mut Dmp); 4] = [
            |d| d.balance.importance = 2.0,
            |d| d.balance.importance_formula = ImportanceFormula::OfficialCode,
            |d| d.gate.noise = GateNoise::Learned,
            |d| d.gate.selection = top_k(0.5, KeptWeights::One, SelectionGradient::None),
        ];
        use Architecture::{AttentionLiteral, AttentionOverPrompts, Linear};
        for change in changes {
            assert_eq!(with(AttentionLiteral, change), with(AttentionLiteral, |_| {}));
            for other in [Linear, AttentionOverPrompts] {
                assert_ne!(with(other, change), with(other, |_| {}));
            }
        }
        // What it reads, where its output goes and how fast it learns still counts.
        let changes: [fn(&mut Dmp); 4] = [
            |d| d.gate.input = GateInput::TPlusC,
            |d| d.gate.prompts_per_block = BlockAwareness::Uniform,
            |d| d.prompts.depth = Depth::Half,
            |d| d.gate.learning_rate_factor = 10.0,
        ];
        for change in changes {
            assert_ne!(with(AttentionLiteral, change), with(AttentionLiteral, |_| {}));
        }
    }

    #[test]
    fn a_loss_without_weight_has_no_formula() {
        let without = |formula| {
            canonical(|d| {
                d.balance.importance = 0.0;
                d.balance.importance_formula = formula;
            })
        };
        assert_eq!(without(ImportanceFormula::OfficialCode), without(ImportanceFormula::Paper));
        assert_ne!(without(ImportanceFormula::Paper), canonical(|_| {}));
        assert_ne!(canonical(|d| d.balance.importance_formula = ImportanceFormula::OfficialCode), canonical(|_| {}));
    }

    #[test]
    fn the_released_gate_input_depends_on_the_position() {
        let prepend = |d: &mut Dmp| d.prompts.position = Position::Prepend(Prepend { per_256_tokens: 50 });
        let with = |input, prepended: bool| {
            canonical(|d| {
                d.gate.input = input;
                if prepended {
                    prepend(d);
                }
            })
        };
        assert_eq!(with(GateInput::AsReleased, false), with(GateInput::TPlusC, false));
        assert_eq!(with(GateInput::AsReleased, true), with(GateInput::T, true));
        assert_ne!(with(GateInput::T, false), with(GateInput::TPlusC, false));
    }

    #[test]
    fn a_softmax_over_kept_logits_needs_no_other_gradient() {
        let with = |keep, weights, gradient| canonical(|d| d.gate.selection = top_k(keep, weights, gradient));
        use KeptWeights::{One, Softmax};
        use SelectionGradient::{None, StraightThrough};
        assert_eq!(with(0.75, Softmax, None), with(0.75, Softmax, StraightThrough));
        assert_eq!(with(1.0, Softmax, StraightThrough), canonical(|_| {}));
        assert_ne!(with(0.75, One, None), with(0.75, One, StraightThrough));
        assert_ne!(with(0.75, One, None), with(0.75, Softmax, None));
        assert_ne!(with(1.0, One, None), canonical(|_| {}));
    }

    #[test]
    fn nothing_else_is_touched() {
        assert_eq!(canonical(|d| d.balance.load = 0.0), {
            let mut same = dmp();
            same.balance.load = 0.0;
            Method::Dmp(same)
        });
        assert_eq!(canonical(|d| d.prompts.depth = Depth::Blocks(1)), canonical(|d| d.prompts.depth = Depth::First));
        for depth in [Depth::First, Depth::Half, Depth::Blocks(2)] {
            assert_ne!(canonical(|d| d.prompts.depth = depth), canonical(|_| {}));
        }
        assert_ne!(canonical(|d| d.gate.prompts_per_block = BlockAwareness::Uniform), canonical(|_| {}));
        assert_ne!(canonical(|d| d.gate.noise = GateNoise::Learned), canonical(|_| {}));
        assert_ne!(canonical(|d| d.gate.learning_rate_factor = 10.0), canonical(|_| {}));
        assert_ne!(canonical(|d| d.backbone = Backbone::FromScratch), canonical(|_| {}));
    }
}
