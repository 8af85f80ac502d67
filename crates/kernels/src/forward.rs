//! The forward pass of one chunk of samples: embedding, blocks, final layer.

use crate::activations::Activations;
use crate::attention;
use crate::gelu;
use crate::matrix::{Matrix, MatrixMut, linear, product};
use crate::parameters::Offsets;
use crate::pass::{Chunk, Pass};
use crate::patches;
use crate::residual::{Enter, Middle, Source};
use crate::vector::vectorize;
use crate::workspace::Scratch;

impl Pass<'_> {
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
        let weight = Matrix::new(self.transposed.embed(), s.patch_in(), d);
        let into = MatrixMut::new(&mut scratch.branch[..rows * d], rows, d);
        product(into, Matrix::new(patches, rows, s.patch_in()), weight);
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

        let weight = Matrix::new(self.transposed.last(), d, s.patch_out());
        let patches = &mut scratch.patches[..rows * s.patch_out()];
        let normed = Matrix::new(&scratch.normed[..rows * d], rows, d);
        let bias = &values[at.last_bias.clone()];
        linear(MatrixMut::new(patches, rows, s.patch_out()), normed, weight, bias);
        for (patches, image) in
            patches.chunks_exact(s.tokens() * s.patch_out()).zip(output.chunks_exact_mut(s.output()))
        {
            patches::unpatchify(s, patches, image);
        }
    }

    /// One block, from normalised rows in `scratch.normed` to the next block's (or the final layer's).
    fn block(&self, level: usize, chunk: Chunk, activations: &mut Activations, scratch: &mut Scratch) {
        let (s, d) = (self.shape, self.shape.hidden);
        let (weights, transposed) = (self.parameters.block(level), self.transposed.block(self.parameters, level));
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
        let normed = Matrix::new(&scratch.normed[..rows * d], rows, d);
        let into = MatrixMut::new(qkv, rows, 3 * d);
        linear(into, normed, transposed.qkv, weights.qkv_bias);

        let attention = chunk.of_mut(&mut attention[slot], tokens * d);
        let softmax = chunk.of_mut(&mut softmax[slot], tokens * s.heads);
        let samples = qkv.chunks_exact(tokens * 3 * d).zip(attention.chunks_exact_mut(tokens * d));
        for ((qkv, out), rows) in samples.zip(softmax.chunks_exact_mut(tokens * s.heads)) {
            attention::Forward { heads: self.heads(level), qkv, out, rows, scratch: &mut scratch.head }.run();
        }

        let branch = match &mut kept_proj {
            Some(kept) => chunk.of_mut(kept, tokens * d),
            None => &mut scratch.branch[..rows * d],
        };
        product(MatrixMut::new(branch, rows, d), Matrix::new(attention, rows, d), transposed.proj);
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
        product(MatrixMut::new(hidden, rows, s.mlp()), normed, transposed.fc1);
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
        product(MatrixMut::new(branch, rows, d), Matrix::new(active, rows, s.mlp()), transposed.fc2);

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
