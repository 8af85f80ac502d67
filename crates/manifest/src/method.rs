//! What is done to the backbone: one enum, one variant per row of the paper's tables.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate::{Architecture, BlockAwareness, Gate, GateInput, Selection};

/// What is trained, on top of which frozen or unfrozen weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// The backbone as it is: nothing is trained.
    Pretrained(Pretrained),
    /// Full fine-tuning: every weight of the backbone is trained.
    Finetune(Finetune),
    /// Prompt tuning: prompts without a gate, each used with weight 1.
    PromptTuning(PromptTuning),
    /// Low-rank adaptation of the attention's projections, the rest frozen.
    Lora(Lora),
    /// Diffusion Model Patching: prompts mixed by a gate at every timestep.
    Dmp(Dmp),
}

impl Method {
    /// Whether the backbone starts from initial values: no pre-trained weights are read.
    pub fn from_scratch(&self) -> bool {
        let backbone = match self {
            Self::Finetune(finetune) => finetune.backbone,
            Self::Dmp(dmp) => dmp.backbone,
            Self::Pretrained(_) | Self::PromptTuning(_) | Self::Lora(_) => Backbone::Pretrained,
        };
        backbone == Backbone::FromScratch
    }

    /// What has no meaning on a UNet, as our reading patches one: the path below the method, and why; `None` where all has.
    pub fn unfit_for_unet(&self) -> Option<(&'static str, &'static str)> {
        if self.from_scratch() && !matches!(self, Self::Finetune(_)) {
            return Some((
                "backbone",
                "must be `pretrained` on a UNet, whose weights do not learn together with a patch",
            ));
        }
        if matches!(self, Self::Lora(_)) {
            return Some(("kind", "can be `lora` on a diffusion transformer only: the paper has none on a UNet"));
        }
        let prompts = self.prompts()?;
        if !matches!(prompts.position, Position::Add(_)) {
            let why = "must be `add` on a UNet: its blocks read maps, and nothing can be put in front of one";
            return Some(("prompts.position.kind", why));
        }
        if prompts.depth != Depth::All {
            return Some(("prompts.depth", "must be `all` on a UNet: the way up repeats the way down"));
        }
        let Self::Dmp(Dmp { gate, .. }) = self else { return None };
        if gate.architecture != Architecture::Linear {
            return Some((
                "gate.architecture",
                "must be `linear` on a UNet: its blocks have prompts of several widths",
            ));
        }
        if !matches!(gate.selection, Selection::Soft(_)) {
            let why = "must be `soft` on a UNet: smaller maps take sums of the weights of the largest";
            return Some(("gate.selection.kind", why));
        }
        if gate.prompts_per_block != BlockAwareness::Distinct {
            return Some(("gate.prompts_per_block", "must be `distinct` on a UNet"));
        }
        if gate.input == GateInput::TPlusC {
            let why = "must be `t` on a UNet: a caption conditions it as a sequence, not as one vector `c`";
            return Some(("gate.input", why));
        }
        None
    }

    /// Its prompts, where it has any.
    pub fn prompts(&self) -> Option<&Prompts> {
        match self {
            Self::Pretrained(_) | Self::Finetune(_) | Self::Lora(_) => None,
            Self::PromptTuning(tuning) => Some(&tuning.prompts),
            Self::Dmp(dmp) => Some(&dmp.prompts),
        }
    }
}

/// What a method's backbone starts from (Table 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// Pre-trained weights.
    #[default]
    Pretrained,
    /// Initial values of the run's seed. They learn, together with a patch.
    FromScratch,
}

impl Backbone {
    fn is_pretrained(&self) -> bool {
        *self == Self::Pretrained
    }
}

/// Nothing is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pretrained {}

/// Every weight of the backbone is trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finetune {
    /// What the weights start from.
    #[serde(default, skip_serializing_if = "Backbone::is_pretrained")]
    pub backbone: Backbone,
}

/// Prompts without a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptTuning {
    /// The prompts.
    pub prompts: Prompts,
}

