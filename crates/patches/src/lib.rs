//! Prompts and gates: what is patched into a frozen backbone, through the hooks of the model.
//!
//! A [`Patch`] is built from a method and its trained tensors. For a batch of conditions it makes a [`Mixture`]: what is
//! put before each block. A mixture is the model's hooks for the reference path, and it says in plain tensors what a
//! hand-written trunk adds where and takes the trunk's gradients back to the patch's own tensors. [`Adapters`] (LoRA) go into
//! the trunk's weights instead. [`apply`] says for any method what a network runs with.
//!
//! Letters of all shapes: `B` batch, `T` image tokens, `N` prompts, `D` width, `L` blocks with prompts.

pub mod balance;
mod gate;
mod lora;
mod mixture;
mod patch;
mod place;
mod released;
mod trainable;
mod training;
pub mod unet;

pub use gate::NOISE as GATE_NOISE;
pub use lora::Adapters;
pub use mixture::{Contribution, ContributionGradient, Mixture};
pub use patch::Patch;
pub use released::{Released, Unreleased, released};
pub use trainable::{Initial, PatchError, Trainable, initial_weights};
pub use training::{Applied, apply, count, trainable};

/// Name of the prompts' tensor, `[L, N, D]`.
pub const PROMPTS: &str = "prompt_embeddings";
