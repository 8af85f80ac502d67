//! What the forward pass keeps for the backward pass, and the gradient on its way back.

use crate::attention::SoftmaxRow;
use crate::layernorm::RowStatistics;
use crate::plan::{Learn, Plan};

/// Activations of some samples: the input, queries/keys/values, attention output, middle of the residual stream and
/// MLP pre-activation of every block from `first` on, with the row statistics of both norms and of the softmax.
/// Blocks before `first` write where block `first` will.
pub(crate) struct Activations {
    first: usize,
    depth: usize,
    /// `[samples, tokens, D]` before each block, and after the last.
    pub(crate) x: Vec<Vec<f32>>,
    pub(crate) x_statistics: Vec<Vec<RowStatistics>>,
    pub(crate) qkv: Vec<Vec<f32>>,
    pub(crate) softmax: Vec<Vec<SoftmaxRow>>,
    pub(crate) attention: Vec<Vec<f32>>,
    pub(crate) middle: Vec<Vec<f32>>,
    pub(crate) middle_statistics: Vec<Vec<RowStatistics>>,
    pub(crate) hidden: Vec<Vec<f32>>,
    /// Outputs of `attn.proj` and `mlp.fc2` before bias and gate: only where the gates' modulation learns.
    pub(crate) branches: Option<[Vec<Vec<f32>>; 2]>,
    /// Gradient of the residual stream; empty in sampling.
    pub(crate) dx: Vec<f32>,
}

impl Activations {
    pub(crate) fn new(plan: &Plan, samples: usize) -> Self {
        let (s, first) = (&plan.shape, plan.first());
        let rows = samples * plan.longest();
        let slots = (s.depth - first).max(1);
        let wide = |width: usize, slots: usize| -> Vec<Vec<f32>> { vec![vec![0.0; rows * width]; slots] };
        let statistics = |slots: usize| vec![vec![RowStatistics::default(); rows]; slots];
        let learns = plan.learn == Learn::Everything;
        Self {
            first,
            depth: s.depth,
            x: wide(s.hidden, s.depth - first + 1),
            x_statistics: statistics(s.depth - first + 1),
            qkv: wide(3 * s.hidden, slots),
            softmax: vec![vec![SoftmaxRow::default(); rows * s.heads]; slots],
            attention: wide(s.hidden, slots),
            middle: wide(s.hidden, slots),
            middle_statistics: statistics(slots),
            hidden: wide(s.mlp(), slots),
            branches: learns.then(|| [wide(s.hidden, slots), wide(s.hidden, slots)]),
            dx: vec![0.0; if plan.learn == Learn::Nothing { 0 } else { rows * s.hidden }],
        }
    }

    /// Whether block `level` is kept for the backward pass.
    pub(crate) fn keeps(&self, level: usize) -> bool {
        level >= self.first
    }

    /// Where block `level` lies.
    pub(crate) fn slot(&self, level: usize) -> usize {
        level.max(self.first).min(self.depth.max(self.first + 1) - 1) - self.first
    }

    /// Where the input of block `level` lies; at `L`, the trunk's output.
    pub(crate) fn x_slot(&self, level: usize) -> usize {
        level.max(self.first) - self.first
    }

    /// Memory held.
    pub(crate) fn bytes(&self) -> usize {
        let floats = [&self.x, &self.qkv, &self.attention, &self.middle, &self.hidden];
        let branches = self.branches.iter().flatten();
        let floats = floats.into_iter().chain(branches).flatten().map(|slot| size_of_val(&slot[..]));
        let statistics = self.x_statistics.iter().chain(&self.middle_statistics).map(|slot| size_of_val(&slot[..]));
        let softmax = self.softmax.iter().map(|slot| size_of_val(&slot[..]));
        floats.chain(statistics).chain(softmax).sum::<usize>() + size_of_val(&self.dx[..])
    }
}