/// Low-rank adaptation (Hu et al. 2022): `y = W x + b + alpha / rank B A x` for the projections `attn.qkv` and `attn.proj` of
/// every block; `A` and `B` learn. The paper gives no rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Rows of `A` and columns of `B`; at most the width of the backbone.
    #[schemars(range(min = 1))]
    pub rank: usize,
    /// `alpha / rank` is what the product counts.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
}

/// Diffusion Model Patching (paper, Section 3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dmp {
    /// What the backbone's weights start from. Pre-trained ones are frozen.
    #[serde(default, skip_serializing_if = "Backbone::is_pretrained")]
    pub backbone: Backbone,
    /// The prompts.
    pub prompts: Prompts,
    /// The gate that weights them.
    pub gate: Gate,
    /// The losses that keep the gate from using few prompts only.
    pub balance: Balance,
}

/// One pool of learnable prompts per block, `p(i)` in `R^{N x D}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// Where the prompts enter a block.
    pub position: Position,
    /// Which blocks have prompts.
    pub depth: Depth,
    /// How prompts start. The paper: zero, random diverges.
    pub init: Init,
}

/// Where the prompts enter a block (Table 4(d)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Position {
    /// `x + gate * prompt`, one prompt per image token.
    Add(Add),
    /// Prompts go in front of the image tokens, are replaced at every prompted block and dropped at the end.
    Prepend(Prepend),
}

impl Position {
    /// Number of prompts `N` in a block with `tokens` image tokens.
    pub fn prompts(&self, tokens: usize) -> usize {
        match self {
            Self::Add(_) => tokens,
            Self::Prepend(prepend) => (tokens * prepend.per_256_tokens + 128) / 256,
        }
    }
}

/// One prompt per image token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Add {}

/// Prompts in front of the image tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prepend {
    /// Prompts per 256 image tokens; another token count `T` uses `round(T * per_256_tokens / 256)`.
    #[schemars(range(min = 1, max = 256))]
    pub per_256_tokens: usize,
}

/// Which blocks have prompts (Figure 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// The first block only.
    First,
    /// The first half of the blocks, rounded down, at least one.
    Half,
    /// Every block.
    All,
    /// The first `N` blocks, at most as many as there are. Released code: 12, also in deeper networks.
    Blocks(#[schemars(range(min = 1))] usize),
}

impl Depth {
    /// Number of blocks with prompts, the first ones, of a network with `depth` blocks.
    pub fn blocks(self, depth: usize) -> usize {
        match self {
            Self::First => 1,
            Self::Half => (depth / 2).max(1),
            Self::All => depth,
            Self::Blocks(blocks) => blocks,
        }
    }
}

/// How a trainable tensor starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Init {
    /// All zeros.
    Zero(Zero),
    /// Independent normal draws.
    Normal(Normal),
}

/// All zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zero {}

/// Independent normal draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Normal {
    /// Standard deviation.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub std: f64,
}

/// The balancing losses (Eq. 11-13) and their coefficients (Table 4(e)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// Coefficient of the importance loss.
    #[schemars(range(min = 0.0))]
    pub importance: f64,
    /// Which importance loss.
    pub importance_formula: ImportanceFormula,
    /// Coefficient of the load loss.
    #[schemars(range(min = 0.0))]
    pub load: f64,
    /// Which load loss.
    pub load_formula: LoadFormula,
}

/// `g` is `[L, B, N]`: the gate's weight of every prompt in every block for every sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceFormula {
    /// Eq. 12-13 per sample, then averaged: `var_n(sum_l g) / (mean_n(sum_l g)^2 + 1e-5)`, population variance.
    Paper,
    /// Released code: `var(sum_l g) / (mean(sum_l g)^2 + 1e-10)` over all `B * N` entries, unbiased variance.
    OfficialCode,
}

/// How many prompts a gate leaves unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadFormula {
    /// Eq. 11: the count of weights below zero, averaged over blocks. It has no gradient; with softmax weights it is zero.
    Count,
    /// Released code with top-k: the smooth probability of being kept (Shazeer et al. 2017), mean over blocks of its
    /// sum over samples and prompts. Zero where all prompts are kept.
    Smooth,
}
