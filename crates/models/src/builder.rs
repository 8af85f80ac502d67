//! How a network is built: on tensors, or on none to learn which tensors it wants.
//!
//! The code that reads a tensor is the only place that knows its name and shape; lists of names are made by running it.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};

use crate::weights::Tensors;

/// A builder that hands out `tensors`, which the network will share.
///
/// # Errors
/// There are none, so that type and device are unknown.
pub fn builder(tensors: &Tensors) -> Result<VarBuilder<'static>> {
    let Some(any) = tensors.values().next() else { candle_core::bail!("a network cannot be built from no tensors") };
    let by_name = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    Ok(VarBuilder::from_tensors(by_name, any.dtype(), any.device()))
}

/// Names and shapes of the tensors that `build` reads, in the order in which it reads them. What it is given are zeros
/// that take no memory.
///
/// # Errors
/// Those of `build`.
pub fn tensors_of<N>(build: impl FnOnce(&VarBuilder) -> Result<N>) -> Result<Vec<(String, Vec<usize>)>> {
    let wanted = Wanted::default();
    let backend = Box::new(Recorder(wanted.clone()));
    build(&VarBuilder::from_backend(backend, DType::F32, Device::Cpu))?;
    let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut wanted))
}

/// What was asked for so far.
type Wanted = Arc<Mutex<Vec<(String, Vec<usize>)>>>;

struct Recorder(Wanted);

impl SimpleBackend for Recorder {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.push((name.to_owned(), shape.dims().to_vec()));
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name} is read without a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
