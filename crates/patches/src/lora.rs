//! Low-rank adaptation (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022).

use candle_core::{Result, Tensor};
use manifest::dit::DitConfig;
use manifest::method::{Lora, Method};
use models::weights::{Tensors, gradients};

use crate::PatchError;
use crate::trainable::{Initial, Trainable, check};
use crate::training::Training;

/// The projections that are adapted, and how many times the width comes out of each.
const PROJECTIONS: [(&str, usize); 2] = [("attn.qkv", 3), ("attn.proj", 1)];

/// Adapters with their tensors: `y = W x + b + alpha / rank B A x` for `attn.qkv` and `attn.proj` of every block.
///
/// They are merged: a network runs with `W + alpha / rank B A` in the place of `W`, which is the same function, and costs
/// nothing when it samples.
#[derive(Debug)]
pub struct Adapters {
    layout: LowRank,
    tensors: Tensors,
}

impl Adapters {
    /// Builds what `method` adapts of a backbone of shape `dit`; `None` for a method without adapters. They share
    /// `tensors`: where these are variables, gradients reach them.
    ///
    /// # Errors
    /// `tensors` are not those of [`crate::trainable`].
    pub fn build(method: &Method, dit: &DitConfig, tensors: &Tensors) -> std::result::Result<Option<Self>, PatchError> {
        let Training::Adapters(layout) = Training::build(method, dit) else { return Ok(None) };
        layout.with(tensors).map(Some)
    }

    /// Names of the weights that are adapted.
    pub fn weights(&self) -> impl Iterator<Item = String> + use<> {
        self.layout.projections().map(|projection| projection.weight)
    }

    /// The adapted weights by name, `W + alpha / rank B A`, of `W` in `backbone`.
    ///
    /// # Errors
    /// `backbone` lacks one of them, or it has another shape.
    pub fn merged(&self, backbone: &Tensors) -> Result<Tensors> {
        let merge = |projection: Projection| {
            let Some(frozen) = backbone.get(&projection.weight) else {
                candle_core::bail!("the backbone has no {}", projection.weight)
            };
            let product = self.tensors[&projection.b].matmul(&self.tensors[&projection.a])?;
            let merged = (frozen + (product * self.layout.factor)?)?;
            Ok((projection.weight, merged))
        };
        self.layout.projections().map(merge).collect()
    }

    /// Gradients with respect to the adapters' tensors, by name, from those with respect to the weights that they were
    /// `merged` into: `dB = alpha / rank dW A^T`, `dA = alpha / rank B^T dW`.
    ///
    /// # Errors
    /// A gradient is missing or has another shape than its weight.
    pub fn backward_from(&self, merged: &Tensors, d_merged: &Tensors) -> Result<Tensors> {
        let product = |(name, weight): (&String, &Tensor)| {
            let Some(gradient) = d_merged.get(name) else { candle_core::bail!("there is no gradient of {name}") };
            (weight * gradient)?.sum_all()
        };
        let products = merged.iter().map(product).collect::<Result<Vec<_>>>()?;
        gradients(&Tensor::stack(&products, 0)?.sum_all()?, &self.tensors)
    }
}

/// Adapters without their tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRank {
    rank: usize,
    factor: f64,
    blocks: usize,
    width: usize,
}

/// One adapted layer: names of its tensors, and how many values come out of it.
struct Projection {
    weight: String,
    a: String,
    b: String,
    out: usize,
}

impl LowRank {
    pub(crate) fn new(lora: &Lora, dit: &DitConfig) -> Self {
        Self { rank: lora.rank, factor: lora.alpha / lora.rank as f64, blocks: dit.depth, width: dit.hidden }
    }

    pub(crate) fn with(self, tensors: &Tensors) -> std::result::Result<Adapters, PatchError> {
        check(&self.trainable(), tensors)?;
        Ok(Adapters { layout: self, tensors: tensors.clone() })
    }

    /// `A` starts with small random values and `B` at zero, so that training starts from the backbone.
    pub(crate) fn trainable(&self) -> Vec<Trainable> {
        let pair = |Projection { a, b, out, .. }: Projection| {
            [
                Trainable::new(&a, &[self.rank, self.width], Initial::KaimingUniform, 1.0),
                Trainable::new(&b, &[out, self.rank], Initial::Zero, 1.0),
            ]
        };
        self.projections().flat_map(pair).collect()
    }

    fn projections(&self) -> impl Iterator<Item = Projection> + use<> {
        let Self { blocks, width, .. } = *self;
        (0..blocks).flat_map(move |block| {
            PROJECTIONS.map(|(layer, times)| {
                let layer = format!("blocks.{block}.{layer}");
                let [a, b] = ["a", "b"].map(|part| format!("lora.{layer}.{part}"));
                Projection { weight: format!("{layer}.weight"), a, b, out: times * width }
            })
        })
    }
}
