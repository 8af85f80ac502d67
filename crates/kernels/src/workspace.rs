//! Memory of a pass through the trunk: made once per run, used every step.
//!
//! The batch is cut into at most [`MAX_LANES`] lanes of neighbouring samples, whatever the number of threads; lanes
//! are the tasks that run in parallel. A lane owns the activations of its samples and its share of the gradients;
//! shares are added up in the lanes' order, so results do not depend on the number of threads. Inside a lane samples
//! are worked on in chunks of about [`CHUNK_TOKENS`] tokens, whose scratch fits the second-level cache and belongs to
//! whichever thread is at work.

use std::ops::Range;
use std::sync::Mutex;

use crate::attention::SoftmaxRow;
use crate::contribution::ContributionGradient;
use crate::layernorm::RowStatistics;
use crate::parameters::{Offsets, Parameters};
use crate::shape::Shape;

/// Most lanes of a batch.
const MAX_LANES: usize = 16;

/// Tokens worked on together.
const CHUNK_TOKENS: usize = 256;

/// What the backward pass computes beside the gradients of the contributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// There is no backward pass: sampling. Nothing is kept.
    Nothing,
    /// Frozen weights: contributions to the blocks `from..` learn. Blocks before keep nothing.
    Contributions {
        /// The first block whose contribution learns.
        from: usize,
    },
    /// The weights and biases of `attn.qkv` and `attn.proj` of all blocks (LoRA's products are merged into them).
    Attention,
    /// All weights but `pos_embed`.
    Everything,
}

/// What a workspace is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The trunk's shape.
    pub shape: Shape,
    /// Samples `B`.
    pub batch: usize,
    /// What learns.
    pub learn: Learn,
    /// Prompts in front of the image tokens, 0 without `Prepend`.
    pub prepended: usize,
    /// Whether the gradient of the images is wanted too (goes back through all blocks).
    pub image_gradient: bool,
}

impl Plan {
    /// A plan for sampling.
    pub fn sampling(shape: Shape, batch: usize, prepended: usize) -> Self {
        Self { shape, batch, learn: Learn::Nothing, prepended, image_gradient: false }
    }

    /// The first block that the backward pass goes through; `L` if there is none.
    pub(crate) fn first(&self) -> usize {
        match self.learn {
            Learn::Nothing => self.shape.depth,
            Learn::Contributions { .. } if self.image_gradient => 0,
            Learn::Contributions { from } => from.min(self.shape.depth),
            Learn::Attention | Learn::Everything => 0,
        }
    }

    /// The longest sequence, `T + N`.
    pub(crate) fn longest(&self) -> usize {
        self.shape.tokens() + self.prepended
    }

    /// Samples of one chunk.
    pub(crate) fn chunk(&self) -> usize {
        (CHUNK_TOKENS / self.longest()).max(1)
    }

    fn lanes(&self) -> impl Iterator<Item = Range<usize>> {
        let count = self.batch.min(MAX_LANES);
        let batch = self.batch;
        (0..count).map(move |lane| lane * batch / count..(lane + 1) * batch / count)
    }
}

/// Activations of some samples: the input, queries/keys/values, attention output, middle of the residual stream and
/// MLP pre-activation of every block from `first` on, with the row statistics of both norms and of the softmax.
/// Blocks before `first` write where block `first` will.
pub(crate) struct Activations {
    first: usize,
    depth: usize,
    /// `[samples, tokens, D]` before each block, and after the last.
    pub(crate) x: Vec<Vec<f32>>,
    pub(crate) x_statistics: Vec<Vec<RowStatistics>>,
    pub(crate) qkv: Vec<Vec<f32>>,
    pub(crate) softmax: Vec<Vec<SoftmaxRow>>,
    pub(crate) attention: Vec<Vec<f32>>,
    pub(crate) middle: Vec<Vec<f32>>,
    pub(crate) middle_statistics: Vec<Vec<RowStatistics>>,
    pub(crate) hidden: Vec<Vec<f32>>,
    /// Outputs of `attn.proj` and `mlp.fc2` before bias and gate: only where the gates' modulation learns.
    pub(crate) branches: Option<[Vec<Vec<f32>>; 2]>,
}

