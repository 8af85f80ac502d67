//! How large a patch of the UNet is.
//!
//! The paper says of Stable Diffusion only that prompts of shape `H x W x D` are "adjusted to the input size". The reading
//! here, `prompt_per_block_input`, is ours: one prompt tensor at the input of every block, and one gate for all of them that
//! sees the timestep's embedding and the block's index and weighs the places of the largest map; smaller maps take the
//! sums of the weights that fall on each of their places.

use super::{BlockInput, UnetConfig};

/// Shapes of the patch `prompt_per_block_input`.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchShape {
    /// One prompt tensor `[height, width, D]` per block.
    pub prompts: Vec<BlockInput>,
    /// What the gate sees: the timestep's embedding and the block's index.
    pub gate_inputs: usize,
    /// The places it weighs: those of the largest map.
    pub gate_outputs: usize,
}

impl PatchShape {
    /// The patch of a UNet for latents of `height` x `width`.
    pub fn new(config: &UnetConfig, height: usize, width: usize) -> Self {
        let prompts = config.block_inputs(height, width);
        let gate_outputs = prompts.iter().map(|input| input.tokens()).max().unwrap_or(0);
        Self { prompts, gate_inputs: config.time_width() + 1, gate_outputs }
    }

    /// Elements of all prompts.
    pub fn prompt_elements(&self) -> usize {
        self.prompts.iter().map(|input| input.tokens() * input.channels).sum()
    }

    /// Elements of the gate: its weight and its bias.
    pub fn gate_elements(&self) -> usize {
        (self.gate_inputs + 1) * self.gate_outputs
    }

    /// Elements of both.
    pub fn elements(&self) -> usize {
        self.prompt_elements() + self.gate_elements()
    }
}
