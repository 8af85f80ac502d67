//! Memory of a pass through the trunk: made once per run, used every step.
//!
//! The batch is cut into at most 16 lanes of neighbouring samples, whatever the number of threads; lanes
//! are the tasks that run in parallel. A lane owns its share of the gradients; shares are added up in the lanes' order,
//! so results do not depend on the number of threads. Inside a lane samples are worked on in chunks of about 256 tokens (128 where weights are frozen),
//! whose scratch fits the second-level cache and belongs to whichever thread is at work. Activations are kept by the lane
//! where weights learn, else by the scratch: one chunk's at a time.

use std::ops::Range;
use std::sync::Mutex;

use crate::activations::Activations;
use crate::attention::Heads;
use crate::contribution::{Contribution, ContributionGradient};
use crate::parameters::{Offsets, Parameters};
use crate::pass::Chunk;
use crate::plan::{Learn, Plan};
use crate::transposed::Transposed;

/// One lane: neighbouring samples with all that is kept of them.
pub(crate) struct Lane {
    pub(crate) samples: Range<usize>,
    /// Where weights learn.
    pub(crate) activations: Option<Activations>,
    /// Input patches, where the patch embedding learns.
    pub(crate) patches: Vec<f32>,
    /// This lane's share of one block's (or the embedding's, or the final layer's) weight gradients.
    pub(crate) share: Vec<f32>,
    /// `[samples, N]` of each block; empty where nothing enters.
    pub(crate) d_weights: Vec<Vec<f32>>,
    /// This lane's share of each block's `[N, D]`, or its samples' `[samples, D]` for broadcast vectors.
    pub(crate) d_prompts: Vec<Vec<f32>>,
    /// Block after block `[samples, 6 D]`, then `[samples, 2 D]`.
    pub(crate) d_modulations: Vec<f32>,
}

impl Lane {
    fn new(plan: &Plan, samples: Range<usize>) -> Self {
        let (s, count) = (&plan.shape, samples.len());
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
            activations: plan.weights_learn().then(|| Activations::new(plan, count)),
            patches: buffer(everything, count * s.tokens() * s.patch_in()),
            share: buffer(true, share),
            d_weights: vec![Vec::new(); s.depth],
            d_prompts: vec![Vec::new(); s.depth],
            d_modulations: buffer(everything, count * s.modulations()),
            samples,
        }
    }
}

impl Lane {
    /// Sizes and clears what a backward pass adds to.
    pub(crate) fn clear(&mut self, contributions: &[Contribution], d: usize) {
        self.d_modulations.fill(0.0);
        for (level, contribution) in contributions.iter().enumerate() {
            let (weights, prompts) = contribution.gradient_lengths(self.samples.len(), d);
            self.d_weights[level].resize(weights, 0.0);
            self.d_prompts[level].clear();
            self.d_prompts[level].resize(prompts, 0.0);
        }
    }

    /// Runs `work` on chunk after chunk, with the activations that are the chunk's.
    pub(crate) fn each_chunk(
        &mut self,
        pool: &Pool,
        mut work: impl FnMut(Chunk, &mut Activations, &mut Self, &mut Scratch),
    ) {
        pool.with(|scratch| {
            let (own, each) = (self.activations.take(), pool.chunk());
            let keeps = own.is_some();
            let mut activations = own.or_else(|| scratch.activations.take()).expect("a lane or its scratch has them");
            for place in (0..self.samples.len()).step_by(each) {
                let (offset, count) = (if keeps { place } else { 0 }, each.min(self.samples.len() - place));
                let chunk = Chunk { start: self.samples.start + place, offset, count };
                work(chunk, &mut activations, self, scratch);
            }
            *(if keeps { &mut self.activations } else { &mut scratch.activations }) = Some(activations);
        });
    }

    fn bytes(&self) -> usize {
        let gradients = [&self.share, &self.patches, &self.d_modulations];
        let contributions = self.d_weights.iter().chain(&self.d_prompts);
        let floats = gradients.into_iter().chain(contributions).map(|buffer| size_of_val(&buffer[..]));
        floats.sum::<usize>() + self.activations.as_ref().map_or(0, Activations::bytes)
    }
}

