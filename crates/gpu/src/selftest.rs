//! What a GPU is asked to show before it is trusted: for `runner doctor --device cuda:N`. **Never run.**

use std::cell::OnceCell;

use kernels::Learn;

use crate::check::{self, Finding};
use crate::cuda::{Cuda, Graph};
use crate::machine::{Error, Precision};

/// Steps that must leave the same bits twice.
const STEPS: u32 = 100;

/// Every kernel, whole passes, and training steps replayed as a graph, against the CPU engine; then a hundred steps twice, which are held
/// against each other.
///
/// # Errors
/// The GPU cannot run something at all.
pub fn run(cuda: &Cuda) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for precision in Precision::ALL {
        findings.extend(check::kernels(cuda, precision)?);
        findings.extend(check::passes(cuda, precision)?);
        for learn in [Learn::Contributions { from: 0 }, Learn::Everything] {
            findings.extend(replayed(cuda, precision, learn, 3)?);
            let [one, two] = [replayed(cuda, precision, learn, STEPS)?, replayed(cuda, precision, learn, STEPS)?];
            let error = |(one, two): (Finding, Finding)| Finding {
                what: format!("{}, twice", one.what),
                error: if one.bits == two.bits { 0.0 } else { f64::INFINITY },
                bound: 0.0,
                ..one
            };
            findings.extend(one.into_iter().zip(two).map(error));
        }
    }
    Ok(findings)
}

/// Steps of which the first is launched kernel by kernel, the second captured, and the others replayed.
fn replayed(cuda: &Cuda, precision: Precision, learn: Learn, count: u32) -> Result<Vec<Finding>, Error> {
    let graph: OnceCell<Graph> = OnceCell::new();
    let mut warm = false;
    check::steps(cuda, precision, learn, count, |step| {
        if !std::mem::replace(&mut warm, true) {
            return step.launch();
        }
        if graph.get().is_none() {
            // capturing launches nothing
            let captured = cuda.capture(|| step.launch())?;
            graph.get_or_init(|| captured);
        }
        graph.get().expect("just captured").launch()
    })
}
