//! From logits to the weights of prompts and back: noise, softmax, the highest prompts, and the losses that balance them.

use super::gating::{Balance, Extent, Gating};
use super::projection::Eye;
use crate::arguments::{GateBackward, GateForward, GateLoad, GateNoise, GateSums, Scores};
use crate::array::{Array, Plain};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Matrix, Precision};

/// Logits as an architecture leaves them.
#[derive(Clone, Copy, Default)]
pub(super) struct Logits {
    /// `[R, N]` what the groups share, or `[G, R, N]`, `apart` values from one group to the next.
    pub(super) base: Address,
    pub(super) apart: usize,
    /// `[N]`, and a column that is added once per block; `NULL`: there is none.
    pub(super) bias: Address,
    pub(super) column: Address,
}

/// Selection, noise and balance over `G` groups of logits: one for each block, or one that stands for all.
pub(super) struct Choice<M: Machine> {
    gating: Gating,
    extent: Extent,
    groups: usize,
    /// `[G, R, N]` softmax over all prompts; empty unless kept prompts count 1.
    soft: Array<M>,
    learning: Option<Learning<M>>,
}

/// What only training needs.
struct Learning<M: Machine> {
    balance: Balance,
    /// `[L', all, N]` normals.
    draws: Array<M>,
    /// `[R, N]` of the noise, before softplus.
    scale: Array<M>,
    sums: Array<M>,
    parts: Plain<M>,
    d_logits: Array<M>,
    /// `[G, R, N]` of the noise's deviation; empty without a smooth load loss.
    d_deviation: Array<M>,
    d_scale: Array<M>,
}

impl<M: Machine> Choice<M> {
    pub(super) fn new(
        machine: &M,
        gating: Gating,
        extent: Extent,
        groups: usize,
        balance: Option<Balance>,
    ) -> Result<Self, Error> {
        let Extent { blocks, prompts, rows, all, .. } = extent;
        let array = |wanted: bool, count: usize| Array::new(machine, Precision::F32, if wanted { count } else { 0 });
        let learning = |balance: Balance| -> Result<Learning<M>, Error> {
            Ok(Learning {
                balance,
                draws: array(gating.noisy, blocks * all * prompts)?,
                scale: array(gating.noisy, rows * prompts)?,
                sums: array(true, rows * prompts)?,
                parts: Plain::new(machine, 16 * rows)?,
                d_logits: array(true, groups * rows * prompts)?,
                d_deviation: array(loaded(gating, prompts, balance).is_some(), groups * rows * prompts)?,
                d_scale: array(gating.noisy, rows * prompts)?,
            })
        };
        Ok(Self {
            gating,
            extent,
            groups,
            soft: array(gating.selection.ones(), groups * rows * prompts)?,
            learning: balance.map(learning).transpose()?,
        })
    }

    fn training(&self) -> &Learning<M> {
        self.learning.as_ref().expect("a gate that trains")
    }

    /// Whether noise is on the logits: in training only.
    fn noisy(&self) -> bool {
        self.gating.noisy && self.learning.is_some()
    }

    /// The normals `[L', all, N]` of the noise; none where there is no noise.
    pub(super) fn draws(&self) -> Option<&Array<M>> {
        self.learning.as_ref().map(|learning| &learning.draws)
    }

    /// The same, to be set.
    pub(super) fn draws_mut(&mut self) -> Option<&mut Array<M>> {
        self.learning.as_mut().map(|learning| &mut learning.draws)
    }

    /// Whether there is a smooth load loss.
    pub(super) fn loaded(&self) -> bool {
        let load = |learning: &Learning<M>| loaded(self.gating, self.extent.prompts, learning.balance);
        self.learning.as_ref().and_then(load).is_some()
    }

    /// Groups of logits `G`.
    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// The gradient of the logits, `[G, R, N]`.
    pub(super) fn d_logits(&self) -> &Array<M> {
        &self.training().d_logits
    }

