//! Every kernel with the grid that it is launched with. Unsafe throughout: the addresses are the caller's promise.

use std::ffi::c_void;

use crate::arguments::{
    Accumulate, AdamW, AddParts, Advance, Attention, Average, Begin, ColumnSum, EntryGradient, Examples, Features,
    GateBackward, GateBlocks, GateColumns, GateForward, GateGather, GateGradient, GateInput, GateLoad, GateNoise,
    GateSums, Gelu, Label, LabelGradient, Loss, ModulationGradient, NormBackward, Normals, Note, Patches, QSample,
    ResidualNorm, Reverse, Silu, Spread,
};
use crate::machine::{Address, Error, Grid, Machine, Matrix, Precision, Product};

/// Threads of a block, `THREADS` of `device.cuh`, and of attention's.
const THREADS: u32 = 256;
const ATTENTION_THREADS: u32 = 128;
const WARP: u32 = 32;
/// The widest token, `MAX_WIDTH`, and the longest sequence, `MAX_TOKENS`.
pub const MAX_WIDTH: usize = 1280;
/// Tokens of the longest sequence.
pub const MAX_TOKENS: usize = 320;
/// Widths of a head that attention is compiled for.
pub const HEAD_WIDTHS: [usize; 4] = [16, 32, 64, 72];
/// Rows of one part of a sum over rows.
const CHUNK: usize = 128;

/// Kernels of one precision on one machine.
pub struct Launcher<'m, M> {
    /// Where they run.
    pub machine: &'m M,
    /// Of the activations.
    pub precision: Precision,
}

impl<M> Clone for Launcher<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Launcher<'_, M> {}

fn blocks(count: usize, each: usize) -> u32 {
    u32::try_from(count.div_ceil(each)).expect("a grid has less than 2^32 blocks")
}

/// A kernel that each number of `count` has its thread in.
pub(crate) fn flat(count: usize) -> Grid {
    Grid { blocks: [blocks(count, THREADS as usize), 1], threads: THREADS, shared: 0 }
}

/// A kernel whose blocks, one a row, sum doubles over their threads.
fn summing(rows: i32) -> Grid {
    Grid { blocks: [blocks(rows as usize, 1), 1], threads: THREADS, shared: 8 * (THREADS / WARP) as usize }
}

/// Bytes of shared memory of attention's blocks; `backward` needs more.
pub fn attention_shared(precision: Precision, tokens: usize, width: usize, backward: bool) -> usize {
    let warps = (ATTENTION_THREADS / WARP) as usize;
    let bytes = match precision {
        Precision::Bf16 => {
            let padded = tokens.next_multiple_of(16);
            2 * 2 * padded * (width.next_multiple_of(16) + 8) + if backward { 3 * 4 * padded } else { 0 }
        }
        Precision::F32 => {
            let own = if backward { 3 + 2 * warps } else { warps };
            4 * tokens * (2 * (width + 1) + own)
        }
    };
    bytes.next_multiple_of(16)
}

impl<M: Machine> Launcher<'_, M> {
    /// Values in 16 bytes.
    pub(crate) fn pack(&self) -> usize {
        16 / self.precision.bytes()
    }

    /// A kernel whose threads each have a pack of a row's columns, `rows` of them along y.
    fn columns(&self, width: usize, rows: usize) -> Grid {
        Grid { blocks: [blocks(width / self.pack(), THREADS as usize), blocks(rows, 1)], threads: THREADS, shared: 0 }
    }

    /// A kernel with one warp per row.
    pub(crate) fn warps(&self, rows: usize) -> Grid {
        Grid { blocks: [blocks(rows, (THREADS / WARP) as usize), 1], threads: THREADS, shared: 0 }
    }

    pub(crate) unsafe fn run<A: Copy>(&self, kernel: &str, grid: Grid, arguments: &A) -> Result<(), Error> {
        let name = format!("{kernel}_{}", self.precision.suffix());
        // SAFETY: the caller's promise.
        unsafe { self.wide(&name, grid, arguments) }
    }

    pub(crate) unsafe fn wide<A: Copy>(&self, name: &str, grid: Grid, arguments: &A) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.machine.launch(name, grid, std::ptr::from_ref(arguments).cast::<c_void>(), size_of::<A>()) }
    }
}

