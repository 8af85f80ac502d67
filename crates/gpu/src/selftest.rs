//! What a GPU is asked to show before it is trusted: `runner doctor --device cuda:N`. **Never run.**

use crate::check::{self, Finding};
use crate::cuda::Cuda;
use crate::machine::{Error, Precision};

/// Steps that are held against the CPU's, and steps that must leave the same bits twice.
const COMPARED: u32 = 3;
const REPEATED: u32 = 100;

/// Every kernel, whole passes, steps of training (the first launched call by call, the second captured, the others replayed) and samples
/// against the CPU engine; then a hundred steps twice, which are held against each other. `progress` hears what comes next.
///
/// # Errors
/// The GPU cannot run something at all.
pub fn run(cuda: &Cuda, mut progress: impl FnMut(&str)) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for precision in Precision::ALL {
        let mut doing = |what: &str| progress(&format!("{what} in {}", precision.suffix()));
        doing("kernels");
        findings.extend(check::kernels(cuda, precision)?);
        doing("passes");
        findings.extend(check::passes(cuda, precision)?);
        doing("samples");
        findings.extend(check::samples(cuda, precision)?);
        for case in check::CASES {
            doing("steps");
            findings.extend(check::steps(cuda, precision, case, COMPARED)?);
            let run = || check::steps(cuda, precision, case, REPEATED);
            let equal = |(one, two): (Finding, Finding)| Finding {
                what: format!("{}, twice", one.what),
                error: if one.bits == two.bits { 0.0 } else { f64::INFINITY },
                bound: 0.0,
                ..one
            };
            findings.extend(run()?.into_iter().zip(run()?).map(equal));
        }
    }
    Ok(findings)
}