/// Buffers of one chunk at work.
pub(crate) struct Scratch {
    /// A chunk's, where the lanes keep none; in sampling, of one block.
    pub(crate) activations: Option<Activations>,
    pub(crate) patches: Vec<f32>,
    /// Output of the trunk and its gradient, in training.
    pub(crate) output: Vec<f32>,
    pub(crate) d_output: Vec<f32>,
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
    /// What attention needs for one head.
    pub(crate) head: Vec<f32>,
}

impl Scratch {
    pub(crate) fn new(plan: &Plan) -> Self {
        let s = &plan.shape;
        let samples = plan.chunk().min(plan.batch.max(1));
        let rows = samples * plan.longest();
        let (weights, back) = (plan.weights_learn(), plan.learn != Learn::Nothing);
        let buffer = |wanted: bool, length: usize| vec![0.0; if wanted { length } else { 0 }];
        Self {
            activations: (!weights).then(|| Activations::new(plan, samples)),
            output: buffer(back, samples * s.output()),
            d_output: buffer(back, samples * s.output()),
            patches: vec![0.0; samples * s.tokens() * s.patch_in().max(s.patch_out())],
            normed: vec![0.0; rows * s.hidden],
            branch: vec![0.0; rows * s.hidden],
            again: buffer(weights, rows * s.hidden),
            wide: vec![0.0; rows * s.mlp()],
            wide_again: buffer(plan.learn == Learn::Everything, rows * s.mlp()),
            head: vec![0.0; Heads { tokens: plan.longest(), heads: s.heads, width: s.head_width() }.scratch()],
        }
    }
}

impl Scratch {
    pub(crate) fn bytes(&self) -> usize {
        let narrow = [&self.patches, &self.output, &self.d_output, &self.normed, &self.branch, &self.again];
        let wide = [&self.wide, &self.wide_again, &self.head];
        let floats = narrow.into_iter().chain(wide).map(|buffer| size_of_val(&buffer[..]));
        floats.sum::<usize>() + self.activations.as_ref().map_or(0, Activations::bytes)
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
    pub(crate) transposed: Transposed,
    pub(crate) gradients: Gradients,
}

impl Workspace {
    /// Allocates what `plan` needs.
    ///
    /// # Panics
    /// If the shape is unsound (see [`crate::Shape::check`]) or the batch is empty.
    pub fn new(plan: Plan) -> Self {
        plan.shape.check().expect("a sound shape");
        assert!(plan.batch > 0, "a batch has at least one sample");
        let gradients = Gradients {
            contributions: vec![ContributionGradient::None; plan.shape.depth],
            images: plan.image_gradient.then(|| vec![0.0; plan.batch * plan.shape.image()]),
            parameters: plan.weights_learn().then(|| Parameters::zeros(plan.shape).expect("a sound shape")),
            modulations: Vec::new(),
        };
        Self {
            plan,
            lanes: plan.lanes().map(|samples| Lane::new(&plan, samples)).collect(),
            pool: Pool { plan, free: Mutex::new(Vec::new()) },
            transposed: Transposed::new(&plan.shape),
            gradients,
        }
    }

    /// What this workspace was made for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Memory held between passes: activations, gradients' shares, transposed weights, and the scratch of every thread
    /// that took part.
    pub fn bytes(&self) -> usize {
        let free = self.pool.free.lock().expect("no panic holds the pool");
        let lanes = self.lanes.iter().map(Lane::bytes).sum::<usize>();
        lanes + self.transposed.bytes() + free.iter().map(Scratch::bytes).sum::<usize>()
    }

    /// Gradients of the latest backward pass.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    const SHAPE: Shape =
        Shape { image_size: 16, channels: 1, patch: 2, hidden: 64, depth: 4, heads: 4, label_rows: 1, out_channels: 2 };

    #[test]
    fn a_frozen_prefix_keeps_nothing() {
        let kept = |learn| {
            let plan = Plan { learn, ..Plan::sampling(SHAPE, 4, 0) };
            Scratch::new(&plan).activations.map(|activations| activations.qkv.len())
        };
        assert_eq!(kept(Learn::Contributions { from: 0 }), Some(4));
        assert_eq!(kept(Learn::Contributions { from: 2 }), Some(2));
        assert_eq!(kept(Learn::Nothing), Some(1));
        assert_eq!(kept(Learn::Everything), None);
    }
}
