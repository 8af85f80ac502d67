//! Compiles the emulator where it is asked for. The kernels for GPUs are compiled by `.ci/check-cuda`, not here.

fn main() {
    println!("cargo::rerun-if-changed=cuda");
    println!("cargo::rerun-if-changed=emulator");
    #[cfg(feature = "emulate")]
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .include("emulator")
        .file("emulator/emulator.cpp")
        // nothing fused: exact.cuh promises the CPU's bits; and longjmp between stacks is meant
        .flags(["-ffp-contract=off", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Wno-unknown-pragmas"])
        .compile("emulator");
}
