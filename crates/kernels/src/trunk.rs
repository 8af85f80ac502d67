//! The trunk's two passes over a batch, in parallel over its lanes.

use rayon::prelude::*;

use crate::condition::{Condition, OutsideGradients};
use crate::contribution::{Contribution, ContributionGradient};
use crate::parameters::{Offsets, Parameters};
use crate::pass::Pass;
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
        assert_eq!(self.condition.shape(), s, "the condition of another network");
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
    /// Sampling: `images [B, C, size, size]` to `output [B, O, size, size]`.
    ///
    /// # Panics
    /// If a length does not fit the plan, or something learns.
    pub fn forward(&mut self, inputs: &Inputs, images: &[f32], output: &mut [f32]) {
        let Self { plan, lanes, pool, transposed, .. } = self;
        assert_eq!(plan.learn, Learn::Nothing, "where something learns, a step goes forward");
        assert_eq!(inputs.parameters.shape(), &plan.shape, "the weights must have the plan's shape");
        transposed.update(inputs.parameters);
        let (s, pass) = (&plan.shape, inputs.pass(plan, transposed));
        assert_eq!(images.len(), plan.batch * s.image(), "images [B, C, size, size]");
        assert_eq!(output.len(), plan.batch * s.output(), "output [B, O, size, size]");
        let outputs = split(lanes, output, s.output());
        lanes.par_iter_mut().zip(outputs).with_max_len(1).for_each(|(lane, output)| {
            let mut outputs = output.chunks_mut(pool.chunk() * s.output());
            lane.each_chunk(pool, |chunk, activations, _, scratch| {
                let images = &images[chunk.start * s.image()..(chunk.start + chunk.count) * s.image()];
                pass.forward(chunk, images, activations, scratch, outputs.next().expect("an output per chunk"));
            });
        });
    }

    /// A step of training: `images [B, C, size, size]` to [`Workspace::gradients`].
    ///
    /// `loss` is given a sample's index and output `[O, size, size]`, and overwrites the gradient of that. What it
    /// returns comes back in the samples' order. Where everything learns, [`Workspace::condition_backward`] must follow.
    ///
    /// # Panics
    /// If the plan learns nothing, or a length does not fit it.
    pub fn step<T: Send>(
        &mut self,
        inputs: &Inputs,
        images: &[f32],
        loss: impl Fn(usize, &[f32], &mut [f32]) -> T + Sync,
    ) -> Vec<T> {
        let Self { plan, lanes, pool, gradients, transposed } = self;
        assert_eq!(inputs.parameters.shape(), &plan.shape, "the weights must have the plan's shape");
        let learn = plan.learn;
        assert_ne!(learn, Learn::Nothing, "a sampling plan has no backward pass");
        transposed.update(inputs.parameters);
        let (s, pass) = (&plan.shape, inputs.pass(plan, transposed));
        assert_eq!(images.len(), plan.batch * s.image(), "images [B, C, size, size]");
        let Gradients { contributions, images: d_images, parameters, modulations } = gradients;
        let (at, levels) = (Offsets::new(s), || (plan.first()..s.depth).rev());
        let mut d_images: Vec<Option<&mut [f32]>> = match d_images {
            Some(d_images) => split(lanes, d_images, s.image()).into_iter().map(Some).collect(),
            None => lanes.iter().map(|_| None).collect(),
        };

        // Where weights learn, what the lanes have of a gradient is added up before they go on.
        let forward = |lane: &mut Lane, d_images: Option<&mut [f32]>| -> Vec<T> {
            let mut terms = Vec::with_capacity(lane.samples.len());
            let mut d_images = d_images.map(|images| images.chunks_mut(pool.chunk() * s.image()));
            lane.clear(inputs.contributions, s.hidden);
            lane.each_chunk(pool, |chunk, activations, lane, scratch| {
                let images = &images[chunk.start * s.image()..(chunk.start + chunk.count) * s.image()];
                let mut output = std::mem::take(&mut scratch.output);
                pass.forward(chunk, images, activations, scratch, &mut output);
                let samples = output.chunks_exact(s.output()).zip(scratch.d_output.chunks_exact_mut(s.output()));
                let samples = (chunk.start..chunk.start + chunk.count).zip(samples);
                terms.extend(samples.map(|(sample, (output, d_output))| loss(sample, output, d_output)));
                scratch.output = output;
                pass.final_layer_backward(chunk, activations, lane, scratch, learn);
                if !plan.weights_learn() {
                    levels().for_each(|level| pass.block_backward(level, chunk, activations, lane, scratch, learn));
                    if let Some(images) = d_images.as_mut().and_then(Iterator::next) {
                        pass.images_backward(chunk, &activations.dx, scratch, images);
                    }
                }
            });
            terms
        };
        let tasks = lanes.par_iter_mut().zip(&mut d_images).with_max_len(1);
        let terms: Vec<Vec<T>> = tasks.map(|(lane, images)| forward(lane, images.as_deref_mut())).collect();

        if let Some(parameters) = parameters {
            let everything = learn == Learn::Everything;
            if everything {
                reduce(&mut parameters.values_mut()[at.last.start..at.last_bias.end], lanes, |lane| &lane.share);
            }
            for level in levels() {
                lanes.par_iter_mut().with_max_len(1).for_each(|lane| {
                    lane.each_chunk(pool, |chunk, activations, lane, scratch| {
                        pass.block_backward(level, chunk, activations, lane, scratch, learn);
                    });
                });
                reduce(&mut parameters.values_mut()[at.block(s, level)], lanes, |lane| &lane.share);
            }
            lanes.par_iter_mut().zip(d_images).with_max_len(1).for_each(|(lane, d_images)| {
                if everything {
                    pass.embedding_backward(
                        lane,
                        &images[lane.samples.start * s.image()..lane.samples.end * s.image()],
                    );
                }
                if let Some(d_images) = d_images {
                    let mut d_images = d_images.chunks_mut(pool.chunk() * s.image());
                    lane.each_chunk(pool, |chunk, activations, _, scratch| {
                        let d_images = d_images.next().expect("images of every chunk");
                        pass.images_backward(chunk, &activations.dx, scratch, d_images);
                    });
                }
            });
            if everything {
                reduce(&mut parameters.values_mut()[at.embed.start..at.embed_bias.end], lanes, |lane| &lane.share);
                gather_modulations(modulations, lanes, inputs, plan);
            }
        }
        for level in levels() {
            contributions[level] = contribution_gradient(level, inputs, lanes, plan);
        }
        terms.into_iter().flatten().collect()
    }

    /// Adds the weights of the embedders and of adaLN to the gradients, after [`Workspace::step`]. `outside` is
    /// what reaches the embeddings by other ways, such as a gate that reads them.
    ///
    /// # Panics
    /// If not everything learns.
    pub fn condition_backward(&mut self, inputs: &Inputs, outside: OutsideGradients) {
        let Gradients { parameters, modulations, .. } = &mut self.gradients;
        let parameters = parameters.as_mut().expect("weights have gradients");
        assert_eq!(self.plan.learn, Learn::Everything, "the condition learns only where everything does");
        assert_eq!(modulations.len(), inputs.condition.rows() * self.plan.shape.modulations(), "a step comes before");
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
