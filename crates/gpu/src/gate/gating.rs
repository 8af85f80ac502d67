//! What a gate is: what it computes, what it is told, what it selects, and what keeps it balanced.

/// What computes the weights of the prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// One linear layer, `[embedding; block] -> N` logits.
    Linear,
    /// Attention of the embedding over the prompts: `q(prompt) . k([embedding; block]) / sqrt(D)` are the logits.
    AttentionOverPrompts,
    /// Attention to the letter, of prompts over the embedding alone: every place receives `W_o W_v [embedding; block]`. There are no weights;
    /// prompts, noise and selection are unused.
    AttentionLiteral,
}

/// Which prompts a gate uses, and with which weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All, by their softmax.
    Soft,
    /// The highest, at least one; ties go to the lowest number.
    Highest {
        /// How many.
        kept: usize,
        /// Whether each counts 1, and its gradient is that of the softmax over all; else it counts its softmax over the kept.
        ones: bool,
    },
}

impl Selection {
    /// Whether weights are not what the logits' gradient goes through.
    pub(super) fn ones(self) -> bool {
        matches!(self, Self::Highest { ones: true, .. })
    }

    /// How many of `prompts` it uses.
    pub(super) fn kept(self, prompts: usize) -> usize {
        match self {
            Self::Soft => prompts,
            Self::Highest { kept, .. } => kept,
        }
    }
}

/// What a gate computes and is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gating {
    /// What computes the weights.
    pub architecture: Architecture,
    /// Whether the block's index is one more input; else all blocks are told the same.
    pub per_block: bool,
    /// Whether it reads the timestep's embedding plus the label's, not the timestep's alone.
    pub with_label: bool,
    /// Whether it has a scale of the noise that training puts on its logits.
    pub noisy: bool,
    /// Which prompts it uses.
    pub selection: Selection,
}

impl Gating {
    /// Inputs of the linear layer over the embedding.
    pub(super) fn inputs(self, width: usize) -> usize {
        width + usize::from(self.per_block)
    }

    /// Whether it weights prompts; else it has vectors in their place.
    pub(crate) fn weights(self) -> bool {
        self.architecture != Architecture::AttentionLiteral
    }

    /// Values of what computes the weights: of a linear gate the weight `[N, inputs]` and the bias `[N]`; of attention over prompts those of
    /// queries `[D, D]` and keys `[D, inputs]`; of attention to the letter those of values `[D, inputs]` and of the output `[D, D]`.
    pub(super) fn own(self, prompts: usize, width: usize) -> usize {
        match self.architecture {
            Architecture::Linear => prompts * (self.inputs(width) + 1),
            Architecture::AttentionOverPrompts | Architecture::AttentionLiteral => width * (width + self.inputs(width)),
        }
    }

    /// All values of a gate: its own, and behind them the noise's scale `[D, N]` where there is one.
    pub fn len(self, prompts: usize, width: usize) -> usize {
        let noise = if self.noisy && self.weights() { width * prompts } else { 0 };
        self.own(prompts, width) + noise
    }
}

/// The loss that keeps a gate from using few prompts only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Importance {
    /// What it counts.
    pub coefficient: f64,
    /// Whether mean and variance are those of the whole batch (released code), not of each sample (paper).
    pub together: bool,
}

/// What keeps a gate balanced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// How much all prompts are used.
    pub importance: Importance,
    /// What the smooth load loss counts, of a gate that uses the highest prompts under noise; none where that loss is not smooth, which is
    /// zero then.
    pub load: Option<f64>,
}

/// Lengths of everything.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Blocks with prompts `L'`.
    pub blocks: usize,
    /// Prompts of a block `N`.
    pub prompts: usize,
    /// Width of the embedding `D`.
    pub width: usize,
    /// Rows of the condition `R` that are gated at once.
    pub rows: usize,
    /// Samples of a whole step, of which the rows are a part.
    pub all: usize,
}
