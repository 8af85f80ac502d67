//! What a patch adds to the tokens before a block.

use crate::shape::Shape;

/// What enters the trunk before one block. `R` is the number of the condition's rows; a sample reads the row it is
/// mapped to, so that samples that share timestep and label share their gate.
#[derive(Clone, Copy, Debug)]
pub enum Contribution<'a> {
    /// Nothing.
    None,
    /// Token `t` receives `weights[row, t] * prompts[t]`; as many prompts as image tokens.
    Weighted {
        /// `[R, T]`
        weights: &'a [f32],
        /// `[T, D]`
        prompts: &'a [f32],
    },
    /// Every token receives `vectors[row]`.
    Broadcast {
        /// `[R, D]`
        vectors: &'a [f32],
    },
    /// `weights[row, n] * prompts[n]` stand in front of the image tokens: put there before the first block that has
    /// this contribution, overwritten at later ones, carried along by the others, dropped before the output.
    Prepend {
        /// `[R, N]`
        weights: &'a [f32],
        /// `[N, D]`
        prompts: &'a [f32],
    },
    /// As `Prepend`, where each of `places` tokens in front is `vectors[row]`.
    PrependBroadcast {
        /// `[R, D]`
        vectors: &'a [f32],
        /// `N`
        places: usize,
    },
}

/// What one token of one sample receives.
#[derive(Clone, Copy)]
pub(crate) enum Entry<'a> {
    Keep,
    Add(f32, &'a [f32]),
    Replace(f32, &'a [f32]),
}

impl<'a> Contribution<'a> {
    /// Prompts in front, `N`; 0 unless prepended.
    pub(crate) fn prepended(&self, d: usize) -> usize {
        match self {
            Self::Prepend { prompts, .. } => prompts.len() / d,
            Self::PrependBroadcast { places, .. } => *places,
            Self::None | Self::Weighted { .. } | Self::Broadcast { .. } => 0,
        }
    }

    /// Panics unless the slices have the sizes that the documentation gives.
    pub(crate) fn check(&self, shape: &Shape, rows: usize) {
        let (t, d) = (shape.tokens(), shape.hidden);
        match self {
            Self::None => {}
            Self::Weighted { weights, prompts } => {
                assert_eq!(
                    (weights.len(), prompts.len()),
                    (rows * t, t * d),
                    "Weighted: weights [R, T], prompts [T, D]"
                );
            }
            Self::Broadcast { vectors } => assert_eq!(vectors.len(), rows * d, "Broadcast: vectors [R, D]"),
            Self::Prepend { weights, prompts } => {
                let n = prompts.len() / d;
                assert!(n > 0, "Prepend: at least one prompt");
                assert_eq!(
                    (weights.len(), prompts.len()),
                    (rows * n, n * d),
                    "Prepend: weights [R, N], prompts [N, D]"
                );
            }
            Self::PrependBroadcast { vectors, places } => {
                assert!(*places > 0, "PrependBroadcast: at least one place");
                assert_eq!(vectors.len(), rows * d, "PrependBroadcast: vectors [R, D]");
            }
        }
    }

    /// Values that `samples` leave of the gradients of the weights, and of the prompts or vectors.
    pub(crate) fn gradient_lengths(&self, samples: usize, d: usize) -> (usize, usize) {
        match self {
            Self::None => (0, 0),
            Self::Broadcast { .. } | Self::PrependBroadcast { .. } => (0, samples * d),
            Self::Weighted { prompts, .. } | Self::Prepend { prompts, .. } => {
                (samples * (prompts.len() / d), prompts.len())
            }
        }
    }

    /// What token `t` (prompts in front counted) of a sample mapped to `row` receives.
    #[inline(always)]
    pub(crate) fn entry(&self, row: usize, t: usize, d: usize) -> Entry<'a> {
        match *self {
            Self::None => Entry::Keep,
            Self::Weighted { weights, prompts } => {
                Entry::Add(weights[row * (prompts.len() / d) + t], &prompts[t * d..(t + 1) * d])
            }
            Self::Broadcast { vectors } => Entry::Add(1.0, &vectors[row * d..(row + 1) * d]),
            Self::Prepend { weights, prompts } => {
                let n = prompts.len() / d;
                if t < n { Entry::Replace(weights[row * n + t], &prompts[t * d..(t + 1) * d]) } else { Entry::Keep }
            }
            Self::PrependBroadcast { vectors, places } => {
                if t < places {
                    Entry::Replace(1.0, &vectors[row * d..(row + 1) * d])
                } else {
                    Entry::Keep
                }
            }
        }
    }
}

/// The gradient of one block's contribution.
#[derive(Clone, Debug, PartialEq)]
pub enum ContributionGradient {
    /// There was nothing.
    None,
    /// Of `Weighted` and `Prepend`.
    Prompts {
        /// `[B, N]`
        weights: Vec<f32>,
        /// `[N, D]`, summed over the batch.
        prompts: Vec<f32>,
    },
    /// Of `Broadcast` and `PrependBroadcast`, `[B, D]`.
    Vectors(Vec<f32>),
}
