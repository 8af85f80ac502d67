//! A plan: every cell of an artifact at a scale, as chains of stages, each stage with its key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::claim::{Claim, Direction, Metric};
use crate::denoiser::Denoiser;
use crate::digest::{Digest, Key};
use crate::manifest::{Measure, Paper};
use crate::method::Method;
use crate::recipe::Space;
use crate::scale::{Diffusion, Scale};
use crate::stage::Stage;

/// What will be run for one artifact at one scale, or for one recipe. Everything that decides a result is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the artifact (`table4`) or of the recipe (`tiny-backbone`).
    pub artifact: String,
    /// Its title.
    pub title: String,
    /// The manifest, relative to the root.
    pub file: PathBuf,
    /// Name of the scale (`tiny`); empty for a recipe.
    pub scale_name: String,
    /// The cells of an artifact, a table for each setting of the scale; none for a recipe.
    pub tables: Vec<Table>,
    /// Cells that cannot be run, and why.
    pub not_run: Vec<NotRun>,
    /// What is missing, where a table is left out for want of data or weights: its stages are not among these.
    pub missing: Option<String>,
    /// Every stage once, inputs before those who need them.
    pub stages: Vec<PlannedStage>,
}

/// A cell of the artifact that cannot be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotRun {
    /// Its id.
    pub cell: String,
    /// Its title.
    pub title: String,
    /// What the paper says about it.
    pub claims: Vec<Claim>,
    /// Why it cannot.
    pub reason: String,
}

/// What a manifest asks to be measured and what cannot be here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unmeasured {
    /// What.
    pub measure: Measure,
    /// Why not.
    pub reason: String,
}

/// The cells of an artifact and what they are compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The group that is this table alone, in a setting of its own; `None` for the groups in the scale's usual one.
    pub block: Option<PlannedGroup>,
    /// Where the paper prints it, and at which settings.
    pub paper: Paper,
    /// Name of the scale (`tiny`).
    pub scale_name: String,
    /// The scale in this setting, with overrides.
    pub scale: Scale,
    /// Overrides, as typed.
    pub overrides: Vec<String>,
    /// Preset that the cells start from (`paper`).
    pub preset: String,
    /// The method as the manifest names it, which the cells change.
    pub method: Method,
    /// Training seeds.
    pub seeds: Vec<u64>,
    /// What the network sees.
    pub space: Space,
    /// The network.
    #[serde(flatten)]
    pub denoiser: Denoiser,
    /// The diffusion process.
    pub diffusion: Diffusion,
    /// Groups in order, the baseline not among them.
    pub groups: Vec<PlannedGroup>,
    /// The baseline first, then all cells in the order of the manifest.
    pub cells: Vec<PlannedCell>,
    /// The cell that trains the method as the manifest names it or, where none does, the only one that trains its kind.
    pub default_cell: Option<String>,
    /// The default cell's patch, sampled with noise on its prompts: a change known to hurt.
    pub positive_control: Option<PlannedCell>,
    /// Comparisons of two cells, in the order of the cells.
    pub contrasts: Vec<Contrast>,
    /// Features and statistics of the reference images.
    pub reference: Reference,
    /// The distance to the reference of as many real images as samples are drawn, none of them in it; `None` where the
    /// scale has none.
    pub floor: Option<Key>,
    /// What is not measured beside the distance, though the manifest asks for it.
    pub unmeasured: Vec<Unmeasured>,
}

/// A group of cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedGroup {
    /// Its name in the manifest (`b`).
    pub id: String,
    /// Its title.
    pub title: String,
}

/// One configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// `group/label`, or `baseline`, or that of a group with a setting of its own.
    pub id: String,
    /// Its group; `None` for the baseline and the positive control.
    pub group: Option<String>,
    /// Its title.
    pub title: String,
    /// What the paper says about its distance.
    pub claim: Option<Claim>,
    /// What it says about other metrics of it.
    pub further_claims: Vec<Claim>,
    /// Share of the scale's iterations after which it is judged.
    pub share: f64,
    /// The file of what was trained elsewhere, in the place of its training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained: Option<Input>,
    /// The method as written, every field explicit.
    pub written: Method,
    /// The method as run: [`Method::canonical`].
    pub method: Method,
    /// One run per seed.
    pub runs: Vec<CellRun>,
    /// The first earlier cell with the same chains.
    pub same_run_as: Option<String>,
    /// That cell, if the two are written differently but cannot train differently.
    pub identical_by_construction: Option<String>,
}

