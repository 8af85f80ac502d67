//! The gate of a mixture of prompts on a machine: an embedding in, weights of the prompts (or vectors in their place) out, with what balances
//! them. The formulas are those of `patches`; all of it is `f32`, whatever the activations.

mod attention;
mod choice;
mod gating;
mod projection;

use crate::array::Array;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision};
use crate::trunk::Given;
use attention::{Literal, OverPrompts};
use choice::{Choice, Logits};
pub use gating::{Architecture, Balance, Extent, Gating, Importance, Selection};
use projection::{Eye, Projection};

/// A gate's values with room for its rows.
pub struct Gate<M: Machine> {
    gating: Gating,
    extent: Extent,
    values: Array<M>,
    /// Empty unless it trains.
    gradient: Array<M>,
    eye: Eye<M>,
    kind: Kind<M>,
}

/// What an architecture needs.
enum Kind<M: Machine> {
    Linear(Projection<M>, Choice<M>),
    OverPrompts(OverPrompts<M>, Choice<M>),
    Literal(Literal<M>),
}

/// Where a gate's values lie: its own two, and the noise's scale.
struct Places {
    own: [Address; 2],
    noise: Address,
}

impl<M: Machine> Gate<M> {
    /// Room for `extent`; with `balance`, for training. Its values are zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    pub fn new(machine: &M, gating: Gating, extent: Extent, balance: Option<Balance>) -> Result<Self, Error> {
        let Extent { blocks, prompts, width, .. } = extent;
        let (trains, length) = (balance.is_some(), gating.len(prompts, width));
        let choice = |groups| Choice::new(machine, gating, extent, groups, balance);
        let kind = match gating.architecture {
            Architecture::Linear => {
                let groups = if gating.per_block { blocks } else { 1 };
                Kind::Linear(Projection::new(machine, extent, prompts, trains)?, choice(groups)?)
            }
            // prompts differ from block to block, and so do their scores
            Architecture::AttentionOverPrompts => {
                Kind::OverPrompts(OverPrompts::new(machine, extent, trains)?, choice(blocks)?)
            }
            Architecture::AttentionLiteral => Kind::Literal(Literal::new(machine, extent, trains)?),
        };
        Ok(Self {
            gating,
            extent,
            values: Array::zeros(machine, Precision::F32, length)?,
            gradient: Array::new(machine, Precision::F32, if trains { length } else { 0 })?,
            eye: Eye::new(machine, gating, extent)?,
            kind,
        })
    }

    /// Its values, in the order of [`Gating::len`].
    pub fn values(&self) -> &Array<M> {
        &self.values
    }

    /// The same, to be set.
    pub fn values_mut(&mut self) -> &mut Array<M> {
        &mut self.values
    }

    /// Their gradient, laid out as they are; empty unless it trains.
    pub fn gradient(&self) -> &Array<M> {
        &self.gradient
    }

    fn choice(&self) -> Option<&Choice<M>> {
        match &self.kind {
            Kind::Linear(_, choice) | Kind::OverPrompts(_, choice) => Some(choice),
            Kind::Literal(_) => None,
        }
    }

    /// Where the normals `[L', all, N]` of the noise go, and how many there are; none where there is no noise.
    pub fn draws(&self) -> (Address, usize) {
        let draws = self.choice().and_then(Choice::draws);
        draws.map_or((Address::NULL, 0), |draws| (draws.start(), draws.len()))
    }

    /// Sets them, for a check.
    pub(crate) fn set_draws(&mut self, machine: &M, values: &[f32]) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Linear(_, choice) | Kind::OverPrompts(_, choice) => {
                choice.draws_mut().expect("a gate that trains").write(machine, values)
            }
            Kind::Literal(_) => Ok(()),
        }
    }

    /// Which of the balancing losses there are, importance and load.
    pub fn balanced(&self) -> [bool; 2] {
        self.choice().map_or([false; 2], |choice| [true, choice.loaded()])
    }

    fn places(&self, array: &Array<M>) -> Places {
        let (Extent { prompts, width, .. }, inputs) = (self.extent, self.gating.inputs(self.extent.width));
        let second = match self.gating.architecture {
            Architecture::Linear => prompts * inputs,
            Architecture::AttentionOverPrompts => width * width,
            Architecture::AttentionLiteral => width * inputs,
        };
        Places { own: [array.start(), array.at(second)], noise: array.at(self.gating.own(prompts, width)) }
    }

    /// The logits that its architecture leaves.
    fn logits(&self) -> Logits {
        let ([first, second], Extent { prompts, rows, .. }) = (self.places(&self.values).own, self.extent);
        match &self.kind {
            Kind::Linear(layer, _) => {
                Logits { base: layer.base(), apart: 0, bias: second, column: self.eye.column(first) }
            }
            Kind::OverPrompts(scores, _) => {
                Logits { base: scores.logits(), apart: rows * prompts, ..Logits::default() }
            }
            Kind::Literal(_) => Logits::default(),
        }
    }

    /// What is given to the trunk, from the embeddings `[t, t + label]`, of which it reads one: weights `[L', R, N]` of the prompts, or
    /// vectors `[L', R, D]`. In training, the rows are the samples `first, ..` of the step. Only launches.
    ///
    /// # Safety
    /// The addresses are of this machine and as large as the extent says.
    ///
    /// # Errors
    /// Those of the launches.
    pub unsafe fn forward(
        &self,
        l: Launcher<M>,
        embeddings: [Address; 2],
        given: Given,
        first: usize,
    ) -> Result<(), Error> {
        let (wide, eye, at) = (Launcher { precision: Precision::F32, ..l }, &self.eye, self.places(&self.values));
        // SAFETY: the caller's promise.
        unsafe {
            eye.read(l, embeddings)?;
            let choice = match &self.kind {
                Kind::Linear(layer, choice) => {
                    layer.forward(wide, eye, at.own[0])?;
                    choice
                }
                Kind::OverPrompts(scores, choice) => {
                    scores.forward(wide, eye, at.own, given.values)?;
                    choice
                }
                Kind::Literal(literal) => return literal.forward(wide, eye, at.own, given.values),
            };
            choice.forward(wide, eye, at.noise, choice.scores(self.logits(), first), given.weights)
        }
    }

    /// The gradient of its values from that of what it gave, with the balancing losses, of which each row's share goes to `losses [R]`,
    /// importance and load. Attention over prompts adds to the prompts' gradient. Only launches.
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
        given: Given,
        losses: [Address; 2],
        first: usize,
    ) -> Result<(), Error> {
        let (wide, eye) = (Launcher { precision: Precision::F32, ..l }, &self.eye);
        let (at, d) = (self.places(&self.values), self.places(&self.gradient));
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(choice) = self.choice() {
                let (scores, weights) = (choice.scores(self.logits(), first), [given.weights, given.d_weights]);
                choice.backward(wide, eye, scores, weights, losses, d.noise)?;
            }
            match &self.kind {
                Kind::Linear(layer, choice) => {
                    layer.backward(wide, eye, choice.d_logits().start(), (choice.groups(), 1.0), d.own)
                }
                Kind::OverPrompts(scores, choice) => {
                    let prompts = [given.values, given.d_values];
                    scores.backward(wide, eye, choice.d_logits(), at.own[0], d.own, prompts)
                }
                Kind::Literal(literal) => literal.backward(wide, eye, given.d_values, at.own[1], d.own),
            }
        }
    }
}
