//! The blocks of the UNet: all layers of one resolution on the way down, in the middle, or on the way up.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::UnetConfig;
use super::transformer::Transformer;
use crate::layers::{Convolution, FeatureMap, Residual, ResidualShape, Window};

/// Epsilon of the normalisations outside of the transformers.
pub(super) const EPS: f64 = 1e-5;

/// What every block needs to know besides the features.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    /// Embedding of the timestep, `[B, its width]`.
    pub(super) t: &'a Tensor,
    /// What is attended to, `[B, keys, its width]`.
    pub(super) context: &'a Tensor,
}

/// A residual block and, at resolutions that attend, a transformer.
#[derive(Debug)]
struct Layer {
    residual: Residual,
    transformer: Option<Transformer>,
}

impl Layer {
    /// Reads `resnets.N` and `attentions.N`.
    fn new(
        config: &UnetConfig,
        number: usize,
        [inputs, out]: [usize; 2],
        attending: bool,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let transformer = || Transformer::new(config, out, &vb.pp(format!("attentions.{number}")));
        Ok(Self {
            residual: residual(config, number, [inputs, out], vb)?,
            transformer: attending.then(transformer).transpose()?,
        })
    }

    fn forward(&self, x: &FeatureMap, around: Surroundings) -> Result<FeatureMap> {
        let x = self.residual.forward(x, Some(around.t))?;
        self.transformer.as_ref().map_or_else(|| Ok(x.clone()), |layer| layer.forward(&x, around.context))
    }
}

fn residual(config: &UnetConfig, number: usize, [inputs, out]: [usize; 2], vb: &VarBuilder) -> Result<Residual> {
    let shape = ResidualShape { groups: config.groups, eps: EPS, time: Some(config.time_width()) };
    Residual::new(inputs, out, shape, &vb.pp(format!("resnets.{number}")))
}

/// A resolution on the way down.
#[derive(Debug)]
pub(super) struct Down {
    layers: Vec<Layer>,
    halving: Option<Convolution>,
}

impl Down {
    pub(super) fn new(config: &UnetConfig, level: usize, vb: &VarBuilder) -> Result<Self> {
        let (before, out) = (config.widths[level.saturating_sub(1)], config.widths[level]);
        let layer = |i: usize| {
            let inputs = if i == 0 { before } else { out };
            Layer::new(config, i, [inputs, out], config.attending[level], vb)
        };
        let halving = || Convolution::new(out, out, Window::same(3, 3).every(2), &vb.pp("downsamplers.0.conv"));
        Ok(Self {
            layers: (0..config.depth).map(layer).collect::<Result<_>>()?,
            halving: (level + 1 < config.widths.len()).then(halving).transpose()?,
        })
    }

    /// What comes out; every intermediate result is left on `skips` for the way up.
    pub(super) fn forward(
        &self,
        mut x: FeatureMap,
        around: Surroundings,
        skips: &mut Vec<FeatureMap>,
    ) -> Result<FeatureMap> {
        for layer in &self.layers {
            x = layer.forward(&x, around)?;
            skips.push(x.clone());
        }
        if let Some(halving) = &self.halving {
            x = halving.forward(&x)?;
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// The lowest resolution, between the ways: a layer that attends and one more residual block.
#[derive(Debug)]
pub(super) struct Middle {
    layer: Layer,
    last: Residual,
}

impl Middle {
    pub(super) fn new(config: &UnetConfig, width: usize, vb: &VarBuilder) -> Result<Self> {
        let layer = Layer::new(config, 0, [width, width], true, vb)?;
        Ok(Self { layer, last: residual(config, 1, [width, width], vb)? })
    }

    pub(super) fn forward(&self, x: &FeatureMap, around: Surroundings) -> Result<FeatureMap> {
        self.last.forward(&self.layer.forward(x, around)?, Some(around.t))
    }
}

/// A resolution on the way up.
#[derive(Debug)]
pub(super) struct Up {
    layers: Vec<Layer>,
    after_doubling: Option<Convolution>,
}

impl Up {
    /// `level` counts from the top, as on the way down.
    pub(super) fn new(config: &UnetConfig, level: usize, vb: &VarBuilder) -> Result<Self> {
        let widths = &config.widths;
        let (above, out) = (widths[level.saturating_sub(1)], widths[level]);
        let below = widths[(level + 1).min(widths.len() - 1)];
        let layer = |i: usize| {
            let from_below = if i == 0 { below } else { out };
            let skipped = if i == config.depth { above } else { out };
            Layer::new(config, i, [from_below + skipped, out], config.attending[level], vb)
        };
        let after_doubling = || Convolution::new(out, out, Window::same(3, 3), &vb.pp("upsamplers.0.conv"));
        Ok(Self {
            layers: (0..=config.depth).map(layer).collect::<Result<_>>()?,
            after_doubling: (level > 0).then(after_doubling).transpose()?,
        })
    }

    /// What comes out; takes from `skips` what the way down has left there, last first.
    pub(super) fn forward(
        &self,
        mut x: FeatureMap,
        around: Surroundings,
        skips: &mut Vec<FeatureMap>,
    ) -> Result<FeatureMap> {
        for layer in &self.layers {
            let Some(skip) = skips.pop() else { candle_core::bail!("the way up is longer than the way down") };
            x = layer.forward(&x.beside(&skip)?, around)?;
        }
        match &self.after_doubling {
            Some(convolution) => convolution.forward(&x.doubled()?),
            None => Ok(x),
        }
    }
}
