//! One linear layer over what a gate sees: an embedding, and the block's index or not (`patches`' eye).

use super::gating::{Extent, Gating};
use crate::arguments::{GateBlocks, GateColumns, GateGather, GateInput};
use crate::array::Array;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Matrix, Precision};

/// What a gate sees.
pub(super) struct Eye<M: Machine> {
    gating: Gating,
    extent: Extent,
    /// The embedding `[R, D]`, and with a zero behind it `[R, inputs]`.
    plain: Array<M>,
    extended: Array<M>,
}

impl<M: Machine> Eye<M> {
    pub(super) fn new(machine: &M, gating: Gating, extent: Extent) -> Result<Self, Error> {
        let array = |width: usize| Array::new(machine, Precision::F32, extent.rows * width);
        let (plain, extended) = (array(extent.width)?, array(gating.inputs(extent.width))?);
        Ok(Self { gating, extent, plain, extended })
    }

    fn inputs(&self) -> usize {
        self.gating.inputs(self.extent.width)
    }

    /// The embedding, `[R, D]`.
    pub(super) fn plain(&self) -> Address {
        self.plain.start()
    }

    /// The last column of a weight over it, of which each next value is `inputs` further on; `NULL` where blocks are not told apart.
    pub(super) fn column(&self, weight: Address) -> Address {
        match self.gating.per_block {
            true => weight.offset(self.extent.width * Precision::F32.bytes()),
            false => Address::NULL,
        }
    }

    /// Reads one of the embeddings `[t, t + label]`, in the precision of `l`.
    ///
    /// # Safety
    /// They are as large as the extent says.
    pub(super) unsafe fn read(&self, l: Launcher<M>, [t, sum]: [Address; 2]) -> Result<(), Error> {
        let input = GateInput {
            embedding: if self.gating.with_label { sum } else { t },
            plain: self.plain.start(),
            extended: self.extended.start(),
            rows: self.extent.rows as i32,
            width: self.extent.width as i32,
            inputs: self.inputs() as i32,
        };
        // SAFETY: the caller's promise.
        unsafe { l.gate_input(&input) }
    }
}

/// A layer `[C, inputs]`; all blocks share its product with the embedding.
pub(super) struct Projection<M: Machine> {
    columns: usize,
    /// `[R, C]`.
    base: Array<M>,
    /// `[R, C]` each; empty unless it trains.
    d_base: Array<M>,
    d_index: Array<M>,
}

impl<M: Machine> Projection<M> {
    pub(super) fn new(machine: &M, extent: Extent, columns: usize, trains: bool) -> Result<Self, Error> {
        let array = |wanted: bool| Array::new(machine, Precision::F32, if wanted { extent.rows * columns } else { 0 });
        Ok(Self { columns, base: array(true)?, d_base: array(trains)?, d_index: array(trains)? })
    }

    /// Its product with the embedding, `[R, C]`.
    pub(super) fn base(&self) -> Address {
        self.base.start()
    }

    /// Makes [`Projection::base`].
    ///
    /// # Safety
    /// The weight is `[C, inputs]`.
    pub(super) unsafe fn forward(&self, l: Launcher<M>, eye: &Eye<M>, weight: Address) -> Result<(), Error> {
        let (input, weight) = (Matrix::plain(eye.extended.start()), Matrix::transposed(weight));
        // SAFETY: the caller's promise.
        unsafe {
            l.multiply(self.base.start(), [eye.extent.rows, self.columns, eye.inputs()], input, weight, Address::NULL)
        }
    }

    /// The gradients of weight and bias (`NULL`: there is none) from `d_out [groups, R, C]`, of which the layer's part was `factor`.
    ///
    /// # Safety
    /// The addresses are as large as that.
    pub(super) unsafe fn backward(
        &self,
        l: Launcher<M>,
        eye: &Eye<M>,
        d_out: Address,
        (groups, factor): (usize, f32),
        [d_weight, d_bias]: [Address; 2],
    ) -> Result<(), Error> {
        let (d_base, d_index) = (self.d_base.start(), self.d_index.start());
        let (inputs, rows, columns) = (eye.inputs(), eye.extent.rows, self.columns as i32);
        // SAFETY: the caller's promise.
        unsafe {
            l.gate_gather(&GateGather {
                d_out,
                d_base,
                d_index,
                factor,
                groups: groups as i32,
                rows: rows as i32,
                columns,
            })?;
            // its last column comes out as zeros, where the embedding ends in one
            l.weight_gradient(d_weight, [self.columns, inputs, rows], d_base, eye.extended.start())?;
            l.gate_columns(&GateColumns {
                d_base,
                d_index,
                d_bias,
                d_column: eye.column(d_weight),
                rows: rows as i32,
                columns,
                inputs: inputs as i32,
            })
        }
    }
}

/// A layer `[D, inputs]` whose output each block has for itself, `[L', R, D]`.
pub(super) struct Told<M: Machine> {
    layer: Projection<M>,
    factor: f32,
    out: Array<M>,
    /// Empty unless it trains.
    d_out: Array<M>,
}

impl<M: Machine> Told<M> {
    /// What comes out is multiplied by `factor`.
    pub(super) fn new(machine: &M, extent: Extent, factor: f32, trains: bool) -> Result<Self, Error> {
        let Extent { blocks, width, rows, .. } = extent;
        let array = |wanted: bool| Array::new(machine, Precision::F32, if wanted { blocks * rows * width } else { 0 });
        Ok(Self {
            layer: Projection::new(machine, extent, width, trains)?,
            factor,
            out: array(true)?,
            d_out: array(trains)?,
        })
    }

    /// What comes out.
    pub(super) fn out(&self) -> &Array<M> {
        &self.out
    }

    /// Where its gradient goes.
    pub(super) fn d_out(&self) -> &Array<M> {
        &self.d_out
    }

    /// Makes [`Told::out`].
    ///
    /// # Safety
    /// The weight is `[D, inputs]`.
    pub(super) unsafe fn forward(&self, l: Launcher<M>, eye: &Eye<M>, weight: Address) -> Result<(), Error> {
        let Extent { blocks, width, rows, .. } = eye.extent;
        // SAFETY: the caller's promise; our arrays were made for the extent.
        unsafe {
            self.layer.forward(l, eye, weight)?;
            l.gate_blocks(&GateBlocks {
                base: self.layer.base(),
                column: eye.column(weight),
                out: self.out.start(),
                factor: self.factor,
                blocks: blocks as i32,
                rows: rows as i32,
                columns: width as i32,
                inputs: eye.inputs() as i32,
            })
        }
    }

    /// The weight's gradient, from [`Told::d_out`].
    ///
    /// # Safety
    /// As [`Told::forward`].
    pub(super) unsafe fn backward(&self, l: Launcher<M>, eye: &Eye<M>, d_weight: Address) -> Result<(), Error> {
        let groups = (eye.extent.blocks, self.factor);
        // SAFETY: the caller's promise.
        unsafe { self.layer.backward(l, eye, self.d_out.start(), groups, [d_weight, Address::NULL]) }
    }
}
