//! The works by name, with their shapes.

use std::fmt;
use std::str::FromStr;

use manifest::dit::DitConfig;
use manifest::gate::{Architecture, BlockAwareness, Gate, GateInput, GateNoise, Selection, Soft};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, Finetune, ImportanceFormula, Init, LoadFormula, Method, Position, Prompts, Zero,
};

/// Networks: one bound by everything around its matrix products, one by them, and, for GPUs, those of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The DiT of the tiny scale: depth 4, width 64, 64 tokens.
    Nano,
    /// DiT-S/2 on latents of 256x256 pixels: depth 12, width 384, 256 tokens (Peebles & Xie 2023).
    DitS2,
    /// DiT-B/2 on the same latents, of no class as the paper's of faces.
    DitB2,
    /// DiT-L/2.
    DitL2,
    /// DiT-XL/2.
    DitXl2,
}

impl Network {
    /// Its shape.
    pub fn dit(self) -> DitConfig {
        match self {
            Self::Nano => DitConfig {
                image_size: 24,
                channels: 3,
                patch: 3,
                hidden: 64,
                depth: 4,
                heads: 4,
                classes: None,
                text_width: None,
                label_dropout: 0.0,
                learn_sigma: true,
            },
            Self::DitS2 => DitConfig {
                image_size: 32,
                channels: 4,
                patch: 2,
                hidden: 384,
                depth: 12,
                heads: 6,
                classes: Some(1000),
                text_width: None,
                label_dropout: 0.1,
                learn_sigma: true,
            },
            Self::DitB2 => DitConfig { hidden: 768, depth: 12, heads: 12, ..Self::faces() },
            Self::DitL2 => DitConfig { hidden: 1024, depth: 24, heads: 16, ..Self::faces() },
            Self::DitXl2 => DitConfig { hidden: 1152, depth: 28, heads: 16, ..Self::faces() },
        }
    }

    /// DiT-S/2 without classes.
    fn faces() -> DitConfig {
        DitConfig { classes: None, label_dropout: 0.0, ..Self::DitS2.dit() }
    }

    /// Images of one step, and of one batch of samples.
    pub fn batch(self) -> usize {
        match self {
            Self::Nano => 64,
            Self::DitS2 => 4,
            Self::DitB2 | Self::DitL2 | Self::DitXl2 => 128,
        }
    }

    fn title(self) -> String {
        let (dit, batch) = (self.dit(), self.batch());
        format!("depth {}, width {}, {} tokens, batch {batch}", dit.depth, dit.hidden, dit.tokens())
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One training step of DMP as the authors released it, on a frozen backbone.
    Dmp(Network),
    /// One step of full fine-tuning.
    Full(Network),
    /// One batch of DMP samples.
    Sample(Network),
    /// The Frechet distance of two distributions in [`Work::FEATURES`] dimensions.
    Distance,
    /// Precision and recall of two sets of [`Work::SAMPLES`] such features.
    Coverage,
}

/// There is no work of this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no work is named `{0}`; allowed are {names}", names = Work::ALL.map(Work::name).join(", "))]
pub struct UnknownWork(String);

impl Work {
    /// All works.
    pub const ALL: [Self; 13] = [
        Self::Dmp(Network::Nano),
        Self::Full(Network::Nano),
        Self::Sample(Network::Nano),
        Self::Dmp(Network::DitS2),
        Self::Full(Network::DitS2),
        Self::Sample(Network::DitS2),
        Self::Dmp(Network::DitB2),
        Self::Full(Network::DitB2),
        Self::Sample(Network::DitB2),
        Self::Dmp(Network::DitL2),
        Self::Dmp(Network::DitXl2),
        Self::Distance,
        Self::Coverage,
    ];

    /// Its network; none of what looks at features.
    pub fn network(self) -> Option<Network> {
        match self {
            Self::Dmp(network) | Self::Full(network) | Self::Sample(network) => Some(network),
            Self::Distance | Self::Coverage => None,
        }
    }

