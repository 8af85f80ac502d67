//! Weights as candle tensors on a device, and back.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Var};

use super::{Tensor, Weights};

/// candle tensors by name, in the order of their names.
pub type Tensors = BTreeMap<String, candle_core::Tensor>;

/// candle tensors of a type on a device, for tensors that do not learn.
///
/// # Errors
/// Those of candle (a shape that lies about the number of values, a device out of memory).
pub fn constants(weights: &Weights, dtype: DType, device: &Device) -> candle_core::Result<Tensors> {
    let tensor = |(name, t): (&String, &Tensor)| {
        let tensor = candle_core::Tensor::from_slice(&t.values, t.shape.as_slice(), device)?.to_dtype(dtype)?;
        Ok((name.clone(), tensor))
    };
    weights.iter().map(tensor).collect()
}

/// The same as [`constants`] in 32 bits, without a copy where the device is the processor.
///
/// # Errors
/// As [`constants`].
pub fn into_constants(weights: Weights, device: &Device) -> candle_core::Result<Tensors> {
    let tensor = |(name, t): (String, Tensor)| Ok((name, candle_core::Tensor::from_vec(t.values, t.shape, device)?));
    weights.into_iter().map(tensor).collect()
}

/// The same as [`constants`], for tensors whose gradients are wanted.
///
/// # Errors
/// As [`constants`].
pub fn variables(weights: &Weights, dtype: DType, device: &Device) -> candle_core::Result<Tensors> {
    let variable = |(name, tensor): (String, candle_core::Tensor)| Ok((name, Var::from_tensor(&tensor)?.into_inner()));
    constants(weights, dtype, device)?.into_iter().map(variable).collect()
}

/// Copies candle tensors back, rounded to 32 bits.
///
/// # Errors
/// Those of candle.
pub fn from_tensors(tensors: &Tensors) -> candle_core::Result<Weights> {
    let copy = |(name, tensor): (&String, &candle_core::Tensor)| {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok((name.clone(), Tensor { shape: tensor.dims().to_vec(), values }))
    };
    tensors.iter().map(copy).collect()
}

/// Gradients of the scalar `loss` with respect to `tensors`, by name; zeros where it does not depend on one.
///
/// # Errors
/// Those of candle's backward pass.
pub fn gradients(loss: &candle_core::Tensor, tensors: &Tensors) -> candle_core::Result<Tensors> {
    let found = loss.backward()?;
    let gradient = |(name, tensor): (&String, &candle_core::Tensor)| {
        let gradient = found.get(tensor).cloned().map_or_else(|| tensor.zeros_like(), Ok)?;
        Ok((name.clone(), gradient))
    };
    tensors.iter().map(gradient).collect()
}
