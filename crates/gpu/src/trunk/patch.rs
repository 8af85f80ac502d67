//! What a patch adds to the tokens before the first blocks, or puts in front of them, and the gradients of it.

use crate::arguments::{Entry, EntryGradient};
use crate::array::{Array, Numbers};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision};

/// What is added, before each of the first `blocks` blocks: to the image's tokens, or, where the plan has prompts in front of them, as these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// Nothing.
    Nothing,
    /// Weighted prompts: `kernels::Contribution::Weighted`, or `Prepend`.
    Prompts {
        /// Blocks that have them.
        blocks: usize,
    },
    /// One vector for all places of a sample: `kernels::Contribution::Broadcast`, or `PrependBroadcast`.
    Vectors {
        /// Blocks that have one.
        blocks: usize,
    },
}

impl Added {
    /// Blocks that have something.
    pub(crate) fn blocks(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Prompts { blocks } | Self::Vectors { blocks } => blocks,
        }
    }
}

/// Lengths of everything.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) batch: usize,
    pub(super) rows: usize,
    /// Of a sequence in a block.
    pub(super) tokens: usize,
    /// In front of the image's tokens; 0: what is added is added to these.
    pub(super) prepended: usize,
    pub(super) width: usize,
}

impl Size {
    /// Tokens that something is given to, `N`.
    fn places(&self) -> usize {
        if self.prepended > 0 { self.prepended } else { self.tokens }
    }
}

/// Where what is added lies, with its gradients.
#[derive(Clone, Copy)]
pub struct Given {
    /// `[L', R, N]`.
    pub weights: Address,
    /// Prompts `[L', N, D]` or vectors `[L', R, D]`.
    pub values: Address,
    /// `[L', B, N]`.
    pub d_weights: Address,
    /// Like `values`, with `B` for `R`.
    pub d_values: Address,
}

/// Values and gradients on the machine, all in `f32`.
pub struct Patch<M: Machine> {
    added: Added,
    size: Size,
    /// `[L', R, N]`.
    pub weights: Array<M>,
    /// Prompts `[L', N, D]` or vectors `[L', R, D]`.
    pub values: Array<M>,
    /// `[L', B, N]`.
    pub d_weights: Array<M>,
    /// Like `values`, with `B` for `R`.
    pub d_values: Array<M>,
}

impl<M: Machine> Patch<M> {
    pub(super) fn new(machine: &M, added: Added, size: Size) -> Result<Self, Error> {
        let (Size { batch, rows, width, .. }, places) = (size, size.places());
        let (weights, values, d_weights, d_values) = match added {
            Added::Nothing => (0, 0, 0, 0),
            Added::Prompts { blocks } => {
                (blocks * rows * places, blocks * places * width, blocks * batch * places, blocks * places * width)
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

    /// Where everything lies.
    pub(crate) fn given(&self) -> Given {
        Given {
            weights: self.weights.start(),
            values: self.values.start(),
            d_weights: self.d_weights.start(),
            d_values: self.d_values.start(),
        }
    }

    /// What enters before block `level`.
    pub(super) fn entry(&self, level: usize) -> Entry {
        let (Size { rows, prepended, width, .. }, places) = (self.size, self.size.places());
        let entry = Entry { places: places as i32, replaces: i32::from(prepended > 0), ..Entry::default() };
        match self.added {
            Added::Prompts { blocks } if level < blocks => Entry {
                weights: self.weights.at(level * rows * places),
                values: self.values.at(level * places * width),
                per_row: 0,
                per_token: 1,
                ..entry
            },
            Added::Vectors { blocks } if level < blocks => Entry {
                weights: Address::NULL,
                values: self.values.at(level * rows * width),
                per_row: 1,
                per_token: 0,
                ..entry
            },
            _ => Entry::default(),
        }
    }

    /// Tokens before block `level` that it replaces.
    pub(super) fn replaced(&self, level: usize) -> i32 {
        let Entry { places, replaces, .. } = self.entry(level);
        places * replaces
    }

    /// Gradients of what entered before block `level`, from that of its input, which ends where something was replaced.
    pub(super) fn backward(&self, l: Launcher<M>, level: usize, dx: Address, rows: &Numbers<M>) -> Result<(), Error> {
        let (Size { batch, rows: r, tokens, prepended, width }, places) = (self.size, self.size.places());
        let arguments = EntryGradient {
            dx,
            rows: rows.start(),
            batch: batch as i32,
            tokens: tokens as i32,
            width: width as i32,
            places: places as i32,
            replaces: i32::from(prepended > 0),
            ..EntryGradient::default()
        };
        // SAFETY: the arrays have room for every block that has something.
        unsafe {
            match self.added {
                Added::Prompts { blocks } if level < blocks => {
                    let arguments = EntryGradient {
                        weights: self.weights.at(level * r * places),
                        prompts: self.values.at(level * places * width),
                        d_weights: self.d_weights.at(level * batch * places),
                        d_values: self.d_values.at(level * places * width),
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
