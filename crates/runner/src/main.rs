//! `runner`: see the library.

fn main() -> std::process::ExitCode {
    runner::main()
}
