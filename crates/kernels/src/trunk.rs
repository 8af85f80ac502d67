//! The trunk's two passes over a batch, in parallel over its lanes.

use rayon::prelude::*;

use crate::condition::{Condition, OutsideGradients};
use crate::contribution::{Contribution, ContributionGradient};
use crate::parameters::{Offsets, Parameters};
use crate::pass::{Chunk, Pass};
use crate::plan::{Learn, Plan};
use crate::transposed::Transposed;
use crate::workspace::{Gradients, Lane, Workspace};

/// Elements of a gradient that one task adds up over the lanes.
const REDUCTION: usize = 8192;

/// What a pass reads; the same for the forward pass and the backward pass after it.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The trunk's weights.
    pub parameters: &'a Parameters,
    /// Embeddings and modulations of `R` rows.
    pub condition: &'a Condition,
    /// Each sample's row of the condition, `[B]`.
    pub rows: &'a [u32],
    /// What enters before each block, `[L]`.
    pub contributions: &'a [Contribution<'a>],
}

impl<'a> Inputs<'a> {
    /// Checks every size but the weights' and works out the length of the sequence in each block.
    fn pass(&'a self, plan: &'a Plan, transposed: &'a Transposed) -> Pass<'a> {
        let (s, d) = (&plan.shape, plan.shape.hidden);
        assert_eq!(self.rows.len(), plan.batch, "one row index per sample");
        assert!(
            self.rows.iter().all(|row| (*row as usize) < self.condition.rows()),
            "a row lies outside the condition"
        );
        assert_eq!(self.contributions.len(), s.depth, "one contribution per block");
        let mut tokens = Vec::with_capacity(s.depth + 1);
        let mut prepended = 0;
        for contribution in self.contributions {
            contribution.check(s, self.condition.rows());
            let n = contribution.prepended(d);
            assert!(n == 0 || prepended == 0 || n == prepended, "all blocks prepend the same number of prompts");
            assert!(n <= plan.prepended, "{n} prompts in front, but the plan has room for {}", plan.prepended);
            prepended = prepended.max(n);
            let weighted = matches!(contribution, Contribution::Weighted { .. });
            assert!(!weighted || prepended == 0, "a block adds to image tokens or to prompts in front, not both");
            tokens.push(s.tokens() + prepended);
        }
        tokens.push(s.tokens());
        Pass {
            shape: s,
            parameters: self.parameters,
            transposed,
            condition: self.condition,
            rows: self.rows,
            contributions: self.contributions,
            tokens,
        }
    }
}

/// Cuts `buffer`, with `each` values per sample, into the lanes' parts.
fn split<'b>(lanes: &[Lane], mut buffer: &'b mut [f32], each: usize) -> Vec<&'b mut [f32]> {
    let part = |lane: &Lane| {
        let (head, tail) = std::mem::take(&mut buffer).split_at_mut(lane.samples.len() * each);
        buffer = tail;
        head
    };
    lanes.iter().map(part).collect()
}

/// `total = sum over lanes of part(lane)`, in the lanes' order.
fn reduce(total: &mut [f32], lanes: &[Lane], part: impl Fn(&Lane) -> &[f32] + Sync) {
    total.par_chunks_mut(REDUCTION).enumerate().for_each(|(chunk, total)| {
        let start = chunk * REDUCTION;
        let (first, others) = lanes.split_first().expect("a batch has at least one lane");
        total.copy_from_slice(&part(first)[start..start + total.len()]);
        for lane in others {
            for (total, value) in total.iter_mut().zip(&part(lane)[start..]) {
                *total += value;
            }
        }
    });
}

impl Workspace {
    /// `images [B, C, size, size]` to `output [B, O, size, size]`.
    ///
    /// # Panics
    /// If a length does not fit the plan.
    pub fn forward(&mut self, inputs: &Inputs, images: &[f32], output: &mut [f32]) {
        let Self { plan, lanes, pool, transposed, .. } = self;
        assert_eq!(inputs.parameters.shape(), &plan.shape, "the weights must have the plan's shape");
        transposed.update(inputs.parameters);
        let (s, pass) = (&plan.shape, inputs.pass(plan, transposed));
        assert_eq!(images.len(), plan.batch * s.image(), "images [B, C, size, size]");
        assert_eq!(output.len(), plan.batch * s.output(), "output [B, O, size, size]");
        let outputs = split(lanes, output, s.output());
        lanes.par_iter_mut().zip(outputs).with_max_len(1).for_each(|(lane, output)| {
            let images = &images[lane.samples.start * s.image()..lane.samples.end * s.image()];
            pool.with(|scratch| {
                let each = pool.chunk();
                for offset in (0..lane.samples.len()).step_by(each) {
                    let count = each.min(lane.samples.len() - offset);
                    let start = lane.samples.start + offset;
                    let images = &images[offset * s.image()..(offset + count) * s.image()];
                    let output = &mut output[offset * s.output()..(offset + count) * s.output()];
                    match &mut lane.activations {
                        Some(kept) => pass.forward(Chunk { start, offset, count }, images, kept, scratch, output),
                        None => {
                            let mut own = scratch.activations.take().expect("sampling has scratch activations");
                            pass.forward(Chunk { start, offset: 0, count }, images, &mut own, scratch, output);
                            scratch.activations = Some(own);
                        }
                    }
                }
            });
            let width = s.tokens() * s.patch_in();
            for (image, patches) in images.chunks_exact(s.image()).zip(lane.patches.chunks_exact_mut(width)) {
                crate::patches::gather(s, image, patches);
            }
        });
    }

