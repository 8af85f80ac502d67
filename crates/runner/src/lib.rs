//! The command line: plan, run, sweep, reproduce, report.
//!
//! [`cli`] is what was typed, [`session`] what it means here; each file under [`commands`] is one subcommand. Stages run in
//! child processes ([`executor`], [`worker`]), which are this same program ([`child`]), or, on a GPU, `runner-cuda`: the
//! same program again, linked against CUDA, so that `runner` itself starts where there is no driver.

mod child;
mod cli;
mod commands;
mod device;
mod difference;
mod ending;
mod executor;
mod exit;
mod explain;
mod inventory;
mod output;
mod progress;
mod protocol;
mod schedule;
mod seeds;
mod session;
mod signals;
mod tasks;
mod work;
mod worker;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// The program.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let exit = failure.exit();
            if exit != exit::Exit::Done {
                // A closed standard error is nobody's loss.
                let _ = writeln!(std::io::stderr(), "error: {failure}");
            }
            exit.into()
        }
    }
}