    /// Whether it is worth timing where nobody asks for it by name: the paper's networks take a GPU, the small batches and distances of the
    /// others a processor, and precision and recall many minutes of one.
    pub fn usual(self, on_gpu: bool) -> bool {
        match (self, self.network()) {
            (Self::Coverage, _) => false,
            (_, Some(Network::Nano)) => true,
            (_, Some(Network::DitS2) | None) => !on_gpu,
            (_, Some(Network::DitB2 | Network::DitL2 | Network::DitXl2)) => on_gpu,
        }
    }

    /// Steps of the sampler.
    pub const SAMPLING_STEPS: usize = 50;

    /// Width of the features whose distance is timed: Inception's.
    pub const FEATURES: usize = 2048;

    /// Samples of which the paper measures precision and recall.
    pub const SAMPLES: usize = 50_000;

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dmp(Network::Nano) => "nano-dmp",
            Self::Full(Network::Nano) => "nano-full",
            Self::Sample(Network::Nano) => "nano-sample",
            Self::Dmp(Network::DitS2) => "s2-dmp",
            Self::Full(Network::DitS2) => "s2-full",
            Self::Sample(Network::DitS2) => "s2-sample",
            Self::Dmp(Network::DitB2) => "b2-dmp",
            Self::Full(Network::DitB2) => "b2-full",
            Self::Sample(Network::DitB2) => "b2-sample",
            Self::Dmp(Network::DitL2) => "l2-dmp",
            Self::Full(Network::DitL2) => "l2-full",
            Self::Sample(Network::DitL2) => "l2-sample",
            Self::Dmp(Network::DitXl2) => "xl2-dmp",
            Self::Full(Network::DitXl2) => "xl2-full",
            Self::Sample(Network::DitXl2) => "xl2-sample",
            Self::Distance => "frechet",
            Self::Coverage => "coverage",
        }
    }

    /// What it does, with its shape.
    pub fn title(self) -> String {
        match self {
            Self::Dmp(network) => format!("DMP step ({})", network.title()),
            Self::Full(network) => format!("full fine-tuning step ({})", network.title()),
            Self::Sample(network) => format!("{} sampling steps ({})", Self::SAMPLING_STEPS, network.title()),
            Self::Distance => format!("Frechet distance, {} dimensions", Self::FEATURES),
            Self::Coverage => format!("precision and recall, {0} x {0} x {1}", Self::SAMPLES, Self::FEATURES),
        }
    }

    /// Images that one repetition works on.
    pub fn images(self) -> Option<usize> {
        self.network().map(Network::batch)
    }

    /// What learns, or is sampled with.
    pub(super) fn method(self) -> Method {
        if let Self::Full(_) = self { Method::Finetune(Finetune::default()) } else { Method::Dmp(released()) }
    }
}

/// DMP with every switch as in the preset `official-code`: what PyTorch is compared on.
fn released() -> Dmp {
    Dmp {
        backbone: Backbone::Pretrained,
        prompts: Prompts { position: Position::Add(Add {}), depth: Depth::All, init: Init::Zero(Zero {}) },
        gate: Gate {
            architecture: Architecture::Linear,
            selection: Selection::Soft(Soft {}),
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
    }
}

impl FromStr for Work {
    type Err = UnknownWork;

    fn from_str(name: &str) -> Result<Self, UnknownWork> {
        Self::ALL.into_iter().find(|work| work.name() == name).ok_or_else(|| UnknownWork(name.to_owned()))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_released_method_is_that_of_the_preset() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let overrides = vec!["method.preset=official-code".to_owned()];
        let request = manifest::Request { scale: "tiny".to_owned(), overrides, seeds: None };
        let plan = manifest::Workspace::open(root).unwrap().load_artifact("table4", &request).unwrap();
        assert_eq!(plan.tables[0].method, Method::Dmp(released()));
        let config = serde_json::json!({"kind": "linear"});
        assert_eq!(crate::trunk::released::method(&config), Method::Dmp(released()));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for work in Work::ALL {
            assert_eq!(work.to_string().parse(), Ok(work));
        }
        let error = "nano".parse::<Work>().unwrap_err().to_string();
        assert!(error.contains("`nano`") && error.contains("nano-dmp, nano-full") && error.ends_with("coverage"));
    }
}
