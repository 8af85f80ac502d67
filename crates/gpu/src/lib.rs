//! A DiT's training steps and samples, an autoencoder's decoder and Inception in CUDA: kernels (`cuda/`), their schedule, and an emulator
//! that runs both on a CPU (`emulator/`).
//!
//! Everything is written for a [`Machine`]: memory, launches by name, matrix products. With feature `emulate` there is one on the CPU, for
//! which g++ compiles the kernels' very files; with feature `cuda` one on a GPU. A [`Trunk`] is `kernels`' schedule over a machine, a [`Step`]
//! all of a training step around it, [`Sampling`] a sampler, a [`MapNetwork`] layers over feature maps, [`check`] all of them against the CPU.
//! The default build has neither machine.
//!
//! # What has run, and what never has
//! - In the emulator (`just check-kernels`): every kernel in `f32` and bf16 against the CPU engine, whole passes (sampling with shared rows,
//!   prompts and vectors on a frozen trunk, added to the tokens or in front of them, all weights), the gates, whole training steps (recorded
//!   and replayed as a graph would be), samples and networks of feature maps; in several orders of threads and blocks, with the same bits;
//!   between guard pages, in memory that holds NaNs.
//! - By nvcc (`just check-cuda kernels`): every kernel compiles for compute capability 8.0 and 9.0, its registers fit.
//! - **Never, on any GPU**: a kernel, a product by cuBLASLt, a captured graph, the self-test. `cuda.rs` has been type-checked, no more. No
//!   time and no amount of memory has been measured. The emulator knows nothing of a GPU's compiler, of its memory model, of whether blocks
//!   fit, and its `mma` and `ldmatrix` are the PTX manual as we read it.
//!
//! The first hour with a GPU: docs/cuda.md.
//!
//! # What is not written
//! A gate, or prompts in front, on a trunk that learns, gradients of images and of LoRA's products, the autoencoder's encoder, UNets.

mod absent;
mod arguments;
mod array;
pub mod check;
#[cfg(feature = "cuda")]
pub mod cuda;
mod descent;
mod diffusion_table;
#[cfg(feature = "emulate")]
pub mod emulator;
mod feed;
mod fit;
mod gate;
mod launch;
mod ledger;
pub mod machine;
mod maps;
mod mixture;
mod optimizer;
mod peak;
mod pool;
mod sampling;
mod selftest;
mod setting;
mod step;
mod trunk;

pub use absent::Absent;
pub use arguments::Place;
pub use array::Array;
pub use feed::{SLOTS, StepLosses};
pub use fit::{check_maps, check_step, sampling_bytes, step_bytes};
pub use gate::{Architecture, Balance, Gating, Importance, Selection};
pub use launch::{HEAD_WIDTHS, MAX_TOKENS, MAX_WIDTH};
pub use machine::{Error, Machine, Precision};
pub use maps::{GATHERED, Map, MapNetwork, Pooling, Program, Size, Window};
pub use optimizer::Rates;
pub use peak::peak;
pub use pool::Pool;
pub use sampling::{Call, Guidance, Labels, Sampled, Sampling};
pub use selftest::self_test;
pub use setting::{Method, Prompts, Setting, State};
pub use step::Step;
pub use trunk::{Added, Patch, Trunk};
