//! What a patch adds to the tokens before the first blocks, and the gradients of it.

use crate::arguments::{Entry, EntryGradient};
use crate::array::{Array, Numbers};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision};

/// What is added, to the tokens before each of the first `blocks` blocks. Prompts in front of the tokens are not done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// Nothing.
    Nothing,
    /// Weighted prompts: `kernels::Contribution::Weighted`.
    Prompts {
        /// Blocks that have them.
        blocks: usize,
    },
    /// One vector for all tokens of a sample: `kernels::Contribution::Broadcast`.
    Vectors {
        /// Blocks that have one.
        blocks: usize,
    },
}

/// Lengths of everything.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) batch: usize,
    pub(super) rows: usize,
    pub(super) tokens: usize,
    pub(super) width: usize,
}

/// Values and gradients on the machine, all in `f32`.
pub struct Patch<M: Machine> {
    added: Added,
    size: Size,
    /// `[L', R, T]`.
    pub weights: Array<M>,
    /// Prompts `[L', T, D]` or vectors `[L', R, D]`.
    pub values: Array<M>,
    /// `[L', B, T]`.
    pub d_weights: Array<M>,
    /// Like `values`, with `B` for `R`.
    pub d_values: Array<M>,
}

impl<M: Machine> Patch<M> {
    pub(super) fn new(machine: &M, added: Added, size: Size) -> Result<Self, Error> {
        let Size { batch, rows, tokens, width } = size;
        let (weights, values, d_weights, d_values) = match added {
            Added::Nothing => (0, 0, 0, 0),
            Added::Prompts { blocks } => {
                (blocks * rows * tokens, blocks * tokens * width, blocks * batch * tokens, blocks * tokens * width)
            }
            Added::Vectors { blocks } => (0, blocks * rows * width, 0, blocks * batch * width),
        };
        let zeros = |count| Array::zeros(machine, Precision::F32, count);
        Ok(Self {
            added,
            size,
            weights: zeros(weights)?,
            values: zeros(values)?,
            d_weights: zeros(d_weights)?,
            d_values: zeros(d_values)?,
        })
    }

    /// What enters before block `level`.
    pub(super) fn entry(&self, level: usize) -> Entry {
        let Size { rows, tokens, width, .. } = self.size;
        match self.added {
            Added::Prompts { blocks } if level < blocks => Entry {
                weights: self.weights.at(level * rows * tokens),
                values: self.values.at(level * tokens * width),
                per_row: 0,
                per_token: 1,
            },
            Added::Vectors { blocks } if level < blocks => {
                Entry { weights: Address::NULL, values: self.values.at(level * rows * width), per_row: 1, per_token: 0 }
            }
            _ => Entry::default(),
        }
    }

    /// Gradients of what entered before block `level`, from that of its input.
    pub(super) fn backward(&self, l: Launcher<M>, level: usize, dx: Address, rows: &Numbers<M>) -> Result<(), Error> {
        let Size { batch, rows: r, tokens, width } = self.size;
        let arguments = EntryGradient {
            dx,
            rows: rows.start(),
            batch: batch as i32,
            tokens: tokens as i32,
            width: width as i32,
            ..EntryGradient::default()
        };
        // SAFETY: the arrays have room for every block that has something.
        unsafe {
            match self.added {
                Added::Prompts { blocks } if level < blocks => {
                    let arguments = EntryGradient {
                        weights: self.weights.at(level * r * tokens),
                        prompts: self.values.at(level * tokens * width),
                        d_weights: self.d_weights.at(level * batch * tokens),
                        d_values: self.d_values.at(level * tokens * width),
                        ..arguments
                    };
                    l.entry_weight_gradient(&arguments)?;
                    l.prompt_gradient(&arguments)
                }
                Added::Vectors { blocks } if level < blocks => {
                    l.vector_gradient(&EntryGradient { d_values: self.d_values.at(level * batch * width), ..arguments })
                }
                _ => Ok(()),
            }
        }
    }
}