impl Activations {
    fn new(plan: &Plan, samples: usize) -> Self {
        let (s, first) = (&plan.shape, plan.first());
        let rows = samples * plan.longest();
        let slots = (s.depth - first).max(1);
        let wide = |width: usize, slots: usize| -> Vec<Vec<f32>> { vec![vec![0.0; rows * width]; slots] };
        let statistics = |slots: usize| vec![vec![RowStatistics::default(); rows]; slots];
        let learns = plan.learn == Learn::Everything;
        Self {
            first,
            depth: s.depth,
            x: wide(s.hidden, s.depth - first + 1),
            x_statistics: statistics(s.depth - first + 1),
            qkv: wide(3 * s.hidden, slots),
            softmax: vec![vec![SoftmaxRow::default(); rows * s.heads]; slots],
            attention: wide(s.hidden, slots),
            middle: wide(s.hidden, slots),
            middle_statistics: statistics(slots),
            hidden: wide(s.mlp(), slots),
            branches: learns.then(|| [wide(s.hidden, slots), wide(s.hidden, slots)]),
        }
    }

    /// Whether block `level` is kept for the backward pass.
    pub(crate) fn keeps(&self, level: usize) -> bool {
        level >= self.first
    }

    /// Where block `level` lies.
    pub(crate) fn slot(&self, level: usize) -> usize {
        level.max(self.first).min(self.depth.max(self.first + 1) - 1) - self.first
    }

    /// Where the input of block `level` lies; at `L`, the trunk's output.
    pub(crate) fn x_slot(&self, level: usize) -> usize {
        level.max(self.first) - self.first
    }
}

/// One lane: neighbouring samples with all that is kept of them.
pub(crate) struct Lane {
    pub(crate) samples: Range<usize>,
    /// `None` in sampling.
    pub(crate) activations: Option<Activations>,
    /// Input patches, kept where the patch embedding learns.
    pub(crate) patches: Vec<f32>,
    /// Gradient of the residual stream.
    pub(crate) dx: Vec<f32>,
    /// This lane's share of one block's (or the embedding's, or the final layer's) weight gradients.
    pub(crate) share: Vec<f32>,
    /// `[samples, N]` of one block.
    pub(crate) d_weights: Vec<f32>,
    /// This lane's share of one block's `[N, D]`, or its samples' `[samples, D]` for broadcast vectors.
    pub(crate) d_prompts: Vec<f32>,
    /// Block after block `[samples, 6 D]`, then `[samples, 2 D]`.
    pub(crate) d_modulations: Vec<f32>,
}

impl Lane {
    fn new(plan: &Plan, samples: Range<usize>) -> Self {
        let (s, count) = (&plan.shape, samples.len());
        let back = plan.learn != Learn::Nothing;
        let buffer = |wanted: bool, length: usize| vec![0.0; if wanted { length } else { 0 }];
        let everything = plan.learn == Learn::Everything;
        let share = match plan.learn {
            Learn::Nothing | Learn::Contributions { .. } => 0,
            Learn::Attention => Offsets::block_length(s),
            Learn::Everything => {
                let embed = (s.patch_in() + 1) * s.hidden;
                let last = (s.hidden + 1) * s.patch_out();
                Offsets::block_length(s).max(embed).max(last)
            }
        };
        Self {
            activations: back.then(|| Activations::new(plan, count)),
            patches: buffer(everything, count * s.tokens() * s.patch_in()),
            dx: buffer(back, count * plan.longest() * s.hidden),
            share: buffer(true, share),
            d_weights: buffer(back, count * plan.longest()),
            d_prompts: buffer(back, plan.longest().max(count) * s.hidden),
            d_modulations: buffer(everything, count * s.modulations()),
            samples,
        }
    }
}

/// Buffers of one chunk at work.
pub(crate) struct Scratch {
    /// In sampling, the activations of one block.
    pub(crate) activations: Option<Activations>,
    pub(crate) patches: Vec<f32>,
    /// `[tokens, D]`: normalised rows, or their gradient.
    pub(crate) normed: Vec<f32>,
    /// `[tokens, D]`: a branch's output, or its gradient.
    pub(crate) branch: Vec<f32>,
    /// `[tokens, D]`: normalised rows made again (where weights learn).
    pub(crate) again: Vec<f32>,
    /// `[tokens, 4 D]`: GELU's output, or gradients of that width.
    pub(crate) wide: Vec<f32>,
    /// `[tokens, 4 D]`: GELU's output made again (where weights learn).
    pub(crate) wide_again: Vec<f32>,
    /// Two heads' score matrices.
    pub(crate) scores: Vec<f32>,
}

