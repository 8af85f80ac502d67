//! The backward pass of one chunk: final layer, one block, embedding.
//!
//! `activations.dx` carries the gradient of the residual stream from one call to the next. What is not stored is made again:
//! normalised rows from the row statistics, GELU from the pre-activation, probabilities from the softmax rows.

use crate::activations::Activations;
use crate::attention;
use crate::gelu;
use crate::matrix::{Matrix, MatrixMut, multiply, product};
use crate::parameters::{BlockWeightsMut, Offsets};
use crate::pass::{Chunk, Pass};
use crate::patches;
use crate::plan::Learn;
use crate::residual::{AddRows, FullGate, Gate, Leave, Norm};
use crate::vector::vectorize;
use crate::workspace::{Lane, Scratch};

/// `[d_weight += dy^T x]`, overwriting what an earlier step left where the chunk is the lane's first.
fn weight_gradient(d_weight: &mut [f32], dy: &[f32], x: &[f32], rows: usize, first: bool) {
    let (outputs, inputs) = (dy.len() / rows, x.len() / rows);
    let into = MatrixMut::new(d_weight, outputs, inputs);
    multiply(into, Matrix::new(dy, rows, outputs).t(), Matrix::new(x, rows, inputs), 1.0, !first);
}

impl Pass<'_> {
    /// From the output's gradient to that of the residual stream after the last block.
    pub(crate) fn final_layer_backward(
        &self,
        chunk: Chunk,
        activations: &mut Activations,
        lane: &mut Lane,
        scratch: &mut Scratch,
        learn: Learn,
    ) {
        let (s, d) = (self.shape, self.shape.hidden);
        let (at, values) = (Offsets::new(s), self.parameters.values());
        let everything = learn == Learn::Everything;
        let (tokens, longer) = (s.tokens(), self.tokens_before(s.depth));
        let Lane { share, d_modulations, samples, .. } = lane;
        let slot = activations.x_slot(s.depth);
        let Activations { x, x_statistics, dx, .. } = activations;
        let rows = chunk.count * tokens;
        let Scratch { patches, d_output, normed, branch, again, .. } = scratch;
        let patches = &mut patches[..rows * s.patch_out()];
        let images = d_output.chunks_exact(s.output());
        for (image, patches) in images.zip(patches.chunks_exact_mut(tokens * s.patch_out())) {
            patches::patchify(s, image, patches);
        }
        let dn = &mut normed[..rows * d];
        let weight = Matrix::new(&values[at.last.clone()], s.patch_out(), d);
        product(MatrixMut::new(dn, rows, d), Matrix::new(patches, rows, s.patch_out()), weight);
        let d_stream = &mut branch[..rows * d];
        d_stream.fill(0.0);
        let final_modulations = samples.len() * s.depth * 6 * d;
        vectorize(Norm {
            pass: self,
            chunk,
            level: s.depth,
            place: 0,
            x: chunk.of(&x[slot], tokens * d),
            statistics: chunk.of(&x_statistics[slot], tokens),
            dn,
            dx: d_stream,
            again: everything.then_some(&mut again[..]),
            d_modulations: match everything {
                true => Some(chunk.of_mut(&mut d_modulations[final_modulations..], 2 * d)),
                false => None,
            },
        });
        // prompts in front are dropped before the output: their gradient is zero
        let dx = chunk.of_mut(dx, longer * d).chunks_exact_mut(longer * d);
        for (stream, dx) in d_stream.chunks_exact(tokens * d).zip(dx) {
            let (front, dx) = dx.split_at_mut((longer - tokens) * d);
            front.fill(0.0);
            dx.copy_from_slice(stream);
        }
        if everything {
            let (d_weight, d_bias) = share.split_at_mut(s.patch_out() * d);
            let d_bias = &mut d_bias[..s.patch_out()];
            weight_gradient(d_weight, patches, &again[..rows * d], rows, chunk.offset == 0);
            if chunk.offset == 0 {
                d_bias.fill(0.0);
            }
            vectorize(AddRows { sum: d_bias, values: patches });
        }
    }

    /// Back through block `level` and its contribution.
    pub(crate) fn block_backward(
        &self,
        level: usize,
        chunk: Chunk,
        activations: &mut Activations,
        lane: &mut Lane,
        scratch: &mut Scratch,
        learn: Learn,
    ) {
        if chunk.offset == 0 && !lane.share.is_empty() {
            let share = BlockWeightsMut::split(&mut lane.share, self.shape.hidden);
            for bias in [share.qkv_bias, share.proj_bias, share.fc1_bias, share.fc2_bias] {
                bias.fill(0.0);
            }
            if learn == Learn::Attention {
                share.fc1.fill(0.0);
                share.fc2.fill(0.0);
            }
        }
        self.mlp_backward(level, chunk, activations, lane, scratch, learn);
        self.attention_backward(level, chunk, activations, lane, scratch, learn);
        self.shorten(level, chunk, &mut activations.dx);
    }

    /// Back from after the block to the middle of its residual stream.
    fn mlp_backward(
        &self,
        level: usize,
        chunk: Chunk,
        activations: &mut Activations,
        lane: &mut Lane,
        scratch: &mut Scratch,
        learn: Learn,
    ) {
        let (d, mlp) = (self.shape.hidden, self.shape.mlp());
        let weights = self.parameters.block(level);
        let tokens = self.tokens[level];
        let rows = chunk.count * tokens;
        let first = chunk.offset == 0;
        let Lane { share, d_modulations, samples, .. } = lane;
        let slot = activations.slot(level);
        let Activations { middle, middle_statistics, hidden, branches, dx, .. } = activations;
        let Scratch { normed, branch, again, wide, wide_again, .. } = scratch;
        let dx = chunk.of_mut(dx, tokens * d);
        let (branch, dn) = (&mut branch[..rows * d], &mut normed[..rows * d]);
        let wide = &mut wide[..rows * mlp];
        let mut full = (learn == Learn::Everything).then(|| {
            let d_modulations = &mut d_modulations[samples.len() * level * 6 * d..];
            (BlockWeightsMut::split(share, d), chunk.of_mut(d_modulations, 6 * d))
        });

        vectorize(Gate {
            pass: self,
            chunk,
            level,
            place: 5,
            dx,
            d_branch: branch,
            full: full.as_mut().map(|(share, d_modulations)| FullGate {
                branch: chunk.of(&branches.as_ref().expect("kept where everything learns")[1][slot], tokens * d),
                bias: weights.fc2_bias,
                d_bias: share.fc2_bias,
                d_modulations,
            }),
        });
        let fc2 = Matrix::new(weights.fc2, d, mlp);
        product(MatrixMut::new(wide, rows, mlp), Matrix::new(branch, rows, d), fc2);
        let hidden = chunk.of(&hidden[slot], tokens * mlp);
        match &mut full {
            Some((share, _)) => {
                let active = &mut wide_again[..rows * mlp];
                vectorize(gelu::BackwardFull {
                    u: hidden,
                    bias: weights.fc1_bias,
                    dh: wide,
                    h: active,
                    d_bias: share.fc1_bias,
                });
                weight_gradient(share.fc2, branch, active, rows, first);
            }
            None => vectorize(gelu::Backward { u: hidden, bias: weights.fc1_bias, dh: wide }),
        }
        product(MatrixMut::new(dn, rows, d), Matrix::new(wide, rows, mlp), Matrix::new(weights.fc1, mlp, d));
        vectorize(Norm {
            pass: self,
            chunk,
            level,
            place: 3,
            x: chunk.of(&middle[slot], tokens * d),
            statistics: chunk.of(&middle_statistics[slot], tokens),
            dn,
            dx,
            again: full.is_some().then_some(&mut again[..]),
            d_modulations: full.as_mut().map(|(_, d_modulations)| &mut **d_modulations),
        });
        if let Some((share, _)) = &mut full {
            weight_gradient(share.fc1, wide, &again[..rows * d], rows, first);
        }
    }

    /// Back from the middle of the residual stream to the block's input, and to its contribution.
    fn attention_backward(
        &self,
        level: usize,
        chunk: Chunk,
        activations: &mut Activations,
        lane: &mut Lane,
        scratch: &mut Scratch,
        learn: Learn,
    ) {
        let (s, d) = (self.shape, self.shape.hidden);
        let weights = self.parameters.block(level);
        let tokens = self.tokens[level];
        let rows = chunk.count * tokens;
        let first = chunk.offset == 0;
        let Lane { share, d_modulations, samples, d_weights, d_prompts, .. } = lane;
        let (slot, x_slot) = (activations.slot(level), activations.x_slot(level));
        let Activations { x, x_statistics, qkv, softmax, attention, branches, dx, .. } = activations;
        let Scratch { normed, branch, again, wide, head, .. } = scratch;
        let dx = chunk.of_mut(dx, tokens * d);
        let (branch, normed) = (&mut branch[..rows * d], &mut normed[..rows * d]);
        let d_qkv = &mut wide[..rows * 3 * d];
        let learns = matches!(learn, Learn::Attention | Learn::Everything);
        let mut share = learns.then(|| BlockWeightsMut::split(share, d));
        let mut d_modulations = (learn == Learn::Everything)
            .then(|| chunk.of_mut(&mut d_modulations[samples.len() * level * 6 * d..], 6 * d));

        let full = match (&mut share, &mut d_modulations) {
            (Some(share), Some(d_modulations)) => Some(FullGate {
                branch: chunk.of(&branches.as_ref().expect("kept where everything learns")[0][slot], tokens * d),
                bias: weights.proj_bias,
                d_bias: &mut *share.proj_bias,
                d_modulations,
            }),
            _ => None,
        };
        vectorize(Gate { pass: self, chunk, level, place: 2, dx, d_branch: branch, full });
        let attention = chunk.of(&attention[slot], tokens * d);
        let d_attention = &mut *normed;
        let proj = Matrix::new(weights.proj, d, d);
        product(MatrixMut::new(d_attention, rows, d), Matrix::new(branch, rows, d), proj);
        if let Some(share) = &mut share {
            weight_gradient(share.proj, branch, attention, rows, first);
            if learn == Learn::Attention {
                vectorize(AddRows { sum: share.proj_bias, values: branch });
            }
        }

        let qkv = chunk.of(&qkv[slot], tokens * 3 * d);
        let softmax = chunk.of(&softmax[slot], tokens * s.heads);
        for sample in 0..chunk.count {
            let (narrow, three) = (sample * tokens * d..(sample + 1) * tokens * d, 3 * tokens * d);
            attention::Backward {
                heads: self.heads(level),
                qkv: &qkv[sample * three..(sample + 1) * three],
                out: &attention[narrow.clone()],
                rows: &softmax[sample * tokens * s.heads..(sample + 1) * tokens * s.heads],
                d_out: &d_attention[narrow],
                d_qkv: &mut d_qkv[sample * three..(sample + 1) * three],
                scratch: head,
            }
            .run();
        }

        let dn = &mut *normed;
        product(MatrixMut::new(dn, rows, d), Matrix::new(d_qkv, rows, 3 * d), Matrix::new(weights.qkv, 3 * d, d));
        vectorize(Norm {
            pass: self,
            chunk,
            level,
            place: 0,
            x: chunk.of(&x[x_slot], tokens * d),
            statistics: chunk.of(&x_statistics[x_slot], tokens),
            dn,
            dx,
            again: learns.then_some(&mut again[..]),
            d_modulations,
        });
        if let Some(share) = &mut share {
            weight_gradient(share.qkv, d_qkv, &again[..rows * d], rows, first);
            vectorize(AddRows { sum: share.qkv_bias, values: d_qkv });
        }
        let (d_weights, d_prompts) = (&mut d_weights[level][..], &mut d_prompts[level][..]);
        vectorize(Leave { pass: self, chunk, level, place: chunk.start - samples.start, dx, d_weights, d_prompts });
    }

    /// Where prompts were put in front before this block, `dx` goes back to the shorter sequences.
    fn shorten(&self, level: usize, chunk: Chunk, dx: &mut [f32]) {
        let d = self.shape.hidden;
        let (before, inside) = (self.tokens_before(level), self.tokens[level]);
        if before != inside {
            for sample in chunk.offset..chunk.offset + chunk.count {
                let start = (sample * inside + inside - before) * d;
                dx.copy_within(start..start + before * d, sample * before * d);
            }
        }
    }

    /// From the gradient before the first block to the lane's share of the patch embedding's.
    pub(crate) fn embedding_backward(&self, lane: &mut Lane, images: &[f32]) {
        let (s, d) = (self.shape, self.shape.hidden);
        let rows = lane.samples.len() * s.tokens();
        let patches = lane.patches.chunks_exact_mut(s.tokens() * s.patch_in());
        images.chunks_exact(s.image()).zip(patches).for_each(|(image, patches)| patches::gather(s, image, patches));
        let dx = &lane.activations.as_ref().expect("kept where everything learns").dx[..rows * d];
        let (d_weight, d_bias) = lane.share.split_at_mut(d * s.patch_in());
        let d_bias = &mut d_bias[..d];
        weight_gradient(d_weight, dx, &lane.patches, rows, true);
        d_bias.fill(0.0);
        vectorize(AddRows { sum: d_bias, values: dx });
    }

    /// From the gradient before the first block to that of a chunk's `images`.
    pub(crate) fn images_backward(&self, chunk: Chunk, dx: &[f32], scratch: &mut Scratch, images: &mut [f32]) {
        let (s, d, width) = (self.shape, self.shape.hidden, self.shape.patch_in());
        let weight = Matrix::new(&self.parameters.values()[Offsets::new(s).embed], d, width);
        let rows = chunk.count * s.tokens();
        let patches = &mut scratch.patches[..rows * width];
        let dx = Matrix::new(chunk.of(dx, s.tokens() * d), rows, d);
        product(MatrixMut::new(patches, rows, width), dx, weight);
        for (patches, image) in patches.chunks_exact(s.tokens() * width).zip(images.chunks_exact_mut(s.image())) {
            patches::scatter(s, patches, image);
        }
    }
}
