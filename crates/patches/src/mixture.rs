//! What a patch puts before the blocks for one batch of conditions, and the way back for its gradients.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use manifest::method::Balance;
use models::weights::{Tensors, gradients};
use models::{Condition, Hooks};

use crate::balance::BalanceLosses;
use crate::gate::Gated;
use crate::place::Place;

/// What is put before each prompted block.
#[derive(Clone, Debug)]
pub enum Contribution {
    /// `weights[l, b, n] * prompts[l, n, :]` at place `n` of sample `b` before block `l`.
    Prompts {
        /// `[L, B, N]`.
        weights: Tensor,
        /// `[L, N, D]`.
        prompts: Tensor,
    },
    /// `vectors[l, b, :]` at each of the `prompts` places of sample `b` before block `l`.
    Vectors {
        /// `[L, B, D]`.
        vectors: Tensor,
        /// Number of places `N`.
        prompts: usize,
    },
}

/// Gradient of the trunk's loss with respect to a [`Contribution`], of the same kind and shapes.
#[derive(Clone, Debug)]
pub enum ContributionGradient {
    /// For [`Contribution::Prompts`].
    Prompts {
        /// `[L, B, N]`.
        weights: Tensor,
        /// `[L, N, D]`.
        prompts: Tensor,
    },
    /// For [`Contribution::Vectors`]: `[L, B, D]`.
    Vectors(Tensor),
}

/// A patch applied to one batch of conditions.
#[derive(Clone, Debug)]
pub struct Mixture {
    pub(crate) gated: Gated,
    pub(crate) place: Arc<dyn Place>,
    pub(crate) balance: Option<Balance>,
    pub(crate) tensors: Arc<Tensors>,
}

impl Mixture {
    /// What is put before each prompted block.
    pub fn contribution(&self) -> &Contribution {
        &self.gated.contribution
    }

    /// The weight of every prompt, `[L, B, N]`: ones where there is no gate, and where attention is taken to the letter
    /// (the softmax over its one key).
    ///
    /// # Errors
    /// Those of candle.
    pub fn weights(&self) -> Result<Tensor> {
        match &self.gated.contribution {
            Contribution::Prompts { weights, .. } => Ok(weights.clone()),
            Contribution::Vectors { vectors, prompts } => {
                let (blocks, b, _) = vectors.dims3()?;
                Tensor::ones((blocks, b, *prompts), vectors.dtype(), vectors.device())
            }
        }
    }

    /// Smooth probability of being kept, summed over the batch, `[L, N]`; `None` where all prompts are kept or the
    /// gate has no noise.
    pub fn smooth_load(&self) -> Option<&Tensor> {
        self.gated.smooth_load.as_ref()
    }

    /// The balancing losses; `None` for a method that has none.
    ///
    /// # Errors
    /// Those of candle.
    pub fn balance(&self) -> Result<Option<BalanceLosses>> {
        let losses = |b: &Balance| BalanceLosses::new(b, &self.weights()?, self.smooth_load());
        self.balance.as_ref().map(losses).transpose()
    }

    /// A scalar whose gradient with respect to the patch's tensors is that of the trunk's loss, given the trunk's
    /// gradient with respect to the contribution: `sum(weights * d_weights) + sum(prompts * d_prompts)`.
    ///
    /// # Errors
    /// The gradient is of another kind or shape than the contribution.
    pub fn surrogate(&self, gradient: &ContributionGradient) -> Result<Tensor> {
        match (&self.gated.contribution, gradient) {
            (
                Contribution::Prompts { weights, prompts },
                ContributionGradient::Prompts { weights: d_weights, prompts: d_prompts },
            ) => (weights * d_weights)?.sum_all()? + (prompts * d_prompts)?.sum_all()?,
            (Contribution::Vectors { vectors, .. }, ContributionGradient::Vectors(d_vectors)) => {
                (vectors * d_vectors)?.sum_all()
            }
            _ => candle_core::bail!("the gradient is of another kind than the contribution"),
        }
    }

    /// Gradients of `trunk's loss + balancing losses` with respect to the patch's tensors, by name.
    ///
    /// # Errors
    /// As [`Mixture::surrogate`].
    pub fn backward_from(&self, gradient: &ContributionGradient) -> Result<Tensors> {
        gradients(&self.loss_from(gradient)?, &self.tensors)
    }

    /// The same with respect to the patch's tensors and the embeddings that the mixture was made for, which are
    /// variables: those that a gate reads where the backbone learns too.
    ///
    /// # Errors
    /// As [`Mixture::surrogate`].
    pub fn backward_with(&self, gradient: &ContributionGradient, read: &Condition) -> Result<(Tensors, Condition)> {
        let gradients = self.loss_from(gradient)?.backward()?;
        let of = |tensor: &Tensor| gradients.get(tensor).cloned().map_or_else(|| tensor.zeros_like(), Ok);
        let own = self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), of(tensor)?)));
        Ok((own.collect::<Result<_>>()?, Condition { t: of(&read.t)?, label: of(&read.label)? }))
    }

    fn loss_from(&self, gradient: &ContributionGradient) -> Result<Tensor> {
        let loss = self.surrogate(gradient)?;
        match self.balance()? {
            Some(balance) => loss + balance.total,
            None => Ok(loss),
        }
    }

    fn prompted_blocks(&self) -> Result<usize> {
        match &self.gated.contribution {
            Contribution::Prompts { prompts, .. } => prompts.dim(0),
            Contribution::Vectors { vectors, .. } => vectors.dim(0),
        }
    }

    fn places(&self) -> Result<usize> {
        match &self.gated.contribution {
            Contribution::Prompts { prompts, .. } => prompts.dim(1),
            Contribution::Vectors { prompts, .. } => Ok(*prompts),
        }
    }
}

impl Contribution {
    /// What enters before `block`: `[B, N, D]`, or `[B, 1, D]` where all places get the same.
    fn before(&self, block: usize) -> Result<Tensor> {
        match self {
            Self::Prompts { weights, prompts } => {
                weights.get(block)?.unsqueeze(2)?.broadcast_mul(&prompts.get(block)?.unsqueeze(0)?)
            }
            Self::Vectors { vectors, .. } => vectors.get(block)?.unsqueeze(1),
        }
    }
}

impl Hooks for Mixture {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        if block >= self.prompted_blocks()? {
            return Ok(x);
        }
        self.place.enter(block, &x, &self.gated.contribution.before(block)?, self.places()?)
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        self.place.leave(x, self.places()?)
    }
}
