//! A GPU's self-test without the rest of the workspace: what `runner doctor --device cuda:N` runs. **Never run.**
//!
//! `selftest [ordinal]`, with the directories of libcuda and libcublasLt on `LD_LIBRARY_PATH`; `just check-cuda kernels` type-checks it.
#![allow(clippy::print_stdout, reason = "a command line")]

use std::process::ExitCode;

use gpu::cuda::Cuda;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let ordinal = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let findings = gpu::self_test(&Cuda::open(ordinal)?)?;
    let failed = findings.iter().filter(|finding| !finding.holds()).count();
    for finding in &findings {
        let verdict = if finding.holds() { "ok" } else { "FAILED" };
        let (precision, error) = (finding.precision.suffix(), finding.error);
        println!("{verdict:<7} {precision:<5} {error:<9.1e} of {:.0e}  {}", finding.bound, finding.what);
    }
    println!("{} of {} hold", findings.len() - failed, findings.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
