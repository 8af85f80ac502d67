//! Two-dimensional convolution.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;

use super::{FeatureMap, Gather, Linear, Window};

/// `y[p, o] = b[o] + sum over (window place k, channel c) of w[o, c, k] x[p + k, c]`, written as a gathering of places
/// and one product: candle's own backward pass of a strided convolution is many times slower.
#[derive(Debug)]
pub struct Convolution {
    kernel: Linear,
    gather: Gather,
}

impl Convolution {
    /// Reads `weight` `[out, inputs, height, width]` and `bias` `[out]`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(inputs: usize, out: usize, window: Window, vb: &VarBuilder) -> Result<Self> {
        let [height, width] = window.kernel;
        Self::from_tensors(&vb.get((out, inputs, height, width), "weight")?, vb.get(out, "bias")?, window)
    }

    /// From a weight `[out, inputs, height, width]` and a bias `[out]`.
    ///
    /// # Errors
    /// The kernel is not that of the window.
    pub fn from_tensors(weight: &Tensor, bias: Tensor, window: Window) -> Result<Self> {
        let (out, inputs, height, width) = weight.dims4()?;
        if [height, width] != window.kernel {
            candle_core::bail!("a kernel of [{height}, {width}] for a window of {:?}", window.kernel);
        }
        let weight = weight.permute([0, 2, 3, 1])?.reshape((out, height * width * inputs))?;
        Ok(Self { kernel: Linear::new(weight, Some(bias)), gather: Gather::new(window) })
    }

    /// What it sees of a map.
    pub fn window(&self) -> Window {
        self.gather.window()
    }

    /// Its weight `[out, window places * inputs]` and its bias `[out]`.
    pub fn kernel(&self) -> &Linear {
        &self.kernel
    }

    /// # Shapes
    /// `[B, places, inputs]` to `[B, output places, out]`.
    ///
    /// # Errors
    /// The window does not fit into the map, or the map has other channels.
    pub fn forward(&self, x: &FeatureMap) -> Result<FeatureMap> {
        let gathered = self.gather.forward(x)?;
        Ok(gathered.with(self.kernel.forward(&gathered.values)?))
    }
}
