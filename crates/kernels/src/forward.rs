//! The forward pass of one chunk of samples: embedding, blocks, final layer.

use crate::attention::Heads;
use crate::condition::Condition;
use crate::contribution::{Contribution, Entry};
use crate::gelu;
use crate::layernorm::{self, RowStatistics};
use crate::matrix::{Matrix, MatrixMut, add_product, product};
use crate::parameters::{Offsets, Parameters};
use crate::patches;
use crate::shape::Shape;
use crate::vector::{Kernel, add_scaled, vectorize};
use crate::workspace::{Activations, Scratch};

/// What all chunks of a pass read.
pub(crate) struct Pass<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) parameters: &'a Parameters,
    pub(crate) condition: &'a Condition,
    /// Each sample's row of the condition.
    pub(crate) rows: &'a [u32],
    pub(crate) contributions: &'a [Contribution<'a>],
    /// Tokens of a sequence inside each block, and after the last.
    pub(crate) tokens: Vec<usize>,
}

/// Neighbouring samples that are worked on together.
#[derive(Clone, Copy)]
pub(crate) struct Chunk {
    /// First sample's index in the batch.
    pub(crate) start: usize,
    /// Its index in the activations' buffers.
    pub(crate) offset: usize,
    /// Samples.
    pub(crate) count: usize,
}

impl Chunk {
    /// The chunk's part of a buffer with `each` values per sample.
    pub(crate) fn of<'b, T>(&self, buffer: &'b [T], each: usize) -> &'b [T] {
        &buffer[self.offset * each..(self.offset + self.count) * each]
    }

    pub(crate) fn of_mut<'b, T>(&self, buffer: &'b mut [T], each: usize) -> &'b mut [T] {
        &mut buffer[self.offset * each..(self.offset + self.count) * each]
    }
}

/// Where a token comes from when it enters a block.
enum Source<'a> {
    /// From the patch embedding's product, without bias and position.
    Embedding { product: &'a [f32], bias: &'a [f32], position: &'a [f32] },
    /// From the block before: middle of the residual stream, MLP output without bias and gate.
    Block { middle: &'a [f32], branch: &'a [f32], bias: &'a [f32] },
}

/// The pass that closes one block and opens the next: gated residual, contribution, LayerNorm and modulation.
struct Enter<'a> {
    pass: &'a Pass<'a>,
    chunk: Chunk,
    level: usize,
    source: Source<'a>,
    x: &'a mut [f32],
    statistics: &'a mut [RowStatistics],
    normed: &'a mut [f32],
}

impl Kernel for Enter<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let e = self;
        let d = e.pass.shape.hidden;
        let (from, to) = (e.pass.tokens_before(e.level), e.pass.tokens[e.level]);
        let contribution = e.pass.contributions.get(e.level).unwrap_or(&Contribution::None);
        for s in 0..e.chunk.count {
            let row = e.pass.rows[e.chunk.start + s] as usize;
            let (shift, scale) = e.pass.condition.modulation(e.level, row)[..2 * d].split_at(d);
            for t in 0..to {
                let at = (s * to + t) * d..(s * to + t + 1) * d;
                let x = &mut e.x[at.clone()];
                let entry = contribution.entry(row, t, d);
                if let Entry::Replace(weight, prompt) = entry {
                    for (x, prompt) in x.iter_mut().zip(prompt) {
                        *x = weight * prompt;
                    }
                } else {
                    let token = t + from - to;
                    let origin = (s * from + token) * d;
                    match e.source {
                        Source::Embedding { product, bias, position } => {
                            let (product, position) = (&product[origin..origin + d], &position[token * d..][..d]);
                            let bias = &bias[..d];
                            for i in 0..d {
                                x[i] = product[i] + bias[i] + position[i];
                            }
                        }
                        Source::Block { middle, branch, bias } => {
                            let gate = &e.pass.condition.modulation(e.level - 1, row)[5 * d..];
                            gated(&middle[origin..origin + d], gate, &branch[origin..origin + d], bias, x);
                        }
                    }
                    if let Entry::Add(weight, prompt) = entry {
                        add_scaled(x, weight, prompt);
                    }
                }
                e.statistics[s * to + t] = layernorm::forward(x, shift, scale, &mut e.normed[at]);
            }
        }
    }
}

