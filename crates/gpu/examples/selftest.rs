//! A GPU's self-test: every kernel, whole passes and steps against the CPU engine. **Never run.**
//!
//! `just check-cuda kernels` makes the modules; then, where the GPU is:
//! `selftest target/cuda-kernels/sm_90a.cubin [ordinal]`, with the directories of libcuda and libcublasLt on `LD_LIBRARY_PATH`.
#![allow(clippy::print_stdout, reason = "a command line")]

use std::process::ExitCode;

use gpu::cuda::Cuda;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: selftest target/cuda-kernels/ARCHITECTURE.cubin [ordinal]")?;
    let ordinal = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let module =
        std::fs::read(&path).map_err(|error| format!("{path}: {error}; `just check-cuda kernels` writes it"))?;
    let findings = gpu::selftest::run(&Cuda::open(ordinal, &module)?)?;
    let failed: Vec<_> = findings.iter().filter(|finding| !finding.holds()).collect();
    for finding in &findings {
        let verdict = if finding.holds() { "ok" } else { "FAILED" };
        let (precision, error) = (finding.precision.suffix(), finding.error);
        println!("{verdict:<7} {precision:<5} {error:<9.1e} of {:.0e}  {}", finding.bound, finding.what);
    }
    println!("{} of {} hold", findings.len() - failed.len(), findings.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