    /// What the rows' logits are made of, those of the samples `first, ..` of a step.
    pub(super) fn scores(&self, logits: Logits, first: usize) -> Scores {
        let Extent { prompts, width, rows, all, .. } = self.extent;
        let Logits { base, apart, bias, column } = logits;
        let (scale, draws) = match self.noisy() {
            true => (self.training().scale.start(), self.training().draws.start()),
            false => (Address::NULL, Address::NULL),
        };
        Scores {
            base,
            bias,
            column,
            scale,
            draws,
            apart,
            // blocks that are not told apart take the first one's
            drawn: if self.gating.per_block { all * prompts } else { 0 },
            rows: rows as i32,
            prompts: prompts as i32,
            inputs: self.gating.inputs(width) as i32,
            first: first as i32,
        }
    }

    /// `weights [L', R, N]`, with noise of the scale `noise [D, N]` in training.
    ///
    /// # Safety
    /// The addresses are as large as that.
    pub(super) unsafe fn forward(
        &self,
        l: Launcher<M>,
        eye: &Eye<M>,
        noise: Address,
        scores: Scores,
        weights: Address,
    ) -> Result<(), Error> {
        let Extent { blocks, prompts, width, rows, .. } = self.extent;
        let arguments = GateForward {
            scores,
            weights,
            soft: if self.gating.selection.ones() { self.soft.start() } else { Address::NULL },
            blocks: blocks as i32,
            groups: self.groups as i32,
            kept: self.gating.selection.kept(prompts) as i32,
        };
        // SAFETY: the caller's promise; our arrays were made for the extent.
        unsafe {
            if self.noisy() {
                let (scale, sizes) = (self.training().scale.start(), [rows, prompts, width]);
                l.multiply(scale, sizes, Matrix::plain(eye.plain()), Matrix::plain(noise), Address::NULL)?;
            }
            l.gate_forward(&arguments)
        }
    }

    /// From the gradient of the weights to [`Choice::d_logits`], with the balancing losses, whose shares of each row go to
    /// `losses [R]`, importance and load; and to that of the noise's scale, `d_noise [D, N]`.
    ///
    /// # Safety
    /// As [`Choice::forward`], which came before.
    pub(super) unsafe fn backward(
        &self,
        l: Launcher<M>,
        eye: &Eye<M>,
        scores: Scores,
        [weights, d_weights]: [Address; 2],
        [importance, load]: [Address; 2],
        d_noise: Address,
    ) -> Result<(), Error> {
        let Extent { blocks, prompts, width, rows, all } = self.extent;
        let Learning { balance, sums, parts, d_logits, d_deviation, d_scale, .. } = self.training();
        let (blocks, groups, rows_, prompts_) = (blocks as i32, self.groups as i32, rows as i32, prompts as i32);
        let (sums, parts, d_logits) = (sums.start(), parts.start(), d_logits.start());
        let kept = self.gating.selection.kept(prompts) as i32;
        let coefficient = loaded(self.gating, prompts, *balance);
        // SAFETY: the caller's promise; our arrays were made for the extent.
        unsafe {
            l.gate_sums(&GateSums { weights, sums, parts, blocks, rows: rows_, prompts: prompts_ })?;
            l.gate_backward(&GateBackward {
                soft: if self.gating.selection.ones() { self.soft.start() } else { weights },
                d_weights,
                sums,
                parts,
                d_logits,
                importance,
                coefficient: balance.importance.coefficient,
                blocks,
                groups,
                rows: rows_,
                prompts: prompts_,
                all: all as i32,
                together: i32::from(balance.importance.together),
            })?;
            if let Some(coefficient) = coefficient {
                let (slope, d_deviation) = ((coefficient / self.groups as f64) as f32, d_deviation.start());
                l.gate_load(&GateLoad { scores, d_logits, d_deviation, load, slope, groups, kept })?;
            }
            if !self.noisy() {
                return Ok(());
            }
            l.gate_noise(&GateNoise {
                d_logits,
                d_deviation: if coefficient.is_some() { d_deviation.start() } else { Address::NULL },
                scale: scores.scale,
                draws: scores.draws,
                d_scale: d_scale.start(),
                drawn: scores.drawn,
                groups,
                rows: rows_,
                prompts: prompts_,
                first: scores.first,
            })?;
            l.weight_gradient(d_noise, [width, prompts, rows], eye.plain(), d_scale.start())
        }
    }
}

/// What the smooth load loss counts; none where all prompts are kept, or nothing is drawn.
fn loaded(gating: Gating, prompts: usize, balance: Balance) -> Option<f64> {
    balance.load.filter(|_| gating.noisy && gating.selection.kept(prompts) < prompts)
}