impl Scratch {
    fn new(plan: &Plan) -> Self {
        let s = &plan.shape;
        let samples = plan.chunk().min(plan.batch.max(1));
        let rows = samples * plan.longest();
        let weights = matches!(plan.learn, Learn::Attention | Learn::Everything);
        let buffer = |wanted: bool, length: usize| vec![0.0; if wanted { length } else { 0 }];
        Self {
            activations: (plan.learn == Learn::Nothing).then(|| Activations::new(plan, samples)),
            patches: vec![0.0; samples * s.tokens() * s.patch_in().max(s.patch_out())],
            normed: vec![0.0; rows * s.hidden],
            branch: vec![0.0; rows * s.hidden],
            again: buffer(weights, rows * s.hidden),
            wide: vec![0.0; rows * s.mlp()],
            wide_again: buffer(plan.learn == Learn::Everything, rows * s.mlp()),
            scores: vec![0.0; 2 * plan.longest() * plan.longest()],
        }
    }
}

/// Scratch not in use; grows to one per thread.
pub(crate) struct Pool {
    plan: Plan,
    free: Mutex<Vec<Scratch>>,
}

impl Pool {
    pub(crate) fn chunk(&self) -> usize {
        self.plan.chunk()
    }

    /// Runs `work` with scratch that no other thread uses. Its contents are left over from earlier work.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let free = self.free.lock().expect("no panic holds the pool").pop();
        let mut scratch = free.unwrap_or_else(|| Scratch::new(&self.plan));
        let result = work(&mut scratch);
        self.free.lock().expect("no panic holds the pool").push(scratch);
        result
    }
}

/// What a backward pass leaves behind; overwritten by the next.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of each block's contribution.
    pub contributions: Vec<ContributionGradient>,
    /// Of the images, `[B, C, size, size]`, where the plan asks for it.
    pub images: Option<Vec<f32>>,
    /// Of the weights, where they learn. What does not learn stays 0.
    pub parameters: Option<Parameters>,
    /// Of the modulations, block after block `[R, 6 D]` and `[R, 2 D]`, where everything learns.
    pub(crate) modulations: Vec<f32>,
}

/// All buffers of forward and backward passes over one batch.
pub struct Workspace {
    pub(crate) plan: Plan,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) pool: Pool,
    pub(crate) gradients: Gradients,
}

impl Workspace {
    /// Allocates what `plan` needs.
    ///
    /// # Panics
    /// If the shape is unsound (see [`Shape::check`]) or the batch is empty.
    pub fn new(plan: Plan) -> Self {
        plan.shape.check().expect("a sound shape");
        assert!(plan.batch > 0, "a batch has at least one sample");
        let learns = matches!(plan.learn, Learn::Attention | Learn::Everything);
        let gradients = Gradients {
            contributions: vec![ContributionGradient::None; plan.shape.depth],
            images: plan.image_gradient.then(|| vec![0.0; plan.batch * plan.shape.image()]),
            parameters: learns.then(|| Parameters::zeros(plan.shape).expect("a sound shape")),
            modulations: Vec::new(),
        };
        Self {
            plan,
            lanes: plan.lanes().map(|samples| Lane::new(&plan, samples)).collect(),
            pool: Pool { plan, free: Mutex::new(Vec::new()) },
            gradients,
        }
    }

    /// What this workspace was made for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Gradients of the latest backward pass.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// The same, to be changed in place (clipping, or an optimizer that takes them).
    pub fn gradients_mut(&mut self) -> &mut Gradients {
        &mut self.gradients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { image_size: 16, channels: 1, patch: 2, hidden: 64, depth: 4, heads: 4, label_rows: 1, out_channels: 2 };

    #[test]
    fn lanes_cover_the_batch_in_order() {
        for batch in [1, 3, 16, 17, 64, 100] {
            let plan = Plan::sampling(SHAPE, batch, 0);
            let lanes: Vec<Range<usize>> = plan.lanes().collect();
            assert!(lanes.len() <= MAX_LANES && lanes.iter().all(|lane| !lane.is_empty()));
            assert_eq!(lanes.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..batch).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_frozen_prefix_keeps_nothing() {
        let kept = |learn| {
            let plan = Plan { learn, ..Plan::sampling(SHAPE, 4, 0) };
            Workspace::new(plan).lanes.iter().filter_map(|lane| lane.activations.as_ref()).map(|a| a.qkv.len()).max()
        };
        assert_eq!(kept(Learn::Contributions { from: 0 }), Some(4));
        assert_eq!(kept(Learn::Contributions { from: 2 }), Some(2));
        assert_eq!(kept(Learn::Nothing), None);
    }
}
