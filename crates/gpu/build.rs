//! Compiles the kernels where they are asked for: by g++ for the emulator, by nvcc for GPUs.

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
    #[cfg(feature = "cuda")]
    fatbin();
}

/// One file for compute capability 8.0 and 9.0, and PTX that a driver compiles for newer cards.
#[cfg(feature = "cuda")]
fn fatbin() {
    use std::path::Path;
    use std::process::Command;

    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let home = std::env::var("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc").display().to_string());
    let nvcc = std::env::var("NVCC").or(home).unwrap_or_else(|_| "nvcc".into());
    let out = std::env::var("OUT_DIR").expect("cargo says where");
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "-fatbin", "-gencode", "arch=compute_80,code=[sm_80,compute_80]"]);
    command.args(["-gencode", "arch=compute_90a,code=sm_90a", "-o"]);
    command.args([&format!("{out}/kernels.fatbin"), "cuda/kernels.cu"]);
    let advice = "install the CUDA toolkit, or set NVCC or CUDA_HOME to where it is (`just check-cuda` fetches one)";
    let status = command.status().unwrap_or_else(|error| panic!("{nvcc} cannot be started: {error}; {advice}"));
    assert!(status.success(), "{nvcc} ended with {status}");
}
