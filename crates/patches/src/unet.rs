//! The patch of Stable Diffusion's UNet, in one reading of what the paper leaves open: `prompt_per_block_input`.
//!
//! The paper says only that prompts of shape `H x W x D` are "adjusted to the input size". Here one prompt tensor lies at the
//! input of every block, and one gate, shared by all blocks, sees the timestep's embedding and the block's index. It weighs
//! the places of the largest map by a softmax; a place of a smaller map has the sum of the weights that fall on it, so that
//! the weights of every map sum to 1. Prompt tuning has the same prompts, each with weight 1.
//!
//! Letters: `B` batch, `L` blocks, `G` places of the largest map, `T` those of a block, `C` its channels.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor, Var};
use manifest::gate::GateNoise;
use manifest::method::{Balance, Dmp, Init, Method, Prompts};
use models::Hooks;
use models::layers::softmax;
use models::unet::{BlockInput, PatchShape, UnetConfig, named_shapes};
use models::weights::{Tensors, gradients};

use crate::PatchError;
use crate::balance::BalanceLosses;
use crate::gate::{self, LearnedNoise, Size};
use crate::trainable::{Initial, Trainable, check};

const GATE: [&str; 2] = ["gate.weight", "gate.bias"];

/// Name of the prompts' tensor of a block, `[T, C]`.
fn prompts(block: usize) -> String {
    format!("{}.{block}", crate::PROMPTS)
}

/// What a method trains on a UNet, in a fixed order: nothing, the whole network, or tensors of its own.
///
/// # Errors
/// The method has no meaning on a UNet ([`Method::unfit_for_unet`]).
pub fn trainable(method: &Method, unet: &UnetConfig) -> std::result::Result<Vec<Trainable>, PatchError> {
    let layout = Layout::build(method, unet)?;
    if let Method::Finetune(_) = method {
        let learning = |(name, shape): (String, Vec<usize>)| Trainable::new(&name, &shape, Initial::Backbone, 1.0);
        return Ok(named_shapes(unet)?.into_iter().map(learning).collect());
    }
    Ok(layout.map_or_else(Vec::new, |layout| layout.trainable()))
}

/// The one linear layer that weighs places, shared by all blocks.
#[derive(Clone, Debug)]
struct Gate {
    /// The scale of the noise on its logits, as the released code has it for a DiT.
    noise: Option<LearnedNoise>,
    learning_rate_factor: f64,
    balance: Balance,
}

/// A patch without its tensors.
#[derive(Clone, Debug)]
struct Layout {
    shape: PatchShape,
    initial: Initial,
    gate: Option<Gate>,
}

impl Layout {
    /// What `method` patches; `None` for a method without a patch.
    fn build(method: &Method, unet: &UnetConfig) -> std::result::Result<Option<Self>, PatchError> {
        if let Some((path, why)) = method.unfit_for_unet() {
            return Err(candle_core::Error::Msg(format!("`{path}` {why}")).into());
        }
        let shape = PatchShape::new(unet, unet.image_size, unet.image_size);
        let size = Size { blocks: shape.prompts.len(), prompts: shape.gate_outputs, width: shape.gate_inputs - 1 };
        let gate = |dmp: &Dmp| Gate {
            noise: gate::noise(dmp.gate.noise, size),
            learning_rate_factor: dmp.gate.learning_rate_factor,
            balance: dmp.balance.clone(),
        };
        let (prompts, gate): (&Prompts, Option<Gate>) = match method {
            Method::PromptTuning(tuning) => (&tuning.prompts, None),
            Method::Dmp(dmp) => (&dmp.prompts, Some(gate(dmp))),
            Method::Pretrained(_) | Method::Finetune(_) | Method::Lora(_) => return Ok(None),
        };
        let initial = match prompts.init {
            Init::Zero(_) => Initial::Zero,
            Init::Normal(ref normal) => Initial::Normal { std: normal.std },
        };
        if !shape.prompts.iter().all(|input| unet.image_size.is_multiple_of(input.height)) {
            let fault = format!("the maps of a latent of {0} x {0} do not divide it", unet.image_size);
            return Err(PatchError::Unfit { faults: vec![fault] });
        }
        Ok(Some(Self { shape, initial, gate }))
    }