    /// From `d_output [B, O, size, size]` to [`Workspace::gradients`], after [`Workspace::forward`] with the same
    /// `inputs`. Where everything learns, [`Workspace::condition_backward`] must follow.
    ///
    /// # Panics
    /// If the plan learns nothing, or a length does not fit it.
    pub fn backward(&mut self, inputs: &Inputs, d_output: &[f32]) {
        let Self { plan, lanes, pool, gradients, transposed } = self;
        assert_eq!(inputs.parameters.shape(), &plan.shape, "the weights must have the plan's shape");
        let learn = plan.learn;
        assert_ne!(learn, Learn::Nothing, "a sampling plan has no backward pass");
        let (s, pass) = (&plan.shape, inputs.pass(plan, transposed));
        assert_eq!(d_output.len(), plan.batch * s.output(), "d_output [B, O, size, size]");
        let at = Offsets::new(s);
        let Gradients { contributions, images, parameters, modulations } = gradients;

        let final_layer = |lane: &mut Lane| {
            let d_output = &d_output[lane.samples.start * s.output()..lane.samples.end * s.output()];
            pass.final_layer_backward(lane, pool, learn, d_output);
        };
        let block = |level: usize, lane: &mut Lane| pass.block_backward(level, lane, pool, learn);
        let levels = || (plan.first()..s.depth).rev();
        match parameters.as_mut() {
            // nothing is added up on the way: each lane goes back alone, the latest first, whose activations are still near
            None => lanes.par_iter_mut().rev().with_max_len(1).for_each(|lane| {
                final_layer(lane);
                levels().for_each(|level| block(level, lane));
            }),
            Some(parameters) => {
                lanes.par_iter_mut().with_max_len(1).for_each(final_layer);
                if learn == Learn::Everything {
                    reduce(&mut parameters.values_mut()[at.last.start..at.last_bias.end], lanes, |lane| &lane.share);
                }
                for level in levels() {
                    lanes.par_iter_mut().with_max_len(1).for_each(|lane| block(level, lane));
                    reduce(&mut parameters.values_mut()[at.block(s, level)], lanes, |lane| &lane.share);
                }
            }
        }
        for level in levels() {
            contributions[level] = contribution_gradient(level, inputs, lanes, plan);
        }
        if plan.first() == 0 && (learn == Learn::Everything || images.is_some()) {
            match images {
                Some(images) => {
                    let images = split(lanes, images, s.image());
                    lanes.par_iter_mut().zip(images).with_max_len(1).for_each(|(lane, images)| {
                        pass.embedding_backward(lane, pool, learn, Some(images));
                    });
                }
                None => lanes.par_iter_mut().with_max_len(1).for_each(|lane| {
                    pass.embedding_backward(lane, pool, learn, None);
                }),
            }
        }
        if let (Learn::Everything, Some(parameters)) = (learn, parameters.as_mut()) {
            reduce(&mut parameters.values_mut()[at.embed.start..at.embed_bias.end], lanes, |lane| &lane.share);
            gather_modulations(modulations, lanes, inputs, plan);
        }
    }

    /// Adds the weights of the embedders and of adaLN to the gradients, after [`Workspace::backward`]. `outside` is
    /// what reaches the embeddings by other ways, such as a gate that reads them.
    ///
    /// # Panics
    /// If not everything learns.
    pub fn condition_backward(&mut self, inputs: &Inputs, outside: OutsideGradients) {
        let Gradients { parameters, modulations, .. } = &mut self.gradients;
        let parameters = parameters.as_mut().expect("weights have gradients");
        assert_eq!(self.plan.learn, Learn::Everything, "the condition learns only where everything does");
        inputs.condition.backward(inputs.parameters, modulations, outside, parameters);
    }
}

/// The lanes' shares of one block's contribution, brought together.
fn contribution_gradient(level: usize, inputs: &Inputs, lanes: &[Lane], plan: &Plan) -> ContributionGradient {
    let together = |part: fn(&Lane) -> &[Vec<f32>]| lanes.iter().flat_map(|lane| &part(lane)[level]).copied().collect();
    match &inputs.contributions[level] {
        Contribution::None => ContributionGradient::None,
        Contribution::Weighted { .. } | Contribution::Prepend { .. } => {
            let (_, prompts) = inputs.contributions[level].gradient_lengths(0, plan.shape.hidden);
            let mut d_prompts = vec![0.0; prompts];
            reduce(&mut d_prompts, lanes, |lane| &lane.d_prompts[level]);
            ContributionGradient::Prompts { weights: together(|lane| &lane.d_weights), prompts: d_prompts }
        }
        Contribution::Broadcast { .. } | Contribution::PrependBroadcast { .. } => {
            ContributionGradient::Vectors(together(|lane| &lane.d_prompts))
        }
    }
}

/// The samples' modulation gradients, added up by row of the condition in the samples' order.
fn gather_modulations(total: &mut Vec<f32>, lanes: &[Lane], inputs: &Inputs, plan: &Plan) {
    let (s, d, rows) = (&plan.shape, plan.shape.hidden, inputs.condition.rows());
    total.clear();
    total.resize(rows * s.modulations(), 0.0);
    for level in 0..=s.depth {
        let width = if level == s.depth { 2 * d } else { 6 * d };
        let piece = &mut total[level * rows * 6 * d..][..rows * width];
        for lane in lanes {
            let own = &lane.d_modulations[level * lane.samples.len() * 6 * d..];
            for (sample, own) in lane.samples.clone().zip(own.chunks_exact(width)) {
                let row = inputs.rows[sample] as usize;
                for (total, own) in piece[row * width..(row + 1) * width].iter_mut().zip(own) {
                    *total += own;
                }
            }
        }
    }
}
