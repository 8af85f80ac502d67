//! A scale: how large an experiment is run. It never changes what a cell means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The diffusion process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diffusion {
    /// Noise schedule.
    pub schedule: Schedule,
    /// Length `T` of the process.
    pub timesteps: usize,
}

/// Noise schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Linear betas from `0.1 / T` to `20 / T`.
    Linear,
    /// Squared-cosine alphas (Nichol & Dhariwal 2021), betas at most 0.999.
    Cosine,
}

/// Iterations, batch, learning rate: AdamW (betas 0.9 and 0.999, eps 1e-8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Optimisation {
    /// Optimiser steps.
    pub iterations: usize,
    /// Images a step.
    pub batch: usize,
    /// Learning rate.
    pub learning_rate: f64,
    /// Learning rate at the last step, reached along a cosine; equal to `learning_rate` for a constant one.
    pub final_learning_rate: f64,
    /// Steps over which the learning rate rises from zero.
    pub warmup_iterations: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether half of the images are mirrored.
    pub horizontal_flip: bool,
}

/// How the process is run backwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sampler {
    /// Which sampler.
    pub kind: SamplerKind,
    /// Steps, of the process's `timesteps`.
    pub steps: usize,
    /// Whether the predicted image is clipped to [-1, 1] (pixels: yes; latents: no).
    pub clip_x0: bool,
    /// Scale of classifier-free guidance; 1 is none.
    pub guidance: f64,
    /// Which channels are guided.
    pub guidance_channels: GuidanceChannels,
}

/// Which sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Ancestral sampling with the learned variance (respaced).
    Ddpm,
    /// Deterministic DDIM (eta 0).
    Ddim,
}

/// Which channels are guided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuidanceChannels {
    /// Released code: the first three.
    FirstThree,
    /// All.
    All,
}

/// What decides an arithmetic result besides the program: part of every key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    /// Which implementation of the trunk.
    pub engine: Engine,
    /// Which kind of device.
    pub device: DeviceKind,
    /// Precision.
    pub dtype: Dtype,
}

/// Which implementation of the trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// candle tensors and autograd.
    Reference,
    /// Hand-written forward and backward passes (crate `kernels`).
    Fast,
}

/// Which kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Precision of the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
}
