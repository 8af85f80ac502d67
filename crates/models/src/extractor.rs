//! A small feature CNN: strided 3x3 convolutions with SiLU, pooled mean and deviation, one linear head.

use candle_core::{D, Module, Result, Tensor};
use candle_nn::{Linear, linear};
use manifest::extractor::ExtractorConfig;
use random::{Draws, Stream};

use crate::builder::builder;
use crate::dit::xavier_uniform;
use crate::layers::{Convolution, FeatureMap, Window};
use crate::weights::{self, Tensors, Weights};

/// Side of a kernel.
const KERNEL: usize = 3;

/// Keeps the square root of the pooled variance differentiable.
const VARIANCE_FLOOR: f64 = 1e-5;

/// The network. Its features are what the metric `fd_<name>` compares.
#[derive(Debug)]
pub struct Extractor {
    /// Channels and side of its images.
    image: (usize, usize),
    convolutions: Vec<Convolution>,
    head: Linear,
}

impl Extractor {
    /// Builds the network on `tensors`, which it shares; the head has `outputs` outputs.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(config: &ExtractorConfig, outputs: usize, tensors: &Tensors) -> Result<Self> {
        let vb = builder(tensors)?;
        let mut convolutions = Vec::with_capacity(config.widths.len());
        let mut inputs = config.channels;
        for (i, &out) in config.widths.iter().enumerate() {
            convolutions.push(Convolution::new(inputs, out, window(i), &vb.pp(format!("convolutions.{i}")))?);
            inputs = out;
        }
        let image = (config.channels, config.image_size);
        Ok(Self { image, convolutions, head: linear(feature_count(config), outputs, vb.pp("head"))? })
    }

    /// Mean and standard deviation of each channel of the last convolution over the places.
    ///
    /// # Shapes
    /// `x` `[B, C, side, side]` in [-1, 1] to `[B, F]`, `F` of [`feature_count`].
    ///
    /// # Errors
    /// The images are not of the configured size.
    pub fn features(&self, x: &Tensor) -> Result<Tensor> {
        let (_, c, height, width) = x.dims4()?;
        let (channels, side) = self.image;
        if (c, height, width) != (channels, side, side) {
            candle_core::bail!("images are [{c}, {height}, {width}], the extractor takes [{channels}, {side}, {side}]");
        }
        let mut x = FeatureMap::from_image(x)?;
        for convolution in &self.convolutions {
            x = convolution.forward(&x)?;
            x.values = x.values.silu()?;
        }
        let mean = x.values.mean_keepdim(1)?;
        let variance = x.values.broadcast_sub(&mean)?.sqr()?.mean(1)?;
        Tensor::cat(&[mean.squeeze(1)?, (variance + VARIANCE_FLOOR)?.sqrt()?], D::Minus1)
    }

    /// Numbers of an image's features, `F`.
    pub fn width(&self) -> usize {
        self.head.weight().dims()[1]
    }

    /// What the features are trained for: factors or logits of labels.
    ///
    /// # Shapes
    /// `[B, F]` to `[B, outputs]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn head(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(features)
    }
}

/// Number of features `F`: two per channel of the last convolution.
pub fn feature_count(config: &ExtractorConfig) -> usize {
    2 * config.widths.last().copied().unwrap_or(config.channels)
}

/// All but the first convolution halve the side.
fn window(layer: usize) -> Window {
    Window::same(KERNEL, KERNEL).every(if layer == 0 { 1 } else { 2 })
}

/// Names and shapes of all tensors.
pub fn named_shapes(config: &ExtractorConfig, outputs: usize) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let mut inputs = config.channels;
    for (i, &out) in config.widths.iter().enumerate() {
        shapes.push((format!("convolutions.{i}.weight"), vec![out, inputs, KERNEL, KERNEL]));
        shapes.push((format!("convolutions.{i}.bias"), vec![out]));
        inputs = out;
    }
    shapes.push(("head.weight".to_owned(), vec![outputs, feature_count(config)]));
    shapes.push(("head.bias".to_owned(), vec![outputs]));
    shapes
}

/// Initial values: weights Xavier-uniform over their fan-in and outputs, biases zero. Tensor number `n` takes its draws
/// from step `n` of [`Stream::Init`].
pub fn initial_weights(config: &ExtractorConfig, outputs: usize, seed: u64) -> Weights {
    let tensor = |(number, (name, shape)): (usize, (String, Vec<usize>))| {
        let len: usize = shape.iter().product();
        let values = if shape.len() == 1 {
            vec![0.0; len]
        } else {
            xavier_uniform(shape[0], len / shape[0], Draws::new(seed, Stream::Init, number as u64))
        };
        (name, weights::Tensor { shape, values })
    };
    named_shapes(config, outputs).into_iter().enumerate().map(tensor).collect()
}
