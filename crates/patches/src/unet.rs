//! The patch of Stable Diffusion's UNet, in one reading of what the paper leaves open: `prompt_per_block_input`.
//!
//! The paper says only that prompts of shape `H x W x D` are "adjusted to the input size". Here one prompt tensor lies at the
//! input of every block, and one gate, shared by all blocks, sees the timestep's embedding and the block's index. It weighs
//! the places of the largest map by a softmax; a place of a smaller map has the sum of the weights that fall on it, so that
//! the weights of every map sum to 1.
//!
//! Letters: `B` batch, `L` blocks, `G` places of the largest map, `T` those of a block, `C` its channels.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use manifest::gate::GateNoise;
use models::Hooks;
use models::layers::softmax;
use models::unet::{BlockInput, PatchShape, UnetCondition, UnetConfig};
use models::weights::Tensors;

use crate::PatchError;
use crate::gate::{self, LearnedNoise, Size};
use crate::trainable::{Initial, Trainable, check};

const GATE: [&str; 2] = ["gate.weight", "gate.bias"];

/// Name of the prompts' tensor of a block, `[T, C]`.
fn prompts(block: usize) -> String {
    format!("{}.{block}", crate::PROMPTS)
}

/// The scale of the noise on the gate's logits, as the released code has it for a DiT.
fn learned(shape: &PatchShape, noise: GateNoise) -> Option<LearnedNoise> {
    gate::noise(noise, Size { blocks: shape.prompts.len(), prompts: shape.gate_outputs, width: shape.gate_inputs - 1 })
}

/// Parameters that the patch adds, exactly.
pub fn count(shape: &PatchShape, noise: GateNoise) -> usize {
    trainable(shape, noise).iter().map(Trainable::elements).sum()
}

/// What the patch trains, all from zero: the prompts of each block, the gate, and the scale of its noise where it has one.
pub fn trainable(shape: &PatchShape, noise: GateNoise) -> Vec<Trainable> {
    let prompt = |(block, input): (usize, &BlockInput)| {
        Trainable::new(&prompts(block), &[input.tokens(), input.channels], Initial::Zero, 1.0)
    };
    let mut tensors: Vec<Trainable> = shape.prompts.iter().enumerate().map(prompt).collect();
    let gate = [&[shape.gate_outputs, shape.gate_inputs][..], &[shape.gate_outputs]];
    tensors.extend(GATE.iter().zip(gate).map(|(name, shape)| Trainable::new(name, shape, Initial::Zero, 1.0)));
    let noise = learned(shape, noise).map(|noise| noise.tensor());
    tensors.extend(noise.map(|(name, shape)| Trainable::new(name, &shape, Initial::Zero, 1.0)));
    tensors
}

/// The patch with its tensors. It never changes the UNet.
#[derive(Debug)]
pub struct UnetPatch {
    shape: PatchShape,
    noise: Option<LearnedNoise>,
    tensors: Tensors,
}

impl UnetPatch {
    /// The patch of a UNet for latents of `height` x `width`, on `tensors`, which it shares: where they are variables,
    /// gradients reach them.
    ///
    /// # Errors
    /// `tensors` are not those of [`trainable`], or a smaller map does not divide the largest.
    pub fn build(
        config: &UnetConfig,
        height: usize,
        width: usize,
        noise: GateNoise,
        tensors: &Tensors,
    ) -> std::result::Result<Self, PatchError> {
        let shape = PatchShape::new(config, height, width);
        check(&trainable(&shape, noise), tensors)?;
        let divides = |input: &BlockInput| height.is_multiple_of(input.height) && width.is_multiple_of(input.width);
        if !shape.prompts.iter().all(divides) {
            let fault = format!("the maps of a latent of {height} x {width} do not divide it");
            return Err(PatchError::Unfit { faults: vec![fault] });
        }
        Ok(Self { noise: learned(&shape, noise), shape, tensors: tensors.clone() })
    }

    /// Computes what is added at the input of each block for a batch of conditions. `gate_noise`, standard normals
    /// `[L, B, G]`, is given in training only; a gate without noise does not look at it.
    ///
    /// # Errors
    /// Those of candle.
    pub fn mix(&self, condition: &UnetCondition, gate_noise: Option<&Tensor>) -> Result<UnetMixture> {
        let [weight, bias] = GATE.map(|name| &self.tensors[name]);
        let width = self.shape.gate_inputs - 1;
        let shared = condition.t.matmul(&weight.narrow(1, 0, width)?.t()?)?.broadcast_add(bias)?; // [B, G]
        let index = weight.narrow(1, width, 1)?.t()?; // [1, G]
        let logits = |block: usize| shared.broadcast_add(&(&index * block as f64)?);
        let logits = (0..self.shape.prompts.len()).map(logits).collect::<Result<Vec<_>>>()?;
        let mut logits = Tensor::stack(&logits, 0)?; // [L, B, G]
        if let (Some(learned), Some(draws)) = (&self.noise, gate_noise) {
            logits = (logits + draws.broadcast_mul(&learned.deviation(&self.tensors, &condition.t)?)?)?;
        }
        let weights = softmax(&logits)?;
        let largest = self.shape.prompts.iter().find(|input| input.tokens() == self.shape.gate_outputs);
        let Some(&largest) = largest else { candle_core::bail!("a UNet has at least one block") };
        let added = |(block, &input): (usize, &BlockInput)| {
            let weights = pooled(&weights.get(block)?, largest, input)?.unsqueeze(2)?; // [B, T, 1]
            weights.broadcast_mul(&self.tensors[&prompts(block)].unsqueeze(0)?)
        };
        let added = self.shape.prompts.iter().enumerate().map(added).collect::<Result<Vec<_>>>()?;
        Ok(UnetMixture { weights, added: Arc::new(added) })
    }
}

/// Weights of the places of the largest map, `[B, G]`, summed over what each place of a smaller one covers: `[B, T]`.
fn pooled(weights: &Tensor, from: BlockInput, to: BlockInput) -> Result<Tensor> {
    let (rows, columns) = (from.height / to.height, from.width / to.width);
    let split = weights.reshape((weights.dim(0)?, to.height, rows, to.width, columns))?;
    split.sum(4)?.sum(2)?.reshape((weights.dim(0)?, to.tokens()))
}

/// The patch applied to one batch of conditions.
#[derive(Clone, Debug)]
pub struct UnetMixture {
    weights: Tensor,
    /// `[B, T, C]` of each block.
    added: Arc<Vec<Tensor>>,
}

impl UnetMixture {
    /// The gate's weight of every place of the largest map in every block, `[L, B, G]`: what balancing losses are made of.
    pub fn weights(&self) -> &Tensor {
        &self.weights
    }
}

impl Hooks for UnetMixture {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        match self.added.get(block) {
            Some(added) => x + added,
            None => candle_core::bail!("block {block} of {} has no prompts", self.added.len()),
        }
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}
