//! The network's only trained layer: a convolution, batch normalisation and a ReLU.

use candle_core::{DType, Result};
use candle_nn::VarBuilder;

use crate::layers::{Convolution, Evaluator, Window};

/// Keeps the normalisation finite; that of the published network.
const EPS: f64 = 1e-3;

/// `max(0, weight (conv(x) - running_mean) / sqrt(running_var + 1e-3) + bias)`, with the normalisation folded into the
/// convolution.
#[derive(Debug)]
pub(super) struct Unit(Convolution);

impl Unit {
    /// Reads `conv.weight` and `bn.{weight, bias, running_mean, running_var}`.
    pub(super) fn new(inputs: usize, out: usize, window: Window, vb: &VarBuilder) -> Result<Self> {
        let [height, width] = window.kernel;
        let kernel = vb.get((out, inputs, height, width), "conv.weight")?;
        let norm = |name: &str| vb.pp("bn").get(out, name)?.to_dtype(DType::F64);
        let (weight, bias, mean, variance) =
            (norm("weight")?, norm("bias")?, norm("running_mean")?, norm("running_var")?);
        let scale = (weight / (variance + EPS)?.sqrt()?)?;
        let bias = (bias - (mean * &scale)?)?.to_dtype(kernel.dtype())?;
        let scaled = kernel.to_dtype(DType::F64)?.broadcast_mul(&scale.reshape((out, 1, 1, 1))?)?;
        Ok(Self(Convolution::from_tensors(&scaled.to_dtype(kernel.dtype())?, bias, window)?))
    }

    pub(super) fn forward<E: Evaluator>(&self, e: &mut E, x: &E::Map) -> Result<E::Map> {
        e.convolve_relu(&self.0, x)
    }
}