/// A cell at one seed: the keys of its chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRun {
    /// Seed of the training; the sampling seed is the scale's plus this.
    pub seed: u64,
    /// Training, or the import of what was trained elsewhere; none where the method trains nothing.
    pub trained: Option<Key>,
    /// Sampling.
    pub sample: Key,
    /// The first samples as images, where samples are latents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoded: Option<Key>,
    /// Features of the samples.
    pub features: Key,
    /// The distance to the reference.
    pub metrics: Key,
    /// The gate's weights, for methods with a gate.
    pub activation: Option<Key>,
    /// What else is measured: extrapolation, coverage, scores, a distance of other features.
    pub measures: Vec<Key>,
    /// Samples of one class each, to be looked at: the class, as the paper numbers it, and their sampling, or decoding
    /// where samples are latents.
    pub classes: Vec<(u32, Key)>,
    /// Samples of one caption each, to be looked at: the caption and the sampling.
    #[serde(default)]
    pub captions: Vec<(String, Key)>,
}

impl CellRun {
    /// The stages of the chain, each after its inputs.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        let judged = [Some(self.features), Some(self.metrics), self.activation];
        let chain = [self.trained, Some(self.sample), self.decoded].into_iter().chain(judged);
        let shown = self.classes.iter().map(|(_, key)| *key).chain(self.captions.iter().map(|(_, key)| *key));
        chain.flatten().chain(self.measures.iter().copied()).chain(shown)
    }
}

/// Two cells that the paper compares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    /// In what.
    pub metric: Metric,
    /// Id of the cell.
    pub cell: String,
    /// Id of the cell it is compared with.
    pub against: String,
    /// Whether the paper's value of `cell` is lower or higher than that of `against`, or almost the same.
    pub expected: Direction,
    /// The paper's difference `cell - against`, where both values are printed.
    pub paper_gap: Option<f64>,
}

/// Features and statistics of the reference images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Features of the images; `None` where there are published statistics alone.
    pub features: Option<Key>,
    /// Their mean and covariance.
    pub statistics: Key,
    /// Those of spatial features, where they are measured.
    pub spatial: Option<Key>,
}

impl Reference {
    /// The stages.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        [self.features, Some(self.statistics), self.spatial].into_iter().flatten()
    }
}

/// A stage and its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedStage {
    /// `sha256("<kind>/v<version>" + canonical parameters + the inputs' keys)`.
    pub key: Key,
    /// What is done.
    pub stage: Stage,
    /// Inputs by name (the stage's documentation lists them).
    pub inputs: BTreeMap<String, Input>,
}

/// What a stage reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The artifact of another stage.
    Stage(Key),
    /// A file or folder; its content is in the key, its path is not.
    File {
        /// Content: of a file its SHA-256, of a folder that of its sorted names and files' SHA-256s.
        sha256: Digest,
        /// Where it was found.
        path: PathBuf,
    },
}

impl PlannedStage {
    /// Computes the key. An error if a parameter is not finite.
    pub fn new(stage: Stage, inputs: BTreeMap<String, Input>) -> Result<Self, canonical::NotCanonical> {
        let mut preimage = stage.version();
        preimage.push('\n');
        preimage.push_str(&canonical::to_json(&stage)?);
        for (name, input) in &inputs {
            match input {
                Input::Stage(key) => preimage.push_str(&format!("\n{name}=stage:{key}")),
                Input::File { sha256, .. } => preimage.push_str(&format!("\n{name}=file:{sha256}")),
            }
        }
        Ok(Self { key: Key::of(&preimage), stage, inputs })
    }

    /// Keys of the stages that must be done first.
    pub fn dependencies(&self) -> impl Iterator<Item = Key> {
        self.inputs.values().filter_map(|input| match input {
            Input::Stage(key) => Some(*key),
            Input::File { .. } => None,
        })
    }
}

impl Plan {
    /// Whether it is the plan of a recipe, which has no cells.
    pub fn is_recipe(&self) -> bool {
        self.tables.is_empty() && self.not_run.is_empty()
    }

    /// Where a file says engine, device and precision: the recipe of a UNet with the rest of its training, all else at its top;
    /// `None` of the recipe of a UNet that nobody trains.
    pub fn numerics_key(&self) -> Option<&'static str> {
        match self.stages.last().map(|planned| &planned.stage) {
            _ if !self.is_recipe() => Some("numerics"),
            Some(Stage::Pretrain(stage)) if stage.denoiser.dit().is_none() => Some("training.numerics"),
            Some(_) => Some("numerics"),
            None => None,
        }
    }

    /// The table that has a cell, and the cell.
    pub fn cell(&self, id: &str) -> Option<(&Table, &PlannedCell)> {
        self.tables.iter().find_map(|table| Some((table, table.cell(id)?)))
    }

    /// The stage with a key.
    pub fn stage(&self, key: Key) -> Option<&PlannedStage> {
        self.stages.iter().find(|stage| stage.key == key)
    }
}