/// One method per kernel.
macro_rules! kernels {
    ($($(#[$doc:meta])* $name:ident($a:ident: $arguments:ty) in $precision:ident, $grid:expr;)*) => {
        #[allow(clippy::missing_safety_doc, reason = "the module says it")]
        impl<M: Machine> Launcher<'_, M> {
            $($(#[$doc])*
            /// # Errors
            /// Those of the launch.
            pub unsafe fn $name(&self, $a: &$arguments) -> Result<(), Error> {
                let grid: fn(&Self, &$arguments) -> Grid = $grid;
                // SAFETY: the caller's promise.
                unsafe { kernels!(@run $precision, self, stringify!($name), grid(self, $a), $a) }
            })*
        }
    };
    (@run both, $self:ident, $name:expr, $grid:expr, $a:ident) => { $self.run($name, $grid, $a) };
    (@run single, $self:ident, $name:expr, $grid:expr, $a:ident) => { $self.wide(&format!("{}_f32", $name), $grid, $a) };
}
pub(crate) use kernels;

kernels! {
    /// `x = base + gate (branch + bias) + entry`, then LayerNorm and modulation.
    residual_norm(a: ResidualNorm) in both, |s, a| s.warps((a.batch * a.tokens) as usize);
    /// Back through modulation and LayerNorm, and through the gate of the branch before.
    norm_backward(a: NormBackward) in both, |s, a| s.warps((a.batch * a.before) as usize);
    /// `h = gelu(u + bias)`.
    gelu_forward(a: Gelu) in both, |s, a| flat(a.count * a.width as usize / s.pack());
    /// `dh *= gelu'(u + bias)`, and `h` again.
    gelu_backward(a: Gelu) in both, |s, a| flat(a.count * a.width as usize / s.pack());
    /// Input images to patches.
    gather(a: Patches) in both, |_, a| flat((a.batch * a.channels * a.size * a.size) as usize);
    /// Output patches to images.
    unpatchify(a: Patches) in both, |_, a| flat((a.batch * a.channels * a.size * a.size) as usize);
    /// The reverse.
    patchify(a: Patches) in both, |_, a| flat((a.batch * a.channels * a.size * a.size) as usize);
    /// Rows of a table of features, by timestep.
    timestep_features(a: Features) in both, |_, a| flat((a.rows * a.width) as usize);
    /// `out = silu(x)`.
    silu_forward(a: Silu) in both, |_, a| flat(a.count);
    /// `out *= silu'(x)`.
    silu_backward(a: Silu) in both, |_, a| flat(a.count);
    /// `c = t_emb + table[label]` and `silu(c)`.
    label_sum(a: Label) in both, |_, a| flat((a.rows * a.width) as usize);
    /// Gradient of the weights of prompts.
    entry_weight_gradient(a: EntryGradient) in both, |s, a| s.warps((a.batch * a.places) as usize);
    /// Gradient of prompts.
    prompt_gradient(a: EntryGradient) in both, |s, a| s.columns(a.width as usize, a.places as usize);
    /// Gradient of vectors.
    vector_gradient(a: EntryGradient) in both, |s, a| s.columns(a.width as usize, a.batch as usize);
    /// Normals of the counter generator.
    normals(a: Normals) in single, |_, a| flat(a.count.div_ceil(4) + 1);
    /// `x_t` from `x_0` and noise.
    q_sample(a: QSample) in single, |_, a| flat((a.batch * a.n) as usize);
    /// The loss of a batch and its gradient.
    loss(a: Loss) in single, |_, a| summing(a.batch);
    /// One step of AdamW.
    adamw(a: AdamW) in both, |_, a| flat(a.count);
    /// One step of a running average.
    average(a: Average) in single, |_, a| flat(a.count);
    /// The embedding that a gate reads.
    gate_input(a: GateInput) in both, |_, a| flat((a.rows * a.inputs) as usize);
    /// Weights of the prompts.
    gate_forward(a: GateForward) in single, |s, a| s.warps((a.groups * a.scores.rows) as usize);
    /// What the importance loss is made of.
    gate_sums(a: GateSums) in single, |_, a| summing(a.rows);
    /// From the gradient of the weights and the importance loss to that of the logits.
    gate_backward(a: GateBackward) in single, |s, a| s.warps((a.groups * a.rows) as usize);
    /// The smooth load loss, added to the gradient of the logits.
    gate_load(a: GateLoad) in single, |_, a| summing(a.scores.rows);
    /// Sums over the blocks of the gradient of what a layer gave them.
    gate_gather(a: GateGather) in single, |_, a| flat((a.rows * a.columns) as usize);
    /// The same of the noise's scale.
    gate_noise(a: GateNoise) in single, |_, a| flat((a.rows * a.prompts) as usize);
    /// Sums of those over the batch.
    gate_columns(a: GateColumns) in single, |_, a| flat(a.columns as usize);
    /// What a layer gives each block.
    gate_blocks(a: GateBlocks) in single, |_, a| flat((a.blocks * a.rows * a.columns) as usize);
    /// A step's places and rates.
    begin(a: Begin) in single, |_, a| flat(a.rows as usize);
    /// Clean images or latents.
    examples(a: Examples) in single, |_, a| flat((a.rows * a.n) as usize);
    /// `sum += values`.
    accumulate(a: Accumulate) in single, |_, a| flat(a.count);
    /// A step's losses.
    note(a: Note) in single, |_, _| flat(1);
    /// On to the next step.
    advance(a: Advance) in single, |_, _| flat(1);
    /// One reverse step of a sampler.
    reverse(a: Reverse) in single, |_, a| flat((a.batch * a.n) as usize);
    /// One value for all rows.
    spread(a: Spread) in single, |_, a| flat(a.count as usize);
}

#[allow(clippy::missing_safety_doc, reason = "the module says it")]
impl<M: Machine> Launcher<'_, M> {
    /// Gradients of shift and scale, for each of `batch` samples.
    ///
    /// # Errors
    /// Those of the launch.
    pub unsafe fn modulation_gradient(&self, a: &ModulationGradient, batch: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.run("modulation_gradient", self.columns(a.width as usize, batch), a) }
    }

    /// Gradients of a branch's gate, for each of `batch` samples.
    ///
    /// # Errors
    /// Those of the launch.
    pub unsafe fn gate_gradient(&self, a: &GateGradient, batch: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.run("gate_gradient", self.columns(a.width as usize, batch), a) }
    }

    /// Gradients of all `labels` rows of the label table.
    ///
    /// # Errors
    /// Those of the launch.
    pub unsafe fn label_gradient(&self, a: &LabelGradient, labels: usize) -> Result<(), Error> {
        let grid = Grid { blocks: [blocks(a.width as usize, THREADS as usize), blocks(labels, 1)], ..flat(0) };
        // SAFETY: the caller's promise.
        unsafe { self.run("label_gradient", grid, a) }
    }

    /// `sum [width] = column sums of values [count, width]`; `parts` has room for [`column_parts`] sums.
    ///
    /// # Errors
    /// Those of the launch.
    pub unsafe fn column_sum(
        &self,
        values: Address,
        count: usize,
        width: usize,
        parts: Address,
        sum: Address,
    ) -> Result<(), Error> {
        let chunks = column_parts(count);
        let first = ColumnSum { values, parts, count, width: width as i32, chunk: CHUNK as i32 };
        let second = AddParts { parts, sum, count: chunks as i32, width: width as i32 };
        // SAFETY: the caller's promise.
        unsafe {
            self.run(
                "column_sum",
                Grid { blocks: [blocks(width, THREADS as usize), blocks(chunks, 1)], ..flat(0) },
                &first,
            )?;
            self.wide("add_parts_f32", flat(width), &second)
        }
    }

    /// Attention of `batch` samples, there or back, for heads `width` wide.
    ///
    /// # Errors
    /// Those of the launch.
    pub unsafe fn attention(&self, a: &Attention, batch: usize, width: usize, backward: bool) -> Result<(), Error> {
        let shared = attention_shared(self.precision, a.tokens as usize, width, backward);
        let grid = Grid { blocks: [a.heads as u32, blocks(batch, 1)], threads: ATTENTION_THREADS, shared };
        let direction = if backward { "backward" } else { "forward" };
        // SAFETY: the caller's promise.
        unsafe { self.run(&format!("attention_{direction}_w{width}"), grid, a) }
    }

    /// `out [rows, columns] = left [rows, inner] right + bias`.
    ///
    /// # Errors
    /// Those of the machine's library.
    pub unsafe fn multiply(
        &self,
        out: Address,
        [rows, columns, inner]: [usize; 3],
        left: Matrix,
        right: Matrix,
        bias: Address,
    ) -> Result<(), Error> {
        let precision = self.precision;
        // SAFETY: the caller's promise.
        unsafe {
            let product = Product { precision, left, right, bias, out, wide: false, relu: false, rows, columns, inner };
            self.machine.multiply(&product)
        }
    }

    /// The gradient of a weight, `out [outputs, inputs] = dy [rows, outputs]^T x [rows, inputs]`, in `f32`.
    ///
    /// # Errors
    /// Those of the machine's library.
    pub unsafe fn weight_gradient(
        &self,
        out: Address,
        [outputs, inputs, rows]: [usize; 3],
        dy: Address,
        x: Address,
    ) -> Result<(), Error> {
        let (precision, left, right) = (self.precision, Matrix::transposed(dy), Matrix::plain(x));
        let product = Product {
            precision,
            left,
            right,
            bias: Address::NULL,
            out,
            wide: true,
            relu: false,
            rows: outputs,
            columns: inputs,
            inner: rows,
        };
        // SAFETY: the caller's promise.
        unsafe { self.machine.multiply(&product) }
    }
}

/// Parts of a sum over `count` rows.
pub fn column_parts(count: usize) -> usize {
    count.div_ceil(CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shared memory that a block may have, in bytes: compute capability 9.0 and 8.0 (CUDA programming guide, technical specifications).
    const HOPPER: usize = 227 << 10;
    const AMPERE: usize = 163 << 10;

    #[test]
    fn a_head_fits_shared_memory() {
        for width in HEAD_WIDTHS {
            for precision in Precision::ALL {
                let needs = |tokens, backward| attention_shared(precision, tokens, width, backward);
                assert!(needs(MAX_TOKENS, true) <= HOPPER && needs(256, true) <= AMPERE, "{precision:?} {width}");
                assert!(needs(MAX_TOKENS, false) <= needs(MAX_TOKENS, true));
            }
            assert!(attention_shared(Precision::Bf16, MAX_TOKENS, width, true) <= AMPERE, "{width}");
        }
    }
}
