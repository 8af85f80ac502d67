//! Inception v3 as the Frechet Inception Distance has it: the TensorFlow network of 2015 with its 1008 outputs (Szegedy
//! et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016; Heusel et al. 2017), under the tensor
//! names of pytorch-fid.

mod formula;
#[cfg(test)]
mod goldens;
mod mixed;
mod pixels;
mod unit;

use candle_core::{D, Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder, linear};

use crate::builder::{builder, tensors_of};
use crate::layers::{Directly, Evaluator, FeatureMap, Pooling, PoolingKind, Window};
use crate::weights::Tensors;
use mixed::Mixed;
use unit::Unit;

pub use formula::formula_weights;
pub use pixels::{SIDE, normalised, resized};

/// Channels of `mixed_6/conv` that the spatial features keep.
pub const SPATIAL_CHANNELS: usize = 7;

/// Numbers of an image's pooled features, [`Features::pool2048`].
pub const POOLED: usize = 2048;

/// Numbers of an image's [`Features::spatial`], at 17 x 17 places where it has [`SIDE`].
pub const SPATIAL: usize = SPATIAL_CHANNELS * 17 * 17;

/// The network.
#[derive(Debug)]
pub struct Inception {
    /// Up to the first pooling.
    stem: [Unit; 3],
    /// From there to the second.
    widening: [Unit; 2],
    pooling: Pooling,
    /// `Mixed_5b` to `Mixed_6d`.
    to_spatial: Vec<Mixed>,
    /// `Mixed_6e`.
    to_768: Mixed,
    /// `Mixed_7a` to `Mixed_7c`.
    to_2048: Vec<Mixed>,
    head: Linear,
}

/// What the network says of a batch of `B` images.
#[derive(Clone, Debug)]
pub struct Features {
    /// Mean over the places behind the first pooling, `[B, 64]`.
    pub pool64: Tensor,
    /// Behind the second pooling, `[B, 192]`.
    pub pool192: Tensor,
    /// Behind `Mixed_6e`, `[B, 768]`.
    pub pool768: Tensor,
    /// Behind `Mixed_7c`, `[B, 2048]`: what the FID compares.
    pub pool2048: Tensor,
    /// The first 7 channels of `Mixed_6d.branch1x1` at every place, `[B, places * 7]`: what the sFID compares
    /// (2023 numbers for an image of 299 x 299).
    pub spatial: Tensor,
}

/// The maps that features are taken of.
#[derive(Clone, Debug)]
pub struct Seen<M> {
    /// Behind the first pooling, 64 channels.
    pub pooled: M,
    /// Behind the second pooling, 192 channels.
    pub pooled_again: M,
    /// Behind `Mixed_6d`: the first [`SPATIAL_CHANNELS`] of its channels at every place are the spatial features.
    pub spatial: M,
    /// Behind `Mixed_6e`, 768 channels.
    pub mixed_6: M,
    /// Behind `Mixed_7c`, [`POOLED`] channels, whose means over the places are the pooled features.
    pub mixed_7: M,
}

