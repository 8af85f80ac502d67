//! Noise schedules, losses and samplers over any denoiser: tables in `f64`, samples as flat `f32` slices.
//!
//! A [`Process`] says how noise is added (`q`), a [`TrainingLoss`] what a denoiser is trained on, and a [`Sampler`]
//! how the process is run backwards. A sample is one contiguous slice `C * H * W`; a denoiser's output is the
//! predicted noise, followed by as many variance values where the variance is learned.
//!
//! Sources: DDPM (Ho et al. 2020), improved DDPM (Nichol & Dhariwal 2021), DDIM (Song et al. 2021), PNDM (Liu et al.
//! 2022), and their use in DiT (Peebles & Xie 2023) and Stable Diffusion (Rombach et al. 2022).

mod error;
mod exp;
mod kind;
pub mod likelihood;
mod loss;
mod pndm;
mod process;
mod respace;
mod reverse;
mod sampler;

pub use error::Error;
pub use kind::{Kind, Variance};
pub use loss::{MseWeight, SampleLoss, TrainingLoss};
pub use pndm::{History, Multistep};
pub use process::{Process, Schedule, Step};
pub use respace::Spacing;
pub use reverse::Coefficients;
pub use sampler::{Denoiser, Prediction, Sampler, initial_noise};
