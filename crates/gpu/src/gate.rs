//! The gate of a mixture of prompts on a machine: one linear layer over an embedding and a softmax over all prompts, with what balances it.
//! The formulas are those of `patches`; all of it is `f32`, whatever the activations.

use crate::arguments::{GateBackward, GateColumns, GateForward, GateGather, GateInput, GateSums};
use crate::array::{Array, Plain};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Matrix, Precision};

/// Which prompts a gate uses, and with which weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All, by their softmax.
    Soft,
    /// The highest, at least one; ties go to the lowest number.
    Highest {
        /// How many.
        kept: usize,
        /// Whether each counts 1, and its gradient is that of the softmax over all; else it counts its softmax over the kept.
        ones: bool,
    },
}

impl Selection {
    /// Whether weights are not what the logits' gradient goes through.
    fn ones(self) -> bool {
        matches!(self, Self::Highest { ones: true, .. })
    }
}

/// What a gate is told and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gating {
    /// Whether the block's index is one more input; else all blocks use the same weights.
    pub per_block: bool,
    /// Whether it reads the timestep's embedding plus the label's, not the timestep's alone.
    pub with_label: bool,
    /// Whether it has a scale of the noise that training puts on its logits.
    pub noisy: bool,
    /// Which prompts it uses.
    pub selection: Selection,
}

/// The loss that keeps a gate from using few prompts only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Importance {
    /// What it counts.
    pub coefficient: f64,
    /// Whether mean and variance are those of the whole batch (released code), not of each sample (paper).
    pub together: bool,
}

/// Lengths of everything.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Blocks with prompts `L'`.
    pub blocks: usize,
    /// Prompts of a block `N`.
    pub prompts: usize,
    /// Width of the embedding `D`.
    pub width: usize,
    /// Rows of the condition `R` that are gated at once.
    pub rows: usize,
    /// Samples of a whole step, of which the rows are a part.
    pub all: usize,
}

impl Gating {
    /// Inputs of the linear layer.
    fn inputs(self, width: usize) -> usize {
        width + usize::from(self.per_block)
    }

    /// Values of a gate: weight `[N, inputs]`, bias `[N]` and the noise's scale `[D, N]` where there is one, in this order.
    pub fn len(self, prompts: usize, width: usize) -> usize {
        let noise = if self.noisy { width } else { 0 };
        prompts * (self.inputs(width) + 1 + noise)
    }
}

/// A gate's values with room for its rows.
pub struct Gate<M: Machine> {
    gating: Gating,
    extent: Extent,
    values: Array<M>,
    /// The embedding `[R, D]`, and with a zero behind it `[R, inputs]`.
    plain: Array<M>,
    extended: Array<M>,
    /// `[R, N]` what all blocks' logits share.
    base: Array<M>,
    /// `[G, R, N]` softmax over all prompts; empty unless kept prompts count 1.
    soft: Array<M>,
    learning: Option<Learning<M>>,
}

/// What only training needs.
struct Learning<M: Machine> {
    importance: Importance,
    gradient: Array<M>,
    /// `[L', all, N]` normals.
    draws: Array<M>,
    /// `[R, N]` of the noise, before softplus.
    scale: Array<M>,
    sums: Array<M>,
    parts: Plain<M>,
    d_logits: Array<M>,
    d_base: Array<M>,
    d_index: Array<M>,
    d_scale: Array<M>,
}

/// Where a gate's values lie.
struct Places {
    weight: Address,
    bias: Address,
    /// The weight's last column, of which each next value is `inputs` further on; `NULL` where blocks are not told apart.
    column: Address,
    noise: Address,
}

