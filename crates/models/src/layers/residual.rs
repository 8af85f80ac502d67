//! The residual block of latent diffusion models, in autoencoder and denoiser alike.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;

use super::{Convolution, Directly, Evaluator, FeatureMap, GroupNorm, Linear, Window};

/// `shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + linear(silu(t)))))`, the shortcut a 1x1 convolution where the
/// number of channels changes (Rombach et al. 2022; the order of BigGAN's blocks).
#[derive(Debug)]
pub struct Residual {
    norms: [GroupNorm; 2],
    convolutions: [Convolution; 2],
    time: Option<Linear>,
    shortcut: Option<Convolution>,
}

/// What all residual blocks of a network have in common.
#[derive(Clone, Copy, Debug)]
pub struct ResidualShape {
    /// Groups of the normalisations.
    pub groups: usize,
    /// Their epsilon.
    pub eps: f64,
    /// Width of the timestep's embedding, where there is one.
    pub time: Option<usize>,
}

impl Residual {
    /// Reads `norm1`, `conv1`, `time_emb_proj` (with a timestep), `norm2`, `conv2` and `conv_shortcut` (if `inputs` is
    /// not `out`).
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(inputs: usize, out: usize, shape: ResidualShape, vb: &VarBuilder) -> Result<Self> {
        let three = Window::same(3, 3);
        let norm = |name: &str, channels| GroupNorm::new(channels, shape.groups, shape.eps, &vb.pp(name));
        let shortcut = || Convolution::new(inputs, out, Window::same(1, 1), &vb.pp("conv_shortcut"));
        Ok(Self {
            norms: [norm("norm1", inputs)?, norm("norm2", out)?],
            convolutions: [
                Convolution::new(inputs, out, three, &vb.pp("conv1"))?,
                Convolution::new(out, out, three, &vb.pp("conv2"))?,
            ],
            time: shape.time.map(|width| Linear::read(width, out, true, &vb.pp("time_emb_proj"))).transpose()?,
            shortcut: (inputs != out).then(shortcut).transpose()?,
        })
    }

    /// # Shapes
    /// `x` `[B, places, inputs]`, `t` `[B, its width]` (looked at only by a block with a timestep) to
    /// `[B, places, out]`.
    ///
    /// # Errors
    /// Shapes that do not fit, or a timestep is missing.
    pub fn forward(&self, x: &FeatureMap, t: Option<&Tensor>) -> Result<FeatureMap> {
        self.evaluated(&mut Directly, x, |y| match (&self.time, t) {
            (None, _) => Ok(y),
            (Some(time), Some(t)) => {
                let values = y.values.broadcast_add(&time.forward(&t.silu()?)?.unsqueeze(1)?)?;
                Ok(y.with(values))
            }
            (Some(_), None) => candle_core::bail!("a residual block needs a timestep"),
        })
    }

    /// The same by an evaluator; `between` the two halves comes what a timestep adds.
    ///
    /// # Errors
    /// Those of the evaluator, and of `between`.
    pub fn evaluated<E: Evaluator>(
        &self,
        evaluator: &mut E,
        x: &E::Map,
        between: impl FnOnce(E::Map) -> Result<E::Map>,
    ) -> Result<E::Map> {
        let y = evaluator.normalise_silu(&self.norms[0], x)?;
        let y = between(evaluator.convolve(&self.convolutions[0], &y)?)?;
        let y = evaluator.normalise_silu(&self.norms[1], &y)?;
        let y = evaluator.convolve(&self.convolutions[1], &y)?;
        let straight = match &self.shortcut {
            Some(shortcut) => evaluator.convolve(shortcut, x)?,
            None => x.clone(),
        };
        evaluator.add(&straight, &y)
    }
}
