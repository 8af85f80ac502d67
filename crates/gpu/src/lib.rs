//! The DiT trunk's training step in CUDA: kernels (`cuda/`), their schedule, and an emulator that runs both on a CPU (`emulator/`).

mod arguments;
mod array;
pub mod check;
mod diffusion_table;
#[cfg(feature = "emulate")]
pub mod emulator;
mod launch;
pub mod machine;
mod optimizer;
pub mod trunk;

pub use array::Array;
pub use machine::{Error, Machine, Precision};
pub use trunk::{Added, Trunk};