/// `out = x + gate (branch + bias)`, one row.
#[inline(always)]
fn gated(x: &[f32], gate: &[f32], branch: &[f32], bias: &[f32], out: &mut [f32]) {
    let d = out.len();
    let (x, gate, branch, bias) = (&x[..d], &gate[..d], &branch[..d], &bias[..d]);
    for i in 0..d {
        out[i] = gate[i].mul_add(branch[i] + bias[i], x[i]);
    }
}

/// The pass between a block's two branches: gated residual, LayerNorm and modulation.
struct Middle<'a> {
    pass: &'a Pass<'a>,
    chunk: Chunk,
    level: usize,
    x: &'a [f32],
    branch: &'a [f32],
    bias: &'a [f32],
    middle: &'a mut [f32],
    statistics: &'a mut [RowStatistics],
    normed: &'a mut [f32],
}

impl Kernel for Middle<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let m = self;
        let d = m.pass.shape.hidden;
        let tokens = m.pass.tokens[m.level];
        for s in 0..m.chunk.count {
            let row = m.pass.rows[m.chunk.start + s] as usize;
            let modulation = m.pass.condition.modulation(m.level, row);
            let (gate, shift, scale) =
                (&modulation[2 * d..3 * d], &modulation[3 * d..4 * d], &modulation[4 * d..5 * d]);
            for t in s * tokens..(s + 1) * tokens {
                let at = t * d..(t + 1) * d;
                let middle = &mut m.middle[at.clone()];
                gated(&m.x[at.clone()], gate, &m.branch[at.clone()], m.bias, middle);
                m.statistics[t] = layernorm::forward(middle, shift, scale, &mut m.normed[at]);
            }
        }
    }
}

/// Every row becomes `bias`.
fn fill_rows(out: &mut [f32], bias: &[f32]) {
    for row in out.chunks_exact_mut(bias.len()) {
        row.copy_from_slice(bias);
    }
}

