//! Every kernel, compiled by g++ and run thread by thread, against the CPU engine.

use gpu::check::{self, Finding};
use gpu::emulator::Emulator;
use gpu::{Error, Precision};
use kernels::Learn;

type Check = fn(&Emulator, Precision) -> Result<Vec<Finding>, Error>;

/// Threads and blocks from first to last, from last to first, and shuffled: near the CPU, and the same bits.
fn near_the_cpu_in_every_order(check: Check, precision: Precision) {
    let run = |order| check(&Emulator::new(order), precision).unwrap();
    let first = run(0);
    for finding in &first {
        assert!(finding.holds(), "{finding:?}");
    }
    for order in 1..4 {
        for (one, other) in first.iter().zip(run(order)) {
            assert_eq!(one.bits, other.bits, "order {order}: {}", one.what);
        }
    }
}

#[test]
fn kernels_in_f32() {
    near_the_cpu_in_every_order(check::kernels, Precision::F32);
}

#[test]
fn kernels_in_bf16() {
    near_the_cpu_in_every_order(check::kernels, Precision::Bf16);
}

#[test]
fn passes_in_f32() {
    near_the_cpu_in_every_order(check::passes, Precision::F32);
}

#[test]
fn passes_in_bf16() {
    near_the_cpu_in_every_order(check::passes, Precision::Bf16);
}

#[test]
fn steps_of_training() {
    for learn in [Learn::Contributions { from: 0 }, Learn::Everything] {
        for precision in Precision::ALL {
            let run = |order| check::steps(&Emulator::new(order), precision, learn, 3, |step| step.launch()).unwrap();
            let first = run(0);
            for (finding, other) in first.iter().zip(run(2)) {
                assert!(finding.holds(), "{finding:?}");
                assert_eq!(finding.bits, other.bits, "{}", finding.what);
            }
        }
    }
}
