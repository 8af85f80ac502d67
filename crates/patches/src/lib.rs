//! Prompts and gates: what is patched into a frozen backbone, through the hooks of the model.
//!
//! A [`Patch`] is built from a method and its trained tensors. For a batch of conditions it makes a [`Mixture`]: what is
//! put before each block. A mixture is the model's hooks for the reference path, and it says in plain tensors what a
//! hand-written trunk adds where and takes the trunk's gradients back to the patch's own tensors.
//!
//! Letters of all shapes: `B` batch, `T` image tokens, `N` prompts, `D` width, `L` blocks with prompts.

pub mod balance;
mod gate;
mod mixture;
mod patch;
mod place;
mod trainable;

pub use mixture::{Contribution, ContributionGradient, Mixture};
pub use patch::{Patch, PatchError, trainable};
pub use trainable::{Initial, Trainable, initial_weights};

/// Name of the prompts' tensor, `[L, N, D]`.
pub const PROMPTS: &str = "prompt_embeddings";
