//! The fast engine on a GPU: what crate `gpu` does of a manifest's methods and networks, for the stages that train, sample, decode
//! and take features.
//!
//! All of it is written for a machine; without feature `cuda` there is none, and [`open`] says so.

mod course;
mod decoder;
#[cfg(all(test, feature = "emulate"))]
mod emulated;
mod inception;
mod maps;
mod method;
mod recorder;
mod samples;

use anyhow::anyhow;
use gpu::Precision;
use manifest::scale::Dtype;

use crate::job::{Device, EngineError};

pub use course::MachineTraining;
pub use decoder::{BATCH as DECODED, MachineDecoder};
pub use inception::{BATCH as LOOKED_AT, MachineInception};
pub use samples::{MachineSampler, SamplerSetting};

/// The GPU's type.
#[cfg(feature = "cuda")]
pub type Gpu = gpu::cuda::Cuda;
/// The GPU's type.
#[cfg(not(feature = "cuda"))]
pub type Gpu = gpu::Absent;

/// GPU number `number`.
///
/// # Errors
/// [`EngineError::MissingInput`] where there is none, or the build is without CUDA.
pub fn open(number: usize) -> Result<Gpu, EngineError> {
    #[cfg(feature = "cuda")]
    let opened = gpu::cuda::Cuda::open(number);
    #[cfg(not(feature = "cuda"))]
    let opened: Result<Gpu, &str> = Err("this program is built without CUDA");
    opened.map_err(|error| Device::Cuda(number).missing(&error))
}

/// What GPU number `number` computes, held against the processor: how many things were looked at, and what of them is off.
///
/// # Errors
/// There is no such GPU, or it cannot run something at all.
pub fn self_test(number: usize) -> Result<(usize, Vec<String>), EngineError> {
    let findings = gpu::self_test(&open(number)?).map_err(anyhow::Error::from)?;
    let failed = findings.iter().filter(|finding| !finding.holds());
    let failed =
        failed.map(|f| format!("{} in {}: {:.1e}, not {:.0e}", f.what, f.precision.suffix(), f.error, f.bound));
    Ok((findings.len(), failed.collect()))
}

/// As the machines have it.
pub fn precision(dtype: Dtype) -> Precision {
    match dtype {
        Dtype::F32 => Precision::F32,
        Dtype::Bf16 => Precision::Bf16,
    }
}

/// An error of a machine, with what to do where it refuses.
fn said(error: gpu::Error) -> anyhow::Error {
    match error {
        gpu::Error::Unsupported { .. } => anyhow!("{error}; run it with `--engine reference`"),
        other => other.into(),
    }
}
