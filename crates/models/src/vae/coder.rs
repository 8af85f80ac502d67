//! The two halves of the autoencoder.

use candle_core::Result;
use candle_nn::VarBuilder;

use super::VaeConfig;
use crate::layers::{Attention, AttentionShape, Convolution, Evaluator, GroupNorm, Residual, ResidualShape, Window};

/// Epsilon of all normalisations.
const EPS: f64 = 1e-6;

const THREE: Window = Window::same(3, 3);

/// Halves the side; the border of zeros is below and to the right only.
const HALVING: Window = Window { kernel: [3, 3], stride: 2, before: [0, 0], after: [1, 1] };

/// Residual blocks at one resolution and the convolution that changes it.
#[derive(Debug)]
struct Stage {
    blocks: Vec<Residual>,
    resample: Option<Convolution>,
}

impl Stage {
    /// Reads `resnets.N` and, if the resolution changes, `resample`.
    fn new(
        config: &VaeConfig,
        [inputs, out, depth]: [usize; 3],
        resample: Option<(&str, Window)>,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let block = |i: usize| {
            let inputs = if i == 0 { inputs } else { out };
            Residual::new(inputs, out, residual(config), &vb.pp(format!("resnets.{i}")))
        };
        Ok(Self {
            blocks: (0..depth).map(block).collect::<Result<_>>()?,
            resample: resample.map(|(name, window)| Convolution::new(out, out, window, &vb.pp(name))).transpose()?,
        })
    }

    fn blocks<E: Evaluator>(&self, e: &mut E, x: E::Map) -> Result<E::Map> {
        self.blocks.iter().try_fold(x, |x, block| block.evaluated(e, &x, Ok))
    }
}

fn residual(config: &VaeConfig) -> ResidualShape {
    ResidualShape { groups: config.groups, eps: EPS, time: None }
}

/// A residual block, attention over all places with one head, another residual block.
#[derive(Debug)]
struct Middle {
    blocks: [Residual; 2],
    norm: GroupNorm,
    attention: Attention,
}

impl Middle {
    fn new(config: &VaeConfig, width: usize, vb: &VarBuilder) -> Result<Self> {
        let block = |i: usize| Residual::new(width, width, residual(config), &vb.pp(format!("resnets.{i}")));
        let names = ["to_q", "to_k", "to_v", "to_out.0"];
        let shape = AttentionShape { width, context: width, heads: 1, names, biased: true };
        let vb = vb.pp("attentions.0");
        Ok(Self {
            blocks: [block(0)?, block(1)?],
            norm: GroupNorm::new(width, config.groups, EPS, &vb.pp("group_norm"))?,
            attention: Attention::new(shape, &vb)?,
        })
    }

    fn forward<E: Evaluator>(&self, e: &mut E, x: &E::Map) -> Result<E::Map> {
        let x = self.blocks[0].evaluated(e, x, Ok)?;
        let normal = e.normalise(&self.norm, &x)?;
        let attended = e.attend(&self.attention, &normal)?;
        let x = e.add(&x, &attended)?;
        self.blocks[1].evaluated(e, &x, Ok)
    }
}

/// The last layers of both halves: `conv(silu(norm(x)))`.
#[derive(Debug)]
struct Last {
    norm: GroupNorm,
    convolution: Convolution,
}

impl Last {
    fn new(config: &VaeConfig, inputs: usize, out: usize, vb: &VarBuilder) -> Result<Self> {
        let norm = GroupNorm::new(inputs, config.groups, EPS, &vb.pp("conv_norm_out"))?;
        Ok(Self { norm, convolution: Convolution::new(inputs, out, THREE, &vb.pp("conv_out"))? })
    }

    fn forward<E: Evaluator>(&self, e: &mut E, x: &E::Map) -> Result<E::Map> {
        let x = e.normalise_silu(&self.norm, x)?;
        e.convolve(&self.convolution, &x)
    }
}

/// Image to the parameters of a latent.
#[derive(Debug)]
pub(super) struct Encoder {
    first: Convolution,
    stages: Vec<Stage>,
    middle: Middle,
    last: Last,
}

impl Encoder {
    pub(super) fn new(config: &VaeConfig, vb: &VarBuilder) -> Result<Self> {
        let (first, last) = ends(config)?;
        let mut inputs = first;
        let mut stages = Vec::with_capacity(config.widths.len());
        for (i, &out) in config.widths.iter().enumerate() {
            let halving = (i + 1 < config.widths.len()).then_some(("downsamplers.0.conv", HALVING));
            let vb = vb.pp(format!("down_blocks.{i}"));
            stages.push(Stage::new(config, [inputs, out, config.depth], halving, &vb)?);
            inputs = out;
        }
        Ok(Self {
            first: Convolution::new(config.image_channels, first, THREE, &vb.pp("conv_in"))?,
            stages,
            middle: Middle::new(config, last, &vb.pp("mid_block"))?,
            last: Last::new(config, last, 2 * config.latent_channels, vb)?,
        })
    }

    pub(super) fn forward<E: Evaluator>(&self, e: &mut E, x: &E::Map) -> Result<E::Map> {
        let mut x = e.convolve(&self.first, x)?;
        for stage in &self.stages {
            x = stage.blocks(e, x)?;
            if let Some(halving) = &stage.resample {
                x = e.convolve(halving, &x)?;
            }
        }
        let x = self.middle.forward(e, &x)?;
        self.last.forward(e, &x)
    }
}

/// Latent to image.
#[derive(Debug)]
pub(super) struct Decoder {
    first: Convolution,
    middle: Middle,
    stages: Vec<Stage>,
    last: Last,
}

impl Decoder {
    pub(super) fn new(config: &VaeConfig, vb: &VarBuilder) -> Result<Self> {
        let (first, last) = ends(config)?;
        let mut inputs = last;
        let mut stages = Vec::with_capacity(config.widths.len());
        for (i, &out) in config.widths.iter().rev().enumerate() {
            let doubling = (i + 1 < config.widths.len()).then_some(("upsamplers.0.conv", THREE));
            let vb = vb.pp(format!("up_blocks.{i}"));
            stages.push(Stage::new(config, [inputs, out, config.depth + 1], doubling, &vb)?);
            inputs = out;
        }
        Ok(Self {
            first: Convolution::new(config.latent_channels, last, THREE, &vb.pp("conv_in"))?,
            middle: Middle::new(config, last, &vb.pp("mid_block"))?,
            stages,
            last: Last::new(config, first, config.image_channels, vb)?,
        })
    }

    pub(super) fn forward<E: Evaluator>(&self, e: &mut E, latent: &E::Map) -> Result<E::Map> {
        let mut x = self.middle(e, latent)?;
        for stage in &self.stages {
            x = stage.blocks(e, x)?;
            if let Some(doubling) = &stage.resample {
                x = e.double(&x)?;
                x = e.convolve(doubling, &x)?;
            }
        }
        self.last.forward(e, &x)
    }

    /// Up to and with the middle block.
    pub(super) fn middle<E: Evaluator>(&self, e: &mut E, latent: &E::Map) -> Result<E::Map> {
        let x = e.convolve(&self.first, latent)?;
        self.middle.forward(e, &x)
    }
}

/// The first and the last of the widths.
fn ends(config: &VaeConfig) -> Result<(usize, usize)> {
    let ends = config.widths.first().copied().zip(config.widths.last().copied());
    ends.ok_or_else(|| candle_core::Error::Msg("an autoencoder needs at least one width".to_owned()))
}
