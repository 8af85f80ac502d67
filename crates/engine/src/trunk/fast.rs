//! What the fast engine's trunks share: the manifest's shapes, the weight files' names and the patch's tensors as `kernels`
//! knows them.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use kernels::{Parameters, Shape};
use manifest::dit::DitConfig;
use models::Condition;
use models::dit::{LABEL_TABLE, PROJECTION};
use models::weights::Weights;
use patches::Mixture;

use crate::batch::TrainingBatch;

/// A DiT's shape.
pub fn shape(dit: &DitConfig) -> Shape {
    Shape {
        image_size: dit.image_size,
        channels: dit.channels,
        patch: dit.patch,
        hidden: dit.hidden,
        depth: dit.depth,
        heads: dit.heads,
        label_rows: dit.label_rows(),
        out_channels: dit.out_channels(),
    }
}

/// The trunk's parameters from named tensors.
///
/// # Errors
/// A tensor is missing, unknown or of another size.
pub fn parameters(dit: &DitConfig, weights: &Weights) -> Result<Parameters> {
    let tensors = weights.iter().map(|(name, tensor)| (name.as_str(), tensor.values.as_slice()));
    Parameters::from_tensors(shape(dit), tensors).context("the weights do not fit the network of this scale")
}

/// Names, shapes and learning rate factors of all weights of a DiT, in the order of [`Parameters`]: all learn but the
/// positions. Of a network that is conditioned on text, the projection stands where the label table does.
///
/// # Errors
/// The shape is unsound.
pub fn full_slots(dit: &DitConfig) -> Result<Vec<(String, Vec<usize>, f64)>> {
    let mut segments = Parameters::zeros(shape(dit))?.segments();
    segments.sort_by_key(|segment| segment.range.start);
    let slot = |segment: kernels::Segment| {
        let learns = f64::from(segment.name != models::dit::POSITION_EMBEDDING);
        match dit.text_width {
            Some(width) if segment.name == LABEL_TABLE => {
                let [weight, bias] = PROJECTION.map(str::to_owned);
                vec![(weight, vec![dit.hidden, width], learns), (bias, vec![dit.hidden], learns)]
            }
            _ => vec![(segment.name, segment.dimensions, learns)],
        }
    };
    Ok(segments.into_iter().flat_map(slot).collect())
}

/// Timesteps `[B]` as the embedder reads them.
pub fn timesteps(batch: &TrainingBatch) -> Vec<f32> {
    batch.clean.t.iter().map(|&t| t as f32).collect()
}

/// The embeddings that a gate reads, `[R, D]` each.
///
/// # Errors
/// Those of candle.
pub fn gate_condition(condition: &kernels::Condition, hidden: usize) -> Result<Condition> {
    let tensor = |values: &[f32]| Tensor::from_slice(values, (condition.rows(), hidden), &Device::Cpu);
    Ok(Condition { t: tensor(condition.t_emb())?, label: tensor(condition.label())? })
}

/// A mixture's contributions as plain slices, block after block.
pub struct Mixed {
    kind: Kind,
    blocks: usize,
}

enum Kind {
    /// Weights `[L', R, N]` and prompts `[L', N, D]`, added to the tokens or put in front of them.
    Prompts { weights: Vec<f32>, prompts: Arc<[f32]>, in_front: bool },
    /// Vectors `[L', R, D]`, added to every token or put in front of them at so many places.
    Vectors { vectors: Vec<f32>, in_front: Option<usize> },
}

impl Mixed {
    /// Copies a mixture's tensors. The prompts, which are the same as those of a `known` mixture of the patch, are shared with
    /// it: a table of gates holds them once.
    ///
    /// Weights and prompts stay apart: multiplied on their way into the tokens they cost what adding their product would, and
    /// take less memory than products for each label.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(mixture: &Mixture, in_front: bool, known: Option<&Self>) -> Result<Self> {
        let flat = |tensor: &Tensor| tensor.flatten_all().and_then(|t| t.to_vec1::<f32>());
        Ok(match mixture.contribution() {
            patches::Contribution::Prompts { weights, prompts } => {
                let shared = match known.map(|known| &known.kind) {
                    Some(Kind::Prompts { prompts, .. }) => Arc::clone(prompts),
                    _ => flat(prompts)?.into(),
                };
                let kind = Kind::Prompts { weights: flat(weights)?, prompts: shared, in_front };
                Self { kind, blocks: prompts.dim(0)? }
            }
            patches::Contribution::Vectors { vectors, prompts } => {
                let kind = Kind::Vectors { vectors: flat(vectors)?, in_front: in_front.then_some(*prompts) };
                Self { kind, blocks: vectors.dim(0)? }
            }
        })
    }

    /// What enters before each of `depth` blocks.
    pub fn contributions(&self, depth: usize) -> Vec<kernels::Contribution<'_>> {
        let part = |values: &'_ [f32], block: usize| {
            let each = values.len() / self.blocks;
            block * each..(block + 1) * each
        };
        let contribution = |block: usize| match &self.kind {
            _ if block >= self.blocks => kernels::Contribution::None,
            Kind::Prompts { weights, prompts, in_front } => {
                let (weights, prompts) = (&weights[part(weights, block)], &prompts[part(prompts, block)]);
                if *in_front {
                    kernels::Contribution::Prepend { weights, prompts }
                } else {
                    kernels::Contribution::Weighted { weights, prompts }
                }
            }
            Kind::Vectors { vectors, in_front } => {
                let vectors = &vectors[part(vectors, block)];
                match *in_front {
                    Some(places) => kernels::Contribution::PrependBroadcast { vectors, places },
                    None => kernels::Contribution::Broadcast { vectors },
                }
            }
        };
        (0..depth).map(contribution).collect()
    }
}
