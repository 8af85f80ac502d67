//! The losses that keep a gate from using few prompts only (paper, Eq. 11-13; Shazeer et al. 2017).

use candle_core::{D, Result, Tensor};
use manifest::method::{Balance, ImportanceFormula, LoadFormula};

use crate::gate::Ranking;

/// Balancing losses of one batch, each a scalar tensor.
#[derive(Clone, Debug)]
pub struct BalanceLosses {
    /// Importance loss, before its coefficient.
    pub importance: Tensor,
    /// Load loss, before its coefficient.
    pub load: Tensor,
    /// `importance coefficient * importance + load coefficient * load`.
    pub total: Tensor,
}

impl BalanceLosses {
    /// The losses of `weights` `[L, B, N]` with the smooth load `[L, N]` of the same gate, where it has one.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(balance: &Balance, weights: &Tensor, smooth_load: Option<&Tensor>) -> Result<Self> {
        let importance = importance(balance.importance_formula, weights)?;
        let load = load(balance.load_formula, weights, smooth_load)?;
        let total = ((&importance * balance.importance)? + (&load * balance.load)?)?;
        Ok(Self { importance, load, total })
    }
}

/// Importance loss: the squared coefficient of variation of the weights summed over blocks.
///
/// # Shapes
/// `weights` `[L, B, N]`; the result is a scalar.
///
/// # Errors
/// Those of candle.
pub fn importance(formula: ImportanceFormula, weights: &Tensor) -> Result<Tensor> {
    let sums = weights.sum(0)?; // [B, N]
    match formula {
        ImportanceFormula::Paper => {
            let mean = sums.mean_keepdim(D::Minus1)?;
            let variance = sums.broadcast_sub(&mean)?.sqr()?.mean_keepdim(D::Minus1)?;
            (variance / (mean.sqr()? + 1e-5)?)?.mean_all()
        }
        // The released code takes a batch of one for a single expert.
        ImportanceFormula::OfficialCode if sums.dim(0)? == 1 => zero(weights),
        ImportanceFormula::OfficialCode => {
            let mean = sums.mean_all()?;
            let variance = (sums.broadcast_sub(&mean)?.sqr()?.sum_all()? / (sums.elem_count() - 1) as f64)?;
            variance / (mean.sqr()? + 1e-10)?
        }
    }
}

/// Load loss.
///
/// # Shapes
/// `weights` `[L, B, N]`, `smooth_load` `[L, N]`; the result is a scalar.
///
/// # Errors
/// Those of candle.
pub fn load(formula: LoadFormula, weights: &Tensor, smooth_load: Option<&Tensor>) -> Result<Tensor> {
    match (formula, smooth_load) {
        (LoadFormula::Smooth, Some(load)) => load.sum(D::Minus1)?.mean_all(),
        (LoadFormula::Smooth, None) => zero(weights),
        (LoadFormula::Count, _) => {
            let below = weights.detach().lt(&weights.zeros_like()?)?.to_dtype(weights.dtype())?;
            below.sum(D::Minus1)?.mean_all()
        }
    }
}

fn zero(like: &Tensor) -> Result<Tensor> {
    Tensor::zeros((), like.dtype(), like.device())
}

/// Probability that a prompt would be among the first `k < N` if its own noise were drawn anew: `Phi((clean - h) / std)`,
/// `h` the highest noisy logit that it has to beat.
///
/// # Shapes
/// `clean` and `noisy` `[L, B, N]`, `deviation` `[B, N]`; the result is `[L, B, N]`.
///
/// # Errors
/// Those of candle.
pub(crate) fn probability_of_being_kept(
    clean: &Tensor,
    noisy: &Tensor,
    deviation: &Tensor,
    k: usize,
) -> Result<Tensor> {
    let ranking = Ranking::of(noisy)?;
    let noisy = noisy.contiguous()?;
    let last_kept = noisy.gather(&ranking.prompt_at(k - 1)?, D::Minus1)?; // [L, B, 1]
    let first_left = noisy.gather(&ranking.prompt_at(k)?, D::Minus1)?;
    let beaten = |hurdle: &Tensor| normal_cdf(&clean.broadcast_sub(hurdle)?.broadcast_div(deviation)?);
    let kept = noisy.broadcast_gt(&first_left)?;
    kept.where_cond(&beaten(&first_left)?, &beaten(&last_kept)?)
}

/// `Phi(x) = (1 + erf(x / sqrt 2)) / 2`.
fn normal_cdf(x: &Tensor) -> Result<Tensor> {
    (((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?) * 0.5
}
