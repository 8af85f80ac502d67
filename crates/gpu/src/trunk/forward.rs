//! The way there: condition, patch embedding, blocks, final layer.

use kernels::Learn;

use super::{NONE, Trunk};
use crate::arguments::{Attention, Entry, Gelu, Patches, ResidualNorm};
use crate::machine::{Address, Error, Machine, Matrix};

impl<M: Machine> Trunk<'_, M> {
    /// Embeds the condition and runs the trunk: images to output. Only launches.
    ///
    /// # Errors
    /// Those of the launches.
    pub fn forward(&self) -> Result<(), Error> {
        self.embed()?;
        self.through()
    }

    /// The same behind the embeddings: what a patch adds may be made of them in between.
    pub(crate) fn through(&self) -> Result<(), Error> {
        let (l, s, at, w) = (self.l, &self.shape, &self.places, &self.weights);
        // the rows of patches; in the blocks, those of prompts in front come to them
        let (d, rows) = (s.hidden, self.plan.batch * s.tokens());
        let scratch = &self.scratch;
        let (patches, normed) = (scratch.patches.start(), scratch.normed.start());
        // SAFETY: every array was made for this shape and batch.
        unsafe {
            l.gather(&self.input_patches())?;
            let weight = Matrix::transposed(w.at(at.embed));
            l.multiply(scratch.branch.start(), [rows, d, s.patch_in()], Matrix::plain(patches), weight, NONE)?;
        }
        self.enter(0, [w.at(at.position), scratch.branch.start(), w.at(at.embed_bias)], s.tokens(), -1)?;
        for level in 0..s.depth {
            self.block(level)?;
        }
        // SAFETY: as above.
        unsafe {
            let weight = Matrix::transposed(w.at(at.last));
            l.multiply(patches, [rows, s.patch_out(), d], Matrix::plain(normed), weight, w.at(at.last_bias))?;
            l.unpatchify(&Patches { images: self.output.start(), ..self.output_patches() })
        }
    }

    pub(super) fn input_patches(&self) -> Patches {
        Patches {
            images: self.images.start(),
            patches: self.scratch.patches.start(),
            batch: self.plan.batch as i32,
            channels: self.shape.channels as i32,
            size: self.shape.image_size as i32,
            patch: self.shape.patch as i32,
        }
    }

    pub(super) fn output_patches(&self) -> Patches {
        Patches { images: self.d_output.start(), channels: self.shape.out_channels as i32, ..self.input_patches() }
    }

    /// Where what is kept of block `level` lies.
    pub(super) fn slot(&self, level: usize) -> usize {
        level.min(self.kept.len() - 1)
    }

    /// Where the stream before block `level` lies.
    pub(super) fn stream(&self, level: usize) -> usize {
        level.min(self.x.len() - 1)
    }

    /// Column of the modulation at `place` of block `level`: shift, scale and gate of attention, then of the MLP.
    pub(super) fn column(&self, level: usize, place: usize) -> i32 {
        ((6 * level + place) * self.shape.hidden) as i32
    }

    /// Closes a residual over `tokens[0]` tokens of each sample, and normalises the `tokens[1]` that follow.
    fn residual(
        &self,
        [base, branch, bias]: [Address; 3],
        tokens: [usize; 2],
        entry: Entry,
        [x, statistics]: [Address; 2],
        [gate, shift, scale]: [i32; 3],
    ) -> Result<(), Error> {
        let s = &self.shape;
        let arguments = ResidualNorm {
            base,
            branch,
            bias,
            modulations: self.condition.modulations.start(),
            rows: self.rows.start(),
            entry,
            x,
            statistics,
            normed: self.scratch.normed.start(),
            batch: self.plan.batch as i32,
            tokens: tokens[1] as i32,
            width: s.hidden as i32,
            stride: s.modulations() as i32,
            before: tokens[0] as i32,
            gate,
            shift,
            scale,
        };
        // SAFETY: every array was made for this shape and batch.
        unsafe { self.l.residual_norm(&arguments) }
    }

    /// The stream before block `level`, with what a patch adds; after the last block, the final layer's, without prompts in front.
    fn enter(&self, level: usize, from: [Address; 3], before: usize, gate: i32) -> Result<(), Error> {
        let slot = self.stream(level);
        let into = [self.x[slot].start(), self.x_statistics[slot].start()];
        let columns = [gate, self.column(level, 0), self.column(level, 1)];
        let tokens = if level == self.shape.depth { self.shape.tokens() } else { self.tokens };
        self.residual(from, [before, tokens], self.patch.entry(level), into, columns)
    }

    /// One block, from normalised rows to those of the next.
    fn block(&self, level: usize) -> Result<(), Error> {
        let (l, s, w, at) = (self.l, &self.shape, &self.weights, &self.places.blocks[level]);
        let (d, mlp, rows) = (s.hidden, s.mlp(), self.plan.batch * self.tokens);
        let (kept, scratch) = (&self.kept[self.slot(level)], &self.scratch);
        let normed = Matrix::plain(scratch.normed.start());
        let everything = self.plan.learn == Learn::Everything;
        let [proj, fc2] =
            [&kept.proj, &kept.fc2].map(|kept| if everything { kept.start() } else { scratch.branch.start() });
        // SAFETY: every array was made for this shape and batch.
        unsafe {
            let weight = Matrix::transposed(w.at(at.qkv));
            l.multiply(kept.qkv.start(), [rows, 3 * d, d], normed, weight, w.at(at.qkv_bias))?;
            let attention = Attention {
                qkv: kept.qkv.start(),
                out: kept.attention.start(),
                softmax: kept.softmax.start(),
                tokens: self.tokens as i32,
                heads: s.heads as i32,
                ..Attention::default()
            };
            l.attention(&attention, self.plan.batch, s.head_width(), false)?;
            let (x, weight) = (Matrix::plain(kept.attention.start()), Matrix::transposed(w.at(at.proj)));
            l.multiply(proj, [rows, d, d], x, weight, NONE)?;
        }
        let middle = [kept.middle.start(), kept.middle_statistics.start()];
        let columns = [self.column(level, 2), self.column(level, 3), self.column(level, 4)];
        let base = self.x[self.stream(level)].start();
        self.residual([base, proj, w.at(at.proj_bias)], [self.tokens; 2], Entry::default(), middle, columns)?;
        // SAFETY: as above.
        unsafe {
            l.multiply(kept.hidden.start(), [rows, mlp, d], normed, Matrix::transposed(w.at(at.fc1)), NONE)?;
            l.gelu_forward(&Gelu {
                u: kept.hidden.start(),
                bias: w.at(at.fc1_bias),
                h: scratch.wide.start(),
                dh: NONE,
                count: rows,
                width: mlp as i32,
            })?;
            let (x, weight) = (Matrix::plain(scratch.wide.start()), Matrix::transposed(w.at(at.fc2)));
            l.multiply(fc2, [rows, d, mlp], x, weight, NONE)?;
        }
        self.enter(level + 1, [kept.middle.start(), fc2, w.at(at.fc2_bias)], self.tokens, self.column(level, 5))
    }
}
