//! What a GPU is asked to show before it is trusted: `runner doctor --device cuda:N`. **Never run on one.**

use crate::check::{self, Finding};
use crate::machine::{Error, Machine, Precision};

/// Steps that are held against the CPU's, and steps that must leave the same bits twice.
const COMPARED: u32 = 3;
const REPEATED: u32 = 100;

/// Every kernel, whole passes, steps of training (the first launched call by call, the second captured, the third replayed), samples and
/// layers of feature maps against the CPU engine; then a hundred steps twice, which are held against each other.
///
/// # Errors
/// The machine cannot run something at all.
pub fn self_test<M: Machine>(machine: &M) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for precision in Precision::ALL {
        findings.extend(check::kernels(machine, precision)?);
        findings.extend(check::passes(machine, precision)?);
        findings.extend(check::samples(machine, precision)?);
        findings.extend(check::maps(machine, precision)?);
        for case in check::CASES {
            findings.extend(check::steps(machine, precision, case, COMPARED)?);
            let run = || check::steps(machine, precision, case, REPEATED);
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