impl Inception {
    /// Builds the network on `tensors`; the normalisations are folded into the convolutions, which are copies therefore.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(tensors: &Tensors) -> Result<Self> {
        Self::read(&builder(tensors)?)
    }

    fn read(vb: &VarBuilder) -> Result<Self> {
        let unit = |name: &str, inputs, out, window| Unit::new(inputs, out, window, &vb.pp(name));
        Ok(Self {
            stem: [
                unit("Conv2d_1a_3x3", 3, 32, Window::valid(3, 2))?,
                unit("Conv2d_2a_3x3", 32, 32, Window::valid(3, 1))?,
                unit("Conv2d_2b_3x3", 32, 64, Window::same(3, 3))?,
            ],
            widening: [
                unit("Conv2d_3b_1x1", 64, 80, Window::same(1, 1))?,
                unit("Conv2d_4a_3x3", 80, 192, Window::valid(3, 1))?,
            ],
            pooling: Pooling::new(PoolingKind::Max, Window::valid(3, 2)),
            to_spatial: vec![
                Mixed::a(192, 32, &vb.pp("Mixed_5b"))?,
                Mixed::a(256, 64, &vb.pp("Mixed_5c"))?,
                Mixed::a(288, 64, &vb.pp("Mixed_5d"))?,
                Mixed::b(288, &vb.pp("Mixed_6a"))?,
                Mixed::c(768, 128, &vb.pp("Mixed_6b"))?,
                Mixed::c(768, 160, &vb.pp("Mixed_6c"))?,
                Mixed::c(768, 160, &vb.pp("Mixed_6d"))?,
            ],
            to_768: Mixed::c(768, 192, &vb.pp("Mixed_6e"))?,
            to_2048: vec![
                Mixed::d(768, &vb.pp("Mixed_7a"))?,
                Mixed::e(1280, PoolingKind::Mean, &vb.pp("Mixed_7b"))?,
                Mixed::e(2048, PoolingKind::Max, &vb.pp("Mixed_7c"))?,
            ],
            head: linear(2048, 1008, vb.pp("fc"))?,
        })
    }

    /// Features of images in [-1, 1], as [`normalised`] makes them.
    ///
    /// # Shapes
    /// `x` `[B, 3, height, width]`, at least 75 x 75; the published network sees 299 x 299.
    ///
    /// # Errors
    /// The images have not three channels or are too small.
    pub fn features(&self, x: &Tensor) -> Result<Features> {
        let seen = self.seen(&mut Directly, &FeatureMap::from_image(x)?)?;
        let mean = |map: FeatureMap| map.values.mean(1);
        Ok(Features {
            pool64: mean(seen.pooled)?,
            pool192: mean(seen.pooled_again)?,
            pool768: mean(seen.mixed_6)?,
            pool2048: mean(seen.mixed_7)?,
            spatial: seen.spatial.values.narrow(D::Minus1, 0, SPATIAL_CHANNELS)?.flatten_from(1)?,
        })
    }

    /// What an evaluator makes of a map of images.
    ///
    /// # Errors
    /// Those of the evaluator.
    pub fn seen<E: Evaluator>(&self, e: &mut E, images: &E::Map) -> Result<Seen<E::Map>> {
        let mut x = images.clone();
        for unit in &self.stem {
            x = unit.forward(e, &x)?;
        }
        let pooled = e.pool(&self.pooling, &x)?;
        x = pooled.clone();
        for unit in &self.widening {
            x = unit.forward(e, &x)?;
        }
        let pooled_again = e.pool(&self.pooling, &x)?;
        x = pooled_again.clone();
        for block in &self.to_spatial {
            x = block.forward(e, &x)?;
        }
        let spatial = x;
        let mixed_6 = self.to_768.forward(e, &spatial)?;
        x = mixed_6.clone();
        for block in &self.to_2048 {
            x = block.forward(e, &x)?;
        }
        Ok(Seen { pooled, pooled_again, spatial, mixed_6, mixed_7: x })
    }

    /// `W f + b`, the logits of the 1008 outputs.
    ///
    /// # Shapes
    /// `pool2048` `[B, 2048]` to `[B, 1008]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn logits(&self, pool2048: &Tensor) -> Result<Tensor> {
        self.head.forward(pool2048)
    }

    /// `W f`: the logits whose softmax the Inception Score is made of (the ADM evaluator leaves the bias out).
    ///
    /// # Shapes
    /// As [`Self::logits`].
    ///
    /// # Errors
    /// Those of candle.
    pub fn logits_without_bias(&self, pool2048: &Tensor) -> Result<Tensor> {
        Linear::new(self.head.weight().clone(), None).forward(pool2048)
    }
}

/// Names and shapes of the 472 tensors (a published file also counts batches, `*.num_batches_tracked`).
///
/// # Errors
/// Those of candle.
pub fn named_shapes() -> Result<Vec<(String, Vec<usize>)>> {
    tensors_of(Inception::read)
}
