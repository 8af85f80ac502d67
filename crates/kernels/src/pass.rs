//! What a pass over a batch reads, and the pieces in which it is done.

use crate::attention::Heads;
use crate::condition::Condition;
use crate::contribution::Contribution;
use crate::parameters::Parameters;
use crate::shape::Shape;
use crate::transposed::Transposed;

/// What all chunks of a pass read.
pub(crate) struct Pass<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) parameters: &'a Parameters,
    /// The same weights for the forward products.
    pub(crate) transposed: &'a Transposed,
    pub(crate) condition: &'a Condition,
    /// Each sample's row of the condition.
    pub(crate) rows: &'a [u32],
    pub(crate) contributions: &'a [Contribution<'a>],
    /// Tokens of a sequence inside each block, and after the last.
    pub(crate) tokens: Vec<usize>,
}

/// Neighbouring samples that are worked on together.
#[derive(Clone, Copy)]
pub(crate) struct Chunk {
    /// First sample's index in the batch.
    pub(crate) start: usize,
    /// Its index in the activations' buffers: that in the lane where the lane has them, else 0.
    pub(crate) offset: usize,
    /// Samples.
    pub(crate) count: usize,
}

impl Chunk {
    /// The chunk's part of a buffer with `each` values per sample.
    pub(crate) fn of<'b, T>(&self, buffer: &'b [T], each: usize) -> &'b [T] {
        &buffer[self.offset * each..(self.offset + self.count) * each]
    }

    pub(crate) fn of_mut<'b, T>(&self, buffer: &'b mut [T], each: usize) -> &'b mut [T] {
        &mut buffer[self.offset * each..(self.offset + self.count) * each]
    }
}

impl Pass<'_> {
    /// Tokens of a sequence before it enters block `level`.
    pub(crate) fn tokens_before(&self, level: usize) -> usize {
        if level == 0 { self.shape.tokens() } else { self.tokens[level - 1] }
    }

    pub(crate) fn heads(&self, level: usize) -> Heads {
        Heads { tokens: self.tokens[level], heads: self.shape.heads, width: self.shape.head_width() }
    }
}
