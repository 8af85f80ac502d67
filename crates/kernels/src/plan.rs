//! What a workspace is made for, and how its batch is cut.

use std::ops::Range;

use crate::shape::Shape;

/// Most lanes of a batch.
const MAX_LANES: usize = 16;

/// Tokens worked on together.
const CHUNK_TOKENS: usize = 256;

/// The same where a chunk goes forward and back on its own: its activations are to stay near.
const FROZEN_TOKENS: usize = 128;

/// What the backward pass computes beside the gradients of the contributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// There is no backward pass: sampling. Nothing is kept.
    Nothing,
    /// Frozen weights: contributions to the blocks `from..` learn. Blocks before keep nothing.
    Contributions {
        /// The first block whose contribution learns.
        from: usize,
    },
    /// The weights and biases of `attn.qkv` and `attn.proj` of all blocks (LoRA's products are merged into them).
    Attention,
    /// All weights but `pos_embed`.
    Everything,
}

/// What a workspace is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The trunk's shape.
    pub shape: Shape,
    /// Samples `B`.
    pub batch: usize,
    /// What learns.
    pub learn: Learn,
    /// Prompts in front of the image tokens, 0 without `Prepend`.
    pub prepended: usize,
    /// Whether the gradient of the images is wanted too (goes back through all blocks).
    pub image_gradient: bool,
}

impl Plan {
    /// A plan for sampling.
    pub fn sampling(shape: Shape, batch: usize, prepended: usize) -> Self {
        Self { shape, batch, learn: Learn::Nothing, prepended, image_gradient: false }
    }

    /// The first block that the backward pass goes through; `L` if there is none.
    pub(crate) fn first(&self) -> usize {
        match self.learn {
            Learn::Nothing => self.shape.depth,
            Learn::Contributions { .. } if self.image_gradient => 0,
            Learn::Contributions { from } => from.min(self.shape.depth),
            Learn::Attention | Learn::Everything => 0,
        }
    }

    /// Whether weights learn. Their gradients are added up over the batch block by block, so that the whole batch's
    /// activations are kept; else a chunk goes forward and back on its own, and they are kept for that long.
    pub(crate) fn weights_learn(&self) -> bool {
        matches!(self.learn, Learn::Attention | Learn::Everything)
    }

    /// The longest sequence, `T + N`.
    pub(crate) fn longest(&self) -> usize {
        self.shape.tokens() + self.prepended
    }

    /// Samples of one chunk.
    pub(crate) fn chunk(&self) -> usize {
        let tokens = if self.weights_learn() || self.learn == Learn::Nothing { CHUNK_TOKENS } else { FROZEN_TOKENS };
        (tokens / self.longest()).max(1)
    }

    /// The lanes' samples.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = Range<usize>> {
        let count = self.batch.min(MAX_LANES);
        let batch = self.batch;
        (0..count).map(move |lane| lane * batch / count..(lane + 1) * batch / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { image_size: 16, channels: 1, patch: 2, hidden: 64, depth: 4, heads: 4, label_rows: 1, out_channels: 2 };

    #[test]
    fn lanes_cover_the_batch_in_order() {
        for batch in [1, 3, 16, 17, 64, 100] {
            let plan = Plan::sampling(SHAPE, batch, 0);
            let lanes: Vec<Range<usize>> = plan.lanes().collect();
            assert!(lanes.len() <= MAX_LANES && lanes.iter().all(|lane| !lane.is_empty()));
            assert_eq!(lanes.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..batch).collect::<Vec<_>>());
        }
    }
}
