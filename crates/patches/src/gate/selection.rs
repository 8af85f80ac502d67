//! From logits to weights: all prompts, or the highest `k` of them.

use std::fmt::Debug;

use candle_core::{D, Result, Tensor};
use manifest::gate::{KeptWeights, Selection, SelectionGradient};
use models::layers::softmax;

/// A rule that turns logits into weights.
pub(crate) trait Select: Debug + Send + Sync {
    /// `[.., B, N]` to the same shape.
    fn weights(&self, logits: &Tensor) -> Result<Tensor>;

    /// `k`, where fewer than all prompts are kept.
    fn kept(&self) -> Option<usize>;
}

pub(crate) fn build(selection: &Selection, prompts: usize) -> Box<dyn Select> {
    match selection {
        Selection::Soft(_) => Box::new(Soft),
        Selection::TopK(top) => {
            let top_k = TopK { k: top.kept(prompts).max(1), prompts };
            match (top.weights, top.gradient) {
                (KeptWeights::Softmax, _) => Box::new(SoftmaxOfKept(top_k)),
                (KeptWeights::One, SelectionGradient::None) => Box::new(OneForKept(top_k)),
                (KeptWeights::One, SelectionGradient::StraightThrough) => Box::new(StraightThrough(top_k)),
            }
        }
    }
}

/// Softmax over all prompts.
#[derive(Debug)]
struct Soft;

impl Select for Soft {
    fn weights(&self, logits: &Tensor) -> Result<Tensor> {
        softmax(logits)
    }

    fn kept(&self) -> Option<usize> {
        None
    }
}

/// `k = floor(keep N)`, at least 1.
#[derive(Clone, Copy, Debug)]
struct TopK {
    k: usize,
    prompts: usize,
}

impl TopK {
    fn kept(&self) -> Option<usize> {
        (self.k < self.prompts).then_some(self.k)
    }
}

/// Softmax over the kept logits (released code).
#[derive(Debug)]
struct SoftmaxOfKept(TopK);

impl Select for SoftmaxOfKept {
    fn weights(&self, logits: &Tensor) -> Result<Tensor> {
        let mask = Ranking::of(logits)?.mask(self.0.k)?;
        let shift = logits.max_keepdim(D::Minus1)?.detach();
        let e = (logits.broadcast_sub(&shift)?.exp()? * mask)?;
        e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
    }

    fn kept(&self) -> Option<usize> {
        self.0.kept()
    }
}

/// Weight 1 for each kept prompt (paper); nothing is learned from it.
#[derive(Debug)]
struct OneForKept(TopK);

impl Select for OneForKept {
    fn weights(&self, logits: &Tensor) -> Result<Tensor> {
        Ranking::of(logits)?.mask(self.0.k)
    }

    fn kept(&self) -> Option<usize> {
        self.0.kept()
    }
}

/// Weight 1 for each kept prompt; backwards, the softmax over all prompts stands in its place.
#[derive(Debug)]
struct StraightThrough(TopK);

impl Select for StraightThrough {
    fn weights(&self, logits: &Tensor) -> Result<Tensor> {
        let mask = Ranking::of(logits)?.mask(self.0.k)?;
        let soft = softmax(logits)?;
        // The bracket is zero in value, and carries the gradient.
        mask + (&soft - soft.detach())?
    }

    fn kept(&self) -> Option<usize> {
        self.0.kept()
    }
}

/// Prompts by falling logit, ties by rising index. Ranked on the host: the same on every device.
pub(crate) struct Ranking {
    /// `order[row * N + rank]` is the prompt of that rank.
    order: Vec<u32>,
    like: Tensor,
}

impl Ranking {
    /// Ranks the last axis of `logits`.
    pub(crate) fn of(logits: &Tensor) -> Result<Self> {
        let like = logits.detach();
        let n = like.dim(D::Minus1)?;
        let values: Vec<f64> = like.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1()?;
        let mut order = Vec::with_capacity(values.len());
        for row in values.chunks_exact(n) {
            let start = order.len();
            order.extend(0..n as u32);
            order[start..].sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
        }
        Ok(Self { order, like })
    }

    /// 1 for the first `k` of each row, 0 for the others; shaped like the logits.
    pub(crate) fn mask(&self, k: usize) -> Result<Tensor> {
        let n = self.like.dim(D::Minus1)?;
        let mut mask = vec![0_f32; self.order.len()];
        for (row, order) in mask.chunks_exact_mut(n).zip(self.order.chunks_exact(n)) {
            order[..k].iter().for_each(|&prompt| row[prompt as usize] = 1.0);
        }
        Tensor::from_vec(mask, self.like.shape(), self.like.device())?.to_dtype(self.like.dtype())
    }

    /// The prompt of a rank, `[.., B, 1]`.
    pub(crate) fn prompt_at(&self, rank: usize) -> Result<Tensor> {
        let n = self.like.dim(D::Minus1)?;
        let mut shape = self.like.dims().to_vec();
        *shape.last_mut().expect("logits have an axis") = 1;
        let prompts: Vec<u32> = self.order.iter().skip(rank).step_by(n).copied().collect();
        Tensor::from_vec(prompts, shape, self.like.device())
    }
}
