//! What a network of feature maps is run by: the order of its layers is written once, whoever computes them.

use candle_core::{Result, Tensor};

use super::{Attention, Convolution, FeatureMap, GroupNorm, Pooling};

/// Does what layers say, at once or later.
pub trait Evaluator {
    /// A feature map, or what stands for one.
    type Map: Clone;

    /// A convolution.
    ///
    /// # Errors
    /// The map does not fit the layer.
    fn convolve(&mut self, layer: &Convolution, x: &Self::Map) -> Result<Self::Map>;

    /// `max(0, y)` of a convolution's `y`.
    ///
    /// # Errors
    /// The map does not fit the layer.
    fn convolve_relu(&mut self, layer: &Convolution, x: &Self::Map) -> Result<Self::Map>;

    /// A pooling.
    ///
    /// # Errors
    /// The map does not fit the layer.
    fn pool(&mut self, layer: &Pooling, x: &Self::Map) -> Result<Self::Map>;

    /// The channels of some maps side by side.
    ///
    /// # Errors
    /// They are of different places.
    fn beside(&mut self, maps: &[Self::Map]) -> Result<Self::Map>;

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

    fn convolve_relu(&mut self, layer: &Convolution, x: &FeatureMap) -> Result<FeatureMap> {
        let y = layer.forward(x)?;
        Ok(y.with(y.values.relu()?))
    }

    fn pool(&mut self, layer: &Pooling, x: &FeatureMap) -> Result<FeatureMap> {
        layer.forward(x)
    }

    fn beside(&mut self, maps: &[FeatureMap]) -> Result<FeatureMap> {
        let values: Vec<&Tensor> = maps.iter().map(|map| &map.values).collect();
        Ok(maps[0].with(Tensor::cat(&values, 2)?))
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
