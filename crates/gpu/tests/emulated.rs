//! Every kernel, compiled by g++ and run thread by thread, against the CPU engine.

use std::process::Command;

use gpu::check::{self, Finding};
use gpu::emulator::Emulator;
use gpu::machine::Grid;
use gpu::{Array, Error, Machine, Precision};

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
    for case in check::CASES {
        for precision in Precision::ALL {
            let run = |order| check::steps(&Emulator::new(order), precision, case, 4).unwrap();
            near_or_equal(&check::steps(&Emulator::new(0), precision, case, 3).unwrap(), &[]);
            near_or_equal(&run(0), &run(2));
        }
    }
}

#[test]
fn samples() {
    for precision in Precision::ALL {
        let run = |order| check::samples(&Emulator::new(order), precision).unwrap();
        near_or_equal(&run(0), &run(3));
    }
}

#[test]
fn maps_in_f32() {
    near_the_cpu_in_every_order(check::maps, Precision::F32);
}

#[test]
fn maps_in_bf16() {
    near_the_cpu_in_every_order(check::maps, Precision::Bf16);
}

/// All hold, and have the bits of those that came in another order.
fn near_or_equal(first: &[Finding], other: &[Finding]) {
    for finding in first {
        assert!(finding.holds(), "{finding:?}");
    }
    for (one, other) in first.iter().zip(other) {
        assert_eq!(one.bits, other.bits, "{}", one.what);
    }
}

/// Runs a wrong kernel of `emulator/faults.cuh` and returns what it wrote.
fn fault(name: &str, order: u32) -> Vec<f32> {
    let (threads, machine) = (256, Emulator::new(order));
    let out = Array::new(&machine, Precision::F32, threads as usize).unwrap();
    let grid = Grid { blocks: [1, 1], threads, shared: 4 * threads as usize };
    let arguments = out.at(0);
    // SAFETY: it is wrong on purpose; guard pages end the process.
    unsafe { machine.launch(name, grid, (&raw const arguments).cast(), size_of_val(&arguments)) }.unwrap();
    out.read(&machine).unwrap()
}

#[test]
fn a_race_depends_on_the_order() {
    assert_ne!(check::hash(&fault("fault_race_f32", 0)), check::hash(&fault("fault_race_f32", 1)));
}

/// The kernel that the environment names; the emulator ends the process.
#[test]
fn deadly_fault() {
    if let Ok(name) = std::env::var("GPU_FAULT") {
        fault(&name, 0);
    }
}

#[test]
fn faults_end_the_process_with_their_name() {
    for (name, reason) in [
        ("fault_outside_f32", "touches memory outside its buffers"),
        ("fault_shared_f32", "touches memory outside its buffers"),
        ("fault_barrier_f32", "different barriers"),
        ("fault_alignment_f32", "not aligned to 16"),
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let child = child.args(["--exact", "deadly_fault", "--nocapture"]).env("GPU_FAULT", name).output().unwrap();
        let told = String::from_utf8_lossy(&child.stderr).into_owned();
        assert!(!child.status.success() && told.contains(name) && told.contains(reason), "{name}: {told}");
    }
}
