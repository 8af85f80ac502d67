//! What a network of feature maps is run by: the order of its layers is written once, whoever computes them.

use candle_core::Result;

use super::{Attention, Convolution, FeatureMap, GroupNorm};

/// Does what layers say, at once or later.
pub trait Evaluator {
    /// A feature map, or what stands for one.
    type Map: Clone;

    /// A convolution.
    ///
    /// # Errors
    /// The map does not fit the layer.
    fn convolve(&mut self, layer: &Convolution, x: &Self::Map) -> Result<Self::Map>;

    /// A normalisation of groups.
    ///
    /// # Errors
    /// The map does not fit the layer.
    fn normalise(&mut self, layer: &GroupNorm, x: &Self::Map) -> Result<Self::Map>;

    /// `silu` of such a normalisation.
    ///
    /// # Errors
    /// The map does not fit the layer.
    fn normalise_silu(&mut self, layer: &GroupNorm, x: &Self::Map) -> Result<Self::Map>;

    /// Attention of all places to each other.
    ///
    /// # Errors
    /// The map does not fit the layer.
    fn attend(&mut self, layer: &Attention, x: &Self::Map) -> Result<Self::Map>;

    /// The sum of two maps.
    ///
    /// # Errors
    /// They are of different sizes.
    fn add(&mut self, a: &Self::Map, b: &Self::Map) -> Result<Self::Map>;

    /// The map with every place a square of four.
    ///
    /// # Errors
    /// Those of the evaluator.
    fn double(&mut self, x: &Self::Map) -> Result<Self::Map>;
}

/// Candle, at once.
#[derive(Clone, Copy, Debug)]
pub struct Directly;

impl Evaluator for Directly {
    type Map = FeatureMap;

    fn convolve(&mut self, layer: &Convolution, x: &FeatureMap) -> Result<FeatureMap> {
        layer.forward(x)
    }

    fn normalise(&mut self, layer: &GroupNorm, x: &FeatureMap) -> Result<FeatureMap> {
        layer.forward(x)
    }

    fn normalise_silu(&mut self, layer: &GroupNorm, x: &FeatureMap) -> Result<FeatureMap> {
        let normal = layer.forward(x)?;
        Ok(normal.with(normal.values.silu()?))
    }

    fn attend(&mut self, layer: &Attention, x: &FeatureMap) -> Result<FeatureMap> {
        Ok(x.with(layer.forward(&x.values, &x.values, None)?))
    }

    fn add(&mut self, a: &FeatureMap, b: &FeatureMap) -> Result<FeatureMap> {
        Ok(a.with((&a.values + &b.values)?))
    }

    fn double(&mut self, x: &FeatureMap) -> Result<FeatureMap> {
        x.doubled()
    }
}
