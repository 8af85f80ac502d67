//! The way back: final layer, blocks from last to first, embedders.
//!
//! `scratch.dx` carries the gradient of the stream, `scratch.branch` that of the branch which comes next. What is not kept is made again:
//! normalised rows from the row statistics, GELU from the pre-activation, probabilities from the softmax rows.

use kernels::Learn;

use super::{Kept, NONE, Trunk};
use crate::arguments::{Attention, GateGradient, Gelu, ModulationGradient, NormBackward};
use crate::array::Array;
use crate::machine::{Address, Error, Machine, Matrix};

impl<M: Machine> Trunk<'_, M> {
    /// From the output's gradient to those of the patch and, where they learn, of the weights. Only launches.
    ///
    /// # Errors
    /// Those of the launches.
    ///
    /// # Panics
    /// If nothing learns.
    pub fn backward(&self) -> Result<(), Error> {
        assert_ne!(self.plan.learn, Learn::Nothing, "a sampling plan has no backward pass");
        let (l, s, at) = (self.l, &self.shape, &self.places);
        let (d, rows) = (s.hidden, self.plan.batch * s.tokens());
        let (scratch, depth) = (&self.scratch, s.depth);
        let (patches, dn) = (scratch.patches.start(), scratch.normed.start());
        // SAFETY: every array was made for this shape and batch.
        unsafe {
            l.patchify(&self.output_patches())?;
            let weight = Matrix::plain(self.weights.at(at.last));
            l.multiply(dn, [rows, d, s.patch_out()], Matrix::plain(patches), weight, NONE)?;
        }
        self.norm_backward(depth, 0, &self.x[depth], &self.x_statistics[depth], Some(self.column(depth - 1, 5)))?;
        if let Some(full) = &self.full {
            // SAFETY: as above.
            unsafe {
                l.weight_gradient(full.gradient.at(at.last), [s.patch_out(), d, rows], patches, scratch.again.start())?
            };
            self.bias_gradient(at.last_bias, patches, rows, s.patch_out())?;
        }
        for level in (0..depth).rev() {
            self.mlp_backward(level)?;
            self.attention_backward(level)?;
            self.patch.backward(l, level, scratch.dx.start(), &self.rows)?;
        }
        if let Some(full) = &self.full {
            // SAFETY: as above.
            unsafe {
                l.gather(&self.input_patches())?;
                l.weight_gradient(full.gradient.at(at.embed), [d, s.patch_in(), rows], scratch.dx.start(), patches)?;
            }
            self.bias_gradient(at.embed_bias, scratch.dx.start(), rows, d)?;
        }
        self.embed_backward()
    }

    /// Sums of the columns of `dy [rows, width]`, which are the gradient of the bias at `place`; nothing where weights do not learn.
    pub(super) fn bias_gradient(&self, place: usize, dy: Address, rows: usize, width: usize) -> Result<(), Error> {
        let Some(full) = &self.full else { return Ok(()) };
        // SAFETY: `parts` is as long as the widest sum needs.
        unsafe { self.l.column_sum(dy, rows, width, full.parts.start(), full.gradient.at(place)) }
    }

    /// Back through the norm that follows place `place` of block `level`, into the stream and through the gate at column `gate` of the branch
    /// before, if there is one. The stream's gradient begins at the final layer.
    fn norm_backward(
        &self,
        level: usize,
        place: usize,
        x: &Array<M>,
        statistics: &Array<M>,
        gate: Option<i32>,
    ) -> Result<(), Error> {
        let (s, scratch) = (&self.shape, &self.scratch);
        let (shift, scale) = (self.column(level, place), self.column(level, place + 1));
        let (last, width, stride) = (level == s.depth, s.hidden as i32, s.modulations() as i32);
        let tokens = if last { s.tokens() as i32 } else { self.tokens as i32 };
        let arguments = NormBackward {
            x: x.start(),
            statistics: statistics.start(),
            dn: scratch.normed.start(),
            modulations: self.condition.modulations.start(),
            rows: self.rows.start(),
            dx: scratch.dx.start(),
            d_branch: if gate.is_some() { scratch.branch.start() } else { NONE },
            again: if self.full.is_some() { scratch.again.start() } else { NONE },
            batch: self.plan.batch as i32,
            tokens,
            width,
            stride,
            before: self.tokens as i32,
            replaced: if place == 0 { self.patch.replaced(level) } else { 0 },
            gate: gate.unwrap_or(0),
            shift,
            scale,
            fresh: i32::from(last),
        };
        // SAFETY: every array was made for this shape and batch.
        unsafe {
            if let Some(full) = &self.full {
                let gradient = ModulationGradient {
                    x: x.start(),
                    statistics: statistics.start(),
                    dn: scratch.normed.start(),
                    d_modulations: full.d_modulations.start(),
                    tokens,
                    width,
                    stride,
                    shift,
                    scale,
                };
                self.l.modulation_gradient(&gradient, self.plan.batch)?;
            }
            self.l.norm_backward(&arguments)
        }
    }

    /// Where weights learn, the gradients of the gate at column `gate`, of the bias at `bias` and of the weight at `weight` of the layer
    /// that ends a branch, whose output was `branch` and whose input was `x [rows, inputs]`.
    fn branch_gradients(
        &self,
        branch: &Array<M>,
        gate: i32,
        [weight, bias]: [usize; 2],
        x: Address,
        inputs: usize,
    ) -> Result<(), Error> {
        let Some(full) = &self.full else { return Ok(()) };
        let (s, dy) = (&self.shape, self.scratch.branch.start());
        let (d, rows) = (s.hidden, self.plan.batch * self.tokens);
        let gradient = GateGradient {
            dx: self.scratch.dx.start(),
            branch: branch.start(),
            bias: self.weights.at(bias),
            d_modulations: full.d_modulations.start(),
            tokens: self.tokens as i32,
            width: d as i32,
            stride: s.modulations() as i32,
            gate,
        };
        // SAFETY: every array was made for this shape and batch.
        unsafe {
            self.l.gate_gradient(&gradient, self.plan.batch)?;
            self.l.weight_gradient(full.gradient.at(weight), [d, inputs, rows], dy, x)?;
        }
        self.bias_gradient(bias, dy, rows, d)
    }

    /// From after a block to the middle of its stream.
    fn mlp_backward(&self, level: usize) -> Result<(), Error> {
        let (l, s, w, at) = (self.l, &self.shape, &self.weights, &self.places.blocks[level]);
        let (d, mlp, rows) = (s.hidden, s.mlp(), self.plan.batch * self.tokens);
        let (kept, scratch) = (&self.kept[level], &self.scratch);
        let (branch, wide) = (scratch.branch.start(), scratch.wide.start());
        // SAFETY: every array was made for this shape and batch.
        unsafe {
            l.multiply(wide, [rows, mlp, d], Matrix::plain(branch), Matrix::plain(w.at(at.fc2)), NONE)?;
            l.gelu_backward(&Gelu {
                u: kept.hidden.start(),
                bias: w.at(at.fc1_bias),
                h: if self.full.is_some() { scratch.wide_again.start() } else { NONE },
                dh: wide,
                count: rows,
                width: mlp as i32,
            })?;
        }
        let gate = self.column(level, 5);
        self.branch_gradients(&kept.fc2, gate, [at.fc2, at.fc2_bias], scratch.wide_again.start(), mlp)?;
        // SAFETY: as above.
        unsafe {
            l.multiply(scratch.normed.start(), [rows, d, mlp], Matrix::plain(wide), Matrix::plain(w.at(at.fc1)), NONE)?
        };
        self.norm_backward(level, 3, &kept.middle, &kept.middle_statistics, Some(self.column(level, 2)))?;
        if let Some(full) = &self.full {
            // SAFETY: as above.
            unsafe { l.weight_gradient(full.gradient.at(at.fc1), [mlp, d, rows], wide, scratch.again.start())? };
        }
        self.bias_gradient(at.fc1_bias, wide, rows, mlp)
    }

    /// From the middle of a block's stream to its input.
    fn attention_backward(&self, level: usize) -> Result<(), Error> {
        let (l, s, w, at) = (self.l, &self.shape, &self.weights, &self.places.blocks[level]);
        let (d, rows) = (s.hidden, self.plan.batch * self.tokens);
        let (kept, scratch) = (&self.kept[level], &self.scratch);
        let Kept { qkv, softmax, attention, proj, .. } = kept;
        let gate = self.column(level, 2);
        self.branch_gradients(proj, gate, [at.proj, at.proj_bias], attention.start(), d)?;
        let (branch, d_attention, d_qkv) = (scratch.branch.start(), scratch.normed.start(), scratch.wide.start());
        // SAFETY: every array was made for this shape and batch.
        unsafe {
            l.multiply(d_attention, [rows, d, d], Matrix::plain(branch), Matrix::plain(w.at(at.proj)), NONE)?;
            let arguments = Attention {
                qkv: qkv.start(),
                out: attention.start(),
                softmax: softmax.start(),
                d_out: d_attention,
                d_qkv,
                tokens: self.tokens as i32,
                heads: s.heads as i32,
            };
            l.attention(&arguments, self.plan.batch, s.head_width(), true)?;
            l.multiply(
                scratch.normed.start(),
                [rows, d, 3 * d],
                Matrix::plain(d_qkv),
                Matrix::plain(w.at(at.qkv)),
                NONE,
            )?;
        }
        let before = level.checked_sub(1).map(|before| self.column(before, 5));
        self.norm_backward(level, 0, &self.x[level], &self.x_statistics[level], before)?;
        if let Some(full) = &self.full {
            // SAFETY: as above.
            unsafe { l.weight_gradient(full.gradient.at(at.qkv), [3 * d, d, rows], d_qkv, scratch.again.start())? };
        }
        self.bias_gradient(at.qkv_bias, d_qkv, rows, 3 * d)
    }
}