impl<M: Machine> Gate<M> {
    /// Room for `extent`; with `importance`, for training. Its values are zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    pub fn new(machine: &M, gating: Gating, extent: Extent, importance: Option<Importance>) -> Result<Self, Error> {
        let Extent { blocks, prompts, width, rows, all } = extent;
        let array = |count| Array::new(machine, Precision::F32, count);
        let (length, groups) = (gating.len(prompts, width), if gating.per_block { blocks } else { 1 });
        let learning = |importance| -> Result<Learning<M>, Error> {
            let noisy = |count| array(if gating.noisy { count } else { 0 });
            Ok(Learning {
                importance,
                gradient: array(length)?,
                draws: noisy(blocks * all * prompts)?,
                scale: noisy(rows * prompts)?,
                sums: array(rows * prompts)?,
                parts: Plain::new(machine, 16 * rows)?,
                d_logits: array(groups * rows * prompts)?,
                d_base: array(rows * prompts)?,
                d_index: array(rows * prompts)?,
                d_scale: noisy(rows * prompts)?,
            })
        };
        Ok(Self {
            gating,
            extent,
            values: Array::zeros(machine, Precision::F32, length)?,
            plain: array(rows * width)?,
            extended: array(rows * gating.inputs(width))?,
            base: array(rows * prompts)?,
            soft: array(if gating.selection.ones() { groups * rows * prompts } else { 0 })?,
            learning: importance.map(learning).transpose()?,
        })
    }

    /// Its values: weight, bias, scale of the noise.
    pub fn values(&self) -> &Array<M> {
        &self.values
    }

    /// The same, to be set.
    pub fn values_mut(&mut self) -> &mut Array<M> {
        &mut self.values
    }

    /// Their gradient, laid out as they are.
    ///
    /// # Panics
    /// If it does not train.
    pub fn gradient(&self) -> &Array<M> {
        &self.training().gradient
    }

    /// Where the normals `[L', all, N]` of the noise go, and how many there are; none where there is no noise.
    pub fn draws(&self) -> (Address, usize) {
        self.learning.as_ref().map_or((Address::NULL, 0), |learning| (learning.draws.start(), learning.draws.len()))
    }

    /// Sets them, for a check.
    pub(crate) fn draws_mut(&mut self, machine: &M, values: &[f32]) -> Result<(), Error> {
        self.learning.as_mut().expect("a gate that trains").draws.write(machine, values)
    }

    fn training(&self) -> &Learning<M> {
        self.learning.as_ref().expect("a gate that trains")
    }

    fn places(&self, array: &Array<M>) -> Places {
        let Extent { prompts, width, .. } = self.extent;
        let bias = prompts * self.gating.inputs(width);
        Places {
            weight: array.start(),
            bias: array.at(bias),
            column: if self.gating.per_block { array.at(width) } else { Address::NULL },
            noise: array.at(bias + prompts),
        }
    }

    /// Whether noise is on the logits: in training only.
    fn noisy(&self) -> bool {
        self.gating.noisy && self.learning.is_some()
    }

    fn groups(&self) -> usize {
        if self.gating.per_block { self.extent.blocks } else { 1 }
    }

    /// `weights [L', R, N]` from the embeddings `[t, t + label]`, of which it reads one. In training, the rows are the samples `first, ..` of
    /// the step. Only launches.
    ///
    /// # Safety
    /// The addresses are of this machine and as large as the extent says.
    ///
    /// # Errors
    /// Those of the launches.
    pub unsafe fn forward(
        &self,
        l: Launcher<M>,
        [t, sum]: [Address; 2],
        weights: Address,
        first: usize,
    ) -> Result<(), Error> {
        let Extent { blocks, prompts, width, rows, all } = self.extent;
        let inputs = self.gating.inputs(width);
        let (wide, at) = (Launcher { precision: Precision::F32, ..l }, self.places(&self.values));
        let input = GateInput {
            embedding: if self.gating.with_label { sum } else { t },
            plain: self.plain.start(),
            extended: self.extended.start(),
            rows: rows as i32,
            width: width as i32,
            inputs: inputs as i32,
        };
        let mut arguments = GateForward {
            base: self.base.start(),
            bias: at.bias,
            column: at.column,
            weights,
            soft: if self.gating.selection.ones() { self.soft.start() } else { Address::NULL },
            blocks: blocks as i32,
            groups: self.groups() as i32,
            rows: rows as i32,
            prompts: prompts as i32,
            inputs: inputs as i32,
            all: all as i32,
            first: first as i32,
            kept: match self.gating.selection {
                Selection::Soft => prompts as i32,
                Selection::Highest { kept, .. } => kept as i32,
            },
            ..GateForward::default()
        };
        let (plain, extended) = (Matrix::plain(self.plain.start()), Matrix::plain(self.extended.start()));
        // SAFETY: the caller's promise; our arrays were made for the extent.
        unsafe {
            l.gate_input(&input)?;
            let weight = Matrix::transposed(at.weight);
            wide.multiply(self.base.start(), [rows, prompts, inputs], extended, weight, Address::NULL)?;
            if self.noisy() {
                let learning = self.training();
                let scale = learning.scale.start();
                wide.multiply(scale, [rows, prompts, width], plain, Matrix::plain(at.noise), Address::NULL)?;
                (arguments.scale, arguments.draws) = (scale, learning.draws.start());
            }
            wide.gate_forward(&arguments)
        }
    }

    /// The gradient of its values from that of the weights `[L', R, N]`, with the importance loss, of which each row's share goes to
    /// `importance [R]`. Only launches.
    ///
    /// # Safety
    /// As [`Gate::forward`], which came before.
    ///
    /// # Errors
    /// Those of the launches.
    ///
    /// # Panics
    /// If it does not train.
    pub unsafe fn backward(
        &self,
        l: Launcher<M>,
        [weights, d_weights]: [Address; 2],
        importance: Address,
        first: usize,
    ) -> Result<(), Error> {
        let Extent { blocks, prompts, width, rows, all } = self.extent;
        let inputs = self.gating.inputs(width);
        let (learning, wide) = (self.training(), Launcher { precision: Precision::F32, ..l });
        let at = self.places(&learning.gradient);
        let (scale, draws) = match self.noisy() {
            true => (learning.scale.start(), learning.draws.start()),
            false => (Address::NULL, Address::NULL),
        };
        let (groups, rows_, prompts_, all_) = (self.groups() as i32, rows as i32, prompts as i32, all as i32);
        let (sums, parts) = (learning.sums.start(), learning.parts.start());
        let (d_base, d_index) = (learning.d_base.start(), learning.d_index.start());
        // SAFETY: the caller's promise; our arrays were made for the extent.
        unsafe {
            wide.gate_sums(&GateSums { weights, sums, parts, blocks: blocks as i32, rows: rows_, prompts: prompts_ })?;
            wide.gate_backward(&GateBackward {
                soft: if self.gating.selection.ones() { self.soft.start() } else { weights },
                d_weights,
                sums,
                parts,
                d_logits: learning.d_logits.start(),
                importance,
                coefficient: learning.importance.coefficient,
                blocks: blocks as i32,
                groups,
                rows: rows_,
                prompts: prompts_,
                all: all_,
                together: i32::from(learning.importance.together),
            })?;
            wide.gate_gather(&GateGather {
                d_logits: learning.d_logits.start(),
                scale,
                draws,
                d_base,
                d_index,
                d_scale: learning.d_scale.start(),
                groups,
                rows: rows_,
                prompts: prompts_,
                all: all_,
                first: first as i32,
            })?;
            // its last column comes out as zeros, where the embedding ends in one
            wide.weight_gradient(at.weight, [prompts, inputs, rows], d_base, self.extended.start())?;
            wide.gate_columns(&GateColumns {
                d_base,
                d_index,
                d_bias: at.bias,
                d_column: at.column,
                rows: rows_,
                prompts: prompts_,
                inputs: inputs as i32,
            })?;
            if self.noisy() {
                let d_scale = learning.d_scale.start();
                wide.weight_gradient(at.noise, [width, prompts, rows], self.plain.start(), d_scale)?;
            }
        }
        Ok(())
    }
}
