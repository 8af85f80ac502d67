//! A linear layer whose weight costs nothing backwards where it does not learn.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Module, Result, Shape, Storage, Tensor};
use candle_nn::VarBuilder;

/// `y = x W^T + b`.
///
/// candle's backward pass of a product makes the gradients of both sides, and keeps those that nobody asked for to its end:
/// of a frozen UNet, all its weights once more.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// From `weight` `[out, inputs]` and `bias` `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Reads `weight` and, where there is one, `bias`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn read(inputs: usize, out: usize, biased: bool, vb: &VarBuilder) -> Result<Self> {
        let weight = vb.get((out, inputs), "weight")?;
        Ok(Self { weight, bias: biased.then(|| vb.get(out, "bias")).transpose()? })
    }

    /// Its weight.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Its bias, where it has one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Linear {
    /// # Shapes
    /// `[.., inputs]` to `[.., out]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, transposed) = (x.flatten_to(x.rank() - 2)?.contiguous()?, self.weight.t()?);
        let product = match self.weight.track_op() {
            true => rows.matmul(&transposed)?,
            false => rows.apply_op1(ByConstant { transposed })?,
        };
        let mut shape = x.dims().to_vec();
        shape[x.rank() - 1] = self.weight.dim(0)?;
        let product = product.reshape(shape)?;
        self.bias.as_ref().map_or(Ok(product.clone()), |bias| product.broadcast_add(bias))
    }
}

/// The product with a matrix `[inputs, out]` that does not learn; backwards, that with its transpose alone.
struct ByConstant {
    transposed: Tensor,
}

impl ByConstant {
    fn size(&self, rows: &Layout) -> Result<(usize, usize, usize, usize)> {
        let ((m, k), (inputs, n)) = (rows.shape().dims2()?, self.transposed.dims2()?);
        if k != inputs {
            candle_core::bail!("rows of {k} numbers for a layer of {inputs} inputs");
        }
        Ok((1, m, n, k))
    }
}

impl CustomOp1 for ByConstant {
    fn name(&self) -> &'static str {
        "product with a constant"
    }

    fn cpu_fwd(&self, rows: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let size = self.size(layout)?;
        let (storage, own) = self.transposed.storage_and_layout();
        let Storage::Cpu(constant) = &*storage else { candle_core::bail!("the weight lies on another device") };
        Ok((rows.matmul(constant, size, layout, own)?, (size.1, size.2).into()))
    }

    fn cuda_fwd(&self, rows: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let size = self.size(layout)?;
        let (storage, own) = self.transposed.storage_and_layout();
        let Storage::Cuda(constant) = &*storage else { candle_core::bail!("the weight lies on another device") };
        Ok((rows.matmul(constant, size, layout, own)?, (size.1, size.2).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        gradient.matmul(&self.transposed.t()?).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// Values and input gradients are those of candle's own product, to the bit; of a weight that learns there is one too.
    #[test]
    fn a_frozen_weight_changes_nothing_else() {
        let random = |shape: &[usize]| Tensor::randn(0.0_f32, 1.0, shape, &Device::Cpu).unwrap();
        let (weight, bias) = (random(&[7, 5]), random(&[7]));
        for shape in [&[3, 5][..], &[2, 3, 5], &[2, 4, 3, 5]] {
            let x = Var::from_tensor(&random(shape)).unwrap();
            let learning = Var::from_tensor(&weight).unwrap();
            let through = |weight: &Tensor| {
                let y = Linear::new(weight.clone(), Some(bias.clone())).forward(&x).unwrap();
                let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                (bits(&y), bits(gradients.get(&x).unwrap()), gradients.get(&learning).is_some(), y.dims().to_vec())
            };
            let (frozen, learned) = (through(&weight), through(&learning));
            assert_eq!((&frozen.0, &frozen.1, &frozen.3), (&learned.0, &learned.1, &learned.3));
            assert_eq!((frozen.2, learned.2), (false, true));
        }
        assert!(Linear::new(weight, None).forward(&random(&[2, 3, 6])).is_err());
    }
}