impl Pass<'_> {
    /// Tokens of a sequence before it enters block `level`.
    pub(crate) fn tokens_before(&self, level: usize) -> usize {
        if level == 0 { self.shape.tokens() } else { self.tokens[level - 1] }
    }

    pub(crate) fn heads(&self, level: usize) -> Heads {
        Heads { tokens: self.tokens[level], heads: self.shape.heads, width: self.shape.head_width() }
    }

    /// Output of the trunk for one chunk; `images` and `output` hold the chunk's samples only.
    pub(crate) fn forward(
        &self,
        chunk: Chunk,
        images: &[f32],
        activations: &mut Activations,
        scratch: &mut Scratch,
        output: &mut [f32],
    ) {
        let (s, d) = (self.shape, self.shape.hidden);
        let (at, values) = (Offsets::new(s), self.parameters.values());
        let rows = chunk.count * s.tokens();
        let patches = &mut scratch.patches[..rows * s.patch_in()];
        for (image, patches) in images.chunks_exact(s.image()).zip(patches.chunks_exact_mut(s.tokens() * s.patch_in()))
        {
            patches::gather(s, image, patches);
        }
        let weight = Matrix::new(&values[at.embed.clone()], d, s.patch_in());
        let into = MatrixMut::new(&mut scratch.branch[..rows * d], rows, d);
        product(into, Matrix::new(patches, rows, s.patch_in()), weight.t());
        let slot = activations.x_slot(0);
        vectorize(Enter {
            pass: self,
            chunk,
            level: 0,
            source: Source::Embedding {
                product: &scratch.branch,
                bias: &values[at.embed_bias.clone()],
                position: &values[at.position.clone()],
            },
            x: chunk.of_mut(&mut activations.x[slot], self.tokens[0] * d),
            statistics: chunk.of_mut(&mut activations.x_statistics[slot], self.tokens[0]),
            normed: &mut scratch.normed,
        });
        for level in 0..s.depth {
            self.block(level, chunk, activations, scratch);
        }

        let weight = Matrix::new(&values[at.last.clone()], s.patch_out(), d);
        let patches = &mut scratch.patches[..rows * s.patch_out()];
        fill_rows(patches, &values[at.last_bias.clone()]);
        let normed = Matrix::new(&scratch.normed[..rows * d], rows, d);
        add_product(MatrixMut::new(patches, rows, s.patch_out()), normed, weight.t());
        for (patches, image) in
            patches.chunks_exact(s.tokens() * s.patch_out()).zip(output.chunks_exact_mut(s.output()))
        {
            patches::unpatchify(s, patches, image);
        }
    }

    /// One block, from normalised rows in `scratch.normed` to the next block's (or the final layer's).
    fn block(&self, level: usize, chunk: Chunk, activations: &mut Activations, scratch: &mut Scratch) {
        let (s, d) = (self.shape, self.shape.hidden);
        let weights = self.parameters.block(level);
        let tokens = self.tokens[level];
        let rows = chunk.count * tokens;
        let (slot, keeps) = (activations.slot(level), activations.keeps(level));
        let (here, next) = (activations.x_slot(level), activations.x_slot(level + 1));
        let Activations { x, x_statistics, middle: middles, middle_statistics, .. } = activations;
        let Activations { qkv, softmax, attention, hidden, branches, .. } = activations;
        let (mut kept_proj, mut kept_fc2) = match branches {
            Some([proj, fc2]) => (Some(&mut proj[slot]), Some(&mut fc2[slot])),
            None => (None, None),
        };

        let qkv = chunk.of_mut(&mut qkv[slot], tokens * 3 * d);
        fill_rows(qkv, weights.qkv_bias);
        let normed = Matrix::new(&scratch.normed[..rows * d], rows, d);
        add_product(MatrixMut::new(qkv, rows, 3 * d), normed, Matrix::new(weights.qkv, 3 * d, d).t());

        let attention = chunk.of_mut(&mut attention[slot], tokens * d);
        let softmax = chunk.of_mut(&mut softmax[slot], tokens * s.heads);
        let samples = qkv.chunks_exact(tokens * 3 * d).zip(attention.chunks_exact_mut(tokens * d));
        for ((qkv, out), softmax) in samples.zip(softmax.chunks_exact_mut(tokens * s.heads)) {
            self.heads(level).forward(qkv, out, softmax, &mut scratch.scores);
        }

        let branch = match &mut kept_proj {
            Some(kept) => chunk.of_mut(kept, tokens * d),
            None => &mut scratch.branch[..rows * d],
        };
        let weight = Matrix::new(weights.proj, d, d).t();
        product(MatrixMut::new(branch, rows, d), Matrix::new(attention, rows, d), weight);
        vectorize(Middle {
            pass: self,
            chunk,
            level,
            x: chunk.of(&x[here], tokens * d),
            branch,
            bias: weights.proj_bias,
            middle: chunk.of_mut(&mut middles[slot], tokens * d),
            statistics: chunk.of_mut(&mut middle_statistics[slot], tokens),
            normed: &mut scratch.normed,
        });

        let hidden = chunk.of_mut(&mut hidden[slot], tokens * s.mlp());
        let normed = Matrix::new(&scratch.normed[..rows * d], rows, d);
        product(MatrixMut::new(hidden, rows, s.mlp()), normed, Matrix::new(weights.fc1, s.mlp(), d).t());
        let active: &[f32] = if keeps {
            let wide = &mut scratch.wide[..rows * s.mlp()];
            vectorize(gelu::Forward { u: hidden, bias: weights.fc1_bias, h: wide });
            wide
        } else {
            vectorize(gelu::ForwardInPlace { u: hidden, bias: weights.fc1_bias });
            hidden
        };
        let branch = match &mut kept_fc2 {
            Some(kept) => chunk.of_mut(kept, tokens * d),
            None => &mut scratch.branch[..rows * d],
        };
        let weight = Matrix::new(weights.fc2, d, s.mlp()).t();
        product(MatrixMut::new(branch, rows, d), Matrix::new(active, rows, s.mlp()), weight);

        vectorize(Enter {
            pass: self,
            chunk,
            level: level + 1,
            source: Source::Block { middle: chunk.of(&middles[slot], tokens * d), branch, bias: weights.fc2_bias },
            x: chunk.of_mut(&mut x[next], self.tokens[level + 1] * d),
            statistics: chunk.of_mut(&mut x_statistics[next], self.tokens[level + 1]),
            normed: &mut scratch.normed,
        });
    }
}
