//! `runner-cuda`: the same program with CUDA; `runner` starts it for stages on a GPU.

fn main() -> std::process::ExitCode {
    runner::main()
}