    /// The prompts of each block, the gate, and the scale of its noise where it has one.
    fn trainable(&self) -> Vec<Trainable> {
        let PatchShape { prompts: blocks, gate_inputs, gate_outputs } = &self.shape;
        let prompt = |(block, input): (usize, &BlockInput)| {
            Trainable::new(&prompts(block), &[input.tokens(), input.channels], self.initial, 1.0)
        };
        let mut tensors: Vec<Trainable> = blocks.iter().enumerate().map(prompt).collect();
        if let Some(gate) = &self.gate {
            let own =
                |name: &str, shape: &[usize]| Trainable::new(name, shape, Initial::Zero, gate.learning_rate_factor);
            let shapes = [&[*gate_outputs, *gate_inputs][..], &[*gate_outputs]];
            tensors.extend(GATE.iter().zip(shapes).map(|(name, shape)| own(name, shape)));
            tensors.extend(gate.noise.map(|noise| noise.tensor()).map(|(name, shape)| own(name, &shape)));
        }
        tensors
    }
}

/// The patch with its tensors. It never changes the UNet.
#[derive(Debug)]
pub struct UnetPatch {
    layout: Layout,
    tensors: Arc<Tensors>,
}

impl UnetPatch {
    /// What `method` patches into a UNet, on `tensors`, which it shares: where they are variables, gradients reach them.
    /// `None` for a method without a patch.
    ///
    /// # Errors
    /// `tensors` are not those of [`trainable`], a smaller map does not divide the largest, or the method has no meaning on
    /// a UNet.
    pub fn build(
        method: &Method,
        unet: &UnetConfig,
        tensors: &Tensors,
    ) -> std::result::Result<Option<Self>, PatchError> {
        let Some(layout) = Layout::build(method, unet)? else { return Ok(None) };
        check(&layout.trainable(), tensors)?;
        Ok(Some(Self { layout, tensors: Arc::new(tensors.clone()) }))
    }

    /// Shape of the standard normals that [`UnetPatch::mix`] is given in training for a batch, `[L, B, G]`; empty where the
    /// gate has no noise.
    ///
    /// # Errors
    /// As [`trainable`].
    pub fn noise_shape(
        method: &Method,
        unet: &UnetConfig,
        batch: usize,
    ) -> std::result::Result<[usize; 3], PatchError> {
        let noisy = matches!(method, Method::Dmp(dmp) if dmp.gate.noise == GateNoise::Learned);
        let layout = Layout::build(method, unet)?.filter(|_| noisy);
        Ok(layout.map_or([0; 3], |Layout { shape, .. }| [shape.prompts.len(), batch, shape.gate_outputs]))
    }

    /// Computes what is added at the input of each block for the timesteps' embeddings `t` `[B, time width]`. `noise`,
    /// standard normals `[L, B, G]`, is given in training only; a gate without noise does not look at it.
    ///
    /// # Errors
    /// Those of candle.
    pub fn mix(&self, t: &Tensor, noise: Option<&Tensor>) -> Result<UnetMixture> {
        let PatchShape { prompts: blocks, gate_outputs, .. } = &self.layout.shape;
        let Some(gate) = &self.layout.gate else {
            let b = t.dim(0)?;
            let whole = |block: usize| {
                let prompts = &self.tensors[&prompts(block)];
                prompts.unsqueeze(0)?.broadcast_as((b, prompts.dim(0)?, prompts.dim(1)?))
            };
            let entering = (0..blocks.len()).map(whole).collect::<Result<Vec<_>>>()?;
            let weights = Tensor::ones((blocks.len(), b, *gate_outputs), t.dtype(), t.device())?;
            return Ok(self.mixture(weights, entering));
        };
        let weights = softmax(&self.logits(gate, t, noise)?)?;
        let largest = blocks.iter().find(|input| input.tokens() == *gate_outputs);
        let Some(&largest) = largest else { candle_core::bail!("a UNet has at least one block") };
        let entering = |(block, &input): (usize, &BlockInput)| {
            let weights = pooled(&weights.get(block)?, largest, input)?.unsqueeze(2)?; // [B, T, 1]
            weights.broadcast_mul(&self.tensors[&prompts(block)].unsqueeze(0)?)
        };
        let entering = blocks.iter().enumerate().map(entering).collect::<Result<Vec<_>>>()?;
        Ok(self.mixture(weights, entering))
    }

