//! The gate: timestep embedding (and block index) in, one weight per prompt out. Its twin is `patches/src/gate/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One gate, shared by all blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// What computes the weights (Table 4(a)).
    pub architecture: Architecture,
    /// How many prompts are used, and with which weight (Table 4(b)).
    pub selection: Selection,
    /// Whether the gate sees the block's index (Table 4(c)).
    pub prompts_per_block: BlockAwareness,
    /// Which embedding the gate reads (Table 9).
    pub input: GateInput,
    /// Noise on the gate's logits while training.
    pub noise: GateNoise,
    /// Learning rate of the gate (and of its noise) over the prompts'. Released code: 10.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate_factor: f64,
}

/// What computes the gate's weights (Table 4(a)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// One linear layer, `[t; block index] -> N` logits.
    Linear,
    /// Attention with prompts as query and the timestep embedding as the one key and value, to the letter:
    /// the softmax over one key is 1, so every token receives `W_o W_v t`.
    AttentionLiteral,
    /// Attention scores `q(prompt) . k(t)`, softmax over the N prompts, used as weights of the prompts.
    AttentionOverPrompts,
}

/// How many prompts are used, and with which weight (Table 4(b)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Selection {
    /// All prompts, softmax weights.
    Soft(Soft),
    /// The highest `floor(keep * N)` prompts; ties go to the lowest index.
    TopK(TopK),
}

/// All prompts, softmax weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Soft {}

/// The highest prompts only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopK {
    /// Share of the prompts that is kept, in (0, 1].
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1.0))]
    pub keep: f64,
    /// Weight of a kept prompt.
    pub weights: KeptWeights,
    /// How the gate learns where the kept weight is the constant 1.
    pub gradient: SelectionGradient,
}

impl TopK {
    /// How many of `prompts` are kept: `floor(keep * N)`.
    pub fn kept(&self, prompts: usize) -> usize {
        (self.keep * prompts as f64).floor() as usize
    }
}

/// Weight of a kept prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptWeights {
    /// Paper: each kept prompt is used with weight 1.
    One,
    /// Released code: softmax over the kept logits.
    Softmax,
}

/// How the gate learns where the kept weight is the constant 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SelectionGradient {
    /// It does not.
    None,
    /// Straight through: the gradient of the softmax probabilities stands in for that of the constant.
    StraightThrough,
}

/// Whether the gate sees the block's index (Table 4(c)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockAwareness {
    /// The gate sees `[t; block index]` and selects per block.
    Distinct,
    /// The gate sees `t` alone: all blocks use the same weights.
    Uniform,
}

/// Which embedding the gate reads (Table 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateInput {
    /// The timestep embedding.
    T,
    /// The sum of timestep and label (or text) embedding.
    TPlusC,
    /// Released code: `t_plus_c` where prompts are added, `t` where they are prepended.
    AsReleased,
}

/// Noise on the gate's logits while training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateNoise {
    /// None.
    None,
    /// Released code: standard deviation `softplus(c W_noise) + 0.01`, `W_noise` learned from zero.
    Learned,
}