impl Table {
    /// The cell with an id, the positive control included.
    pub fn cell(&self, id: &str) -> Option<&PlannedCell> {
        self.cells.iter().chain(&self.positive_control).find(|cell| cell.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Faces, Source};
    use crate::dit::DitConfig;
    use crate::method::{Finetune, Pretrained};
    use crate::scale::{
        DeviceKind, Dtype, Engine, GuidanceChannels, Numerics, Optimisation, Sampler, SamplerKind, Schedule,
    };
    use crate::stage::{FeatureKind, Metrics, Sample, Statistics, Train};

    fn numerics() -> Numerics {
        Numerics { engine: Engine::Reference, device: DeviceKind::Cpu, dtype: Dtype::F32 }
    }

    fn dit() -> DitConfig {
        DitConfig {
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
        }
    }

    fn diffusion() -> Diffusion {
        Diffusion { schedule: Schedule::Cosine, timesteps: 1000 }
    }

    fn train(seed: u64, learning_rate: f64) -> Stage {
        Stage::Train(Train {
            denoiser: Denoiser::Dit(dit()),
            method: Method::Finetune(Finetune::default()),
            data: Source::Faces(Faces { image_size: 24, first: 0, count: 100 }),
            latents: None,
            diffusion: diffusion(),
            optimisation: Optimisation {
                iterations: 300,
                batch: 32,
                learning_rate,
                final_learning_rate: learning_rate,
                warmup_iterations: 0,
                weight_decay: 0.0,
                horizontal_flip: true,
                micro_batch: None,
            },
            seed,
            numerics: numerics(),
        })
    }

    fn file(content: &str, path: &str) -> BTreeMap<String, Input> {
        let file = Input::File { sha256: Digest::of(content.as_bytes()), path: path.into() };
        BTreeMap::from([("backbone".to_owned(), file)])
    }

    fn key(stage: Stage, inputs: BTreeMap<String, Input>) -> Key {
        PlannedStage::new(stage, inputs).unwrap().key
    }

    /// Keys of records that exist: a change here makes everything run again, so it must be meant (raise a version).
    /// Computed by other means: Python's `json.dumps(sort_keys=True)` and `hashlib`.
    #[test]
    fn known_keys_stand() {
        let trained = key(train(0, 1e-3), file("weights", "a"));
        assert_eq!(trained.to_string(), "c96261b1e58f6b354674b9d28af6e3275027f4125f8abfd163dd30c329190dae");
        let sample = Stage::Sample(Sample {
            denoiser: Denoiser::Dit(dit()),
            method: Method::Pretrained(Pretrained {}),
            diffusion: diffusion(),
            latents: None,
            sampler: Sampler {
                kind: SamplerKind::Ddpm,
                steps: 50,
                clip_x0: true,
                guidance: 1.0,
                guidance_channels: GuidanceChannels::All,
            },
            count: 1000,
            seed: u64::MAX,
            prompt_noise: 0.0,
            class: None,
            numerics: numerics(),
        });
        let sampled = key(sample, file("weights", "a"));
        assert_eq!(sampled.to_string(), "c9beda176effb882c8732c514c10efd260a60fe0d38aa03d61947b96748e09c9");
        let features = BTreeMap::from([("features".to_owned(), Input::Stage(sampled))]);
        let statistics = key(Stage::Statistics(Statistics { of: FeatureKind::Pooled, published: None }), features);
        assert_eq!(statistics.to_string(), "bfd05c55aba2c799ec8f5ceb1a02e9f011f817009860436abd865e31e2acf82e");
    }

    #[test]
    fn the_text_that_is_hashed_can_be_written_by_hand() {
        let metrics =
            Stage::Metrics(Metrics { name: "fd_cnn".to_owned(), subsets: 8, seed: 0, of: FeatureKind::Pooled });
        let inputs = ["features", "reference"].map(|name| (name.to_owned(), file(name, "x")["backbone"].clone()));
        let (features, reference) = (Digest::of(b"features"), Digest::of(b"reference"));
        let text = format!(
            "metrics/v1\n{{\"name\":\"fd_cnn\",\"seed\":0,\"stage\":\"metrics\",\"subsets\":8}}\n\
             features=file:{features}\nreference=file:{reference}"
        );
        assert_eq!(key(metrics, inputs.into()).to_string(), Digest::of(text.as_bytes()).to_string());
    }

    #[test]
    fn a_key_depends_on_parameters_and_contents_but_on_no_path() {
        let one = key(train(0, 1e-3), file("weights", "a"));
        assert_eq!(one, key(train(0, 1e-3), file("weights", "elsewhere/b")));
        assert_ne!(one, key(train(1, 1e-3), file("weights", "a")));
        assert_ne!(one, key(train(0, 2e-3), file("weights", "a")));
        assert_ne!(one, key(train(0, 1e-3), file("other weights", "a")));
        let stage = BTreeMap::from([("backbone".to_owned(), Input::Stage(one))]);
        assert_ne!(one, key(train(0, 1e-3), stage));
        assert!(PlannedStage::new(train(0, f64::NAN), BTreeMap::new()).is_err());
    }
}