    /// `G([t; block])` for every block, `[L, B, G]`.
    fn logits(&self, gate: &Gate, t: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        let [weight, bias] = GATE.map(|name| &self.tensors[name]);
        let width = self.layout.shape.gate_inputs - 1;
        let shared = t.matmul(&weight.narrow(1, 0, width)?.t()?)?.broadcast_add(bias)?; // [B, G]
        let index = weight.narrow(1, width, 1)?.t()?; // [1, G]
        let logits = |block: usize| shared.broadcast_add(&(&index * block as f64)?);
        let logits = (0..self.layout.shape.prompts.len()).map(logits).collect::<Result<Vec<_>>>()?;
        let logits = Tensor::stack(&logits, 0)?;
        match (&gate.noise, noise) {
            (Some(learned), Some(draws)) => logits + draws.broadcast_mul(&learned.deviation(&self.tensors, t)?)?,
            _ => Ok(logits),
        }
    }

    fn mixture(&self, weights: Tensor, entering: Vec<Tensor>) -> UnetMixture {
        let balance = self.layout.gate.as_ref().map(|gate| gate.balance.clone());
        UnetMixture { weights, entering: Entering(entering), balance, tensors: Arc::clone(&self.tensors) }
    }
}

/// Weights of the places of the largest map, `[B, G]`, summed over what each place of a smaller one covers: `[B, T]`.
fn pooled(weights: &Tensor, from: BlockInput, to: BlockInput) -> Result<Tensor> {
    let (rows, columns) = (from.height / to.height, from.width / to.width);
    let split = weights.reshape((weights.dim(0)?, to.height, rows, to.width, columns))?;
    split.sum(4)?.sum(2)?.reshape((weights.dim(0)?, to.tokens()))
}

/// The patch applied to one batch of timesteps.
#[derive(Clone, Debug)]
pub struct UnetMixture {
    weights: Tensor,
    entering: Entering,
    balance: Option<Balance>,
    tensors: Arc<Tensors>,
}

impl UnetMixture {
    /// The gate's weight of every place of the largest map in every block, `[L, B, G]`: ones where there is no gate.
    pub fn weights(&self) -> &Tensor {
        &self.weights
    }

    /// What is added before each block.
    pub fn entering(&self) -> &Entering {
        &self.entering
    }

    /// The balancing losses; `None` for a method that has none.
    ///
    /// # Errors
    /// Those of candle.
    pub fn balance(&self) -> Result<Option<BalanceLosses>> {
        self.balance.as_ref().map(|balance| BalanceLosses::new(balance, &self.weights, None)).transpose()
    }

    /// Gradients of `UNet's loss + balancing losses` with respect to the patch's tensors, by name, given the UNet's
    /// gradient with respect to what enters, `[B, T, C]` of each block.
    ///
    /// # Errors
    /// Other shapes than those of what enters.
    pub fn backward_from(&self, d_entering: &[Tensor]) -> Result<Tensors> {
        let Entering(entering) = &self.entering;
        let share = |(own, gradient): (&Tensor, &Tensor)| (own * gradient)?.sum_all();
        let mut terms = entering.iter().zip(d_entering).map(share).collect::<Result<Vec<_>>>()?;
        terms.extend(self.balance()?.map(|balance| balance.total));
        gradients(&Tensor::stack(&terms, 0)?.sum_all()?, &self.tensors)
    }
}

/// What is added before each block, `[B, T, C]`: the hooks of the UNet.
#[derive(Clone, Debug)]
pub struct Entering(Vec<Tensor>);

impl Entering {
    /// What enters for some samples alone, as variables: its gradients are wanted, and nothing behind it.
    ///
    /// # Errors
    /// There are no such samples.
    pub fn of_samples(&self, samples: Range<usize>) -> Result<Self> {
        let own = |tensor: &Tensor| tensor.narrow(0, samples.start, samples.len())?.contiguous();
        let variable = |tensor: &Tensor| Ok(Var::from_tensor(&own(tensor)?)?.into_inner());
        Ok(Self(self.0.iter().map(variable).collect::<Result<_>>()?))
    }

    /// Block after block.
    pub fn tensors(&self) -> &[Tensor] {
        &self.0
    }
}

impl Hooks for Entering {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        match self.0.get(block) {
            Some(entering) => x.broadcast_add(entering),
            None => candle_core::bail!("block {block} of {} has no prompts", self.0.len()),
        }
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}
