//! The command line as typed: subcommands and options, with an example each.

mod data;
mod export;
mod weights;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::bench::Work;

pub(crate) use data::{DataCommand, ImagesKind};
pub(crate) use export::{Export, ExportCommand};
pub(crate) use weights::{Names, WeightsCommand};

use crate::device::Device;
use crate::seeds::Seeds;

const OVERVIEW: &str = "\
Examples:
  runner plan table4 --explain          what would run, and why
  runner reproduce table4               run what is missing, then write reports/table4.md
  runner run table4 --cell b/hard       one cell only
  runner status table4                  done, running, interrupted, failed

Exit codes: 0 all done; 1 some run failed; 2 usage or manifest error; 3 missing input (data, weights, device);
130 interrupted (state saved: the same command goes on).";

/// Reproduces the tables and figures of a paper from content-addressed stages.
#[derive(Debug, Parser)]
#[command(name = "runner", version, after_help = OVERVIEW, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every subcommand understands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Options {
    /// Folder that holds `experiments/`; found by walking up from the current folder when not given.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Results tree [default: `results` under the root].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,
    /// Where reports are written [default: `reports` under the root].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) reports: Option<PathBuf>,
    /// Machine-readable output: one JSON object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Scale: one of `experiments/scales/*.yaml`.
    #[arg(long, global = true, value_name = "NAME", default_value = "tiny")]
    pub(crate) scale: String,
    /// Sets one value of the manifest or scale, checked as if it stood in the file, e.g. `train.iterations=50`.
    #[arg(long, global = true, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Training seeds: `0..2` is 0, 1 and 2; `0,3` is 0 and 3 [default: the scale's].
    #[arg(long, global = true, value_name = "SEEDS")]
    pub(crate) seeds: Option<Seeds>,
    /// Device: `cpu` or `cuda:N` [default: `cpu`].
    #[arg(long, global = true, value_name = "DEVICE")]
    pub(crate) device: Option<Device>,
    /// Which implementation of the trunk computes [default: the scale's; with `--device cuda:N` `reference`; of `bench` always `fast`].
    #[arg(long, global = true, value_name = "ENGINE", value_enum)]
    pub(crate) engine: Option<EngineName>,
    /// Stages that run at once [default: number of cores; 1 on a GPU].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// What happens to stages that were run before.
    #[arg(long, global = true, value_enum, default_value_t = Mode::Cached)]
    pub(crate) mode: Mode,
}

/// What happens to stages that were run before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Run what is missing. Failures stand, but for those for want of memory, disk space or an input.
    Cached,
    /// As `cached`, and run every failed stage again.
    Retry,
    /// Run every stage again from its beginning.
    Force,
    /// Run nothing; work with the records that are there.
    ReadOnly,
}

/// Which implementation of the trunk computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    /// candle tensors and autograd.
    Reference,
    /// Hand-written forward and backward passes.
    Fast,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show which stages are done, which will run, and why.
    #[command(after_help = "Example:\n  runner plan table4 --explain --scale tiny --seeds 0..2")]
    Plan {
        /// Artifact (`table4`), manifest (`experiments/table4.yaml`), or `all`.
        #[arg(value_name = "ARTIFACT")]
        artifact: String,
        /// Say of every stage why it will run.
        #[arg(long)]
        explain: bool,
    },
    /// Run every cell of manifests; write no report.
    #[command(
        after_help = "Example:\n  runner sweep experiments/table4.yaml --scale tiny --set train.iterations=50 --seeds 0..2 --jobs 2"
    )]
    Sweep {
        /// Manifests or artifacts.
        #[arg(value_name = "MANIFEST", required = true)]
        manifests: Vec<String>,
    },
    /// Run one recipe (a backbone, an extractor), or one cell of a manifest.
    #[command(after_help = "Examples:\n  runner run experiments/tiny-backbone.yaml\n  runner run table4 --cell b/hard")]
    Run {
        /// Recipe, manifest or artifact.
        #[arg(value_name = "RECIPE|MANIFEST")]
        manifest: String,
        /// Only this cell, e.g. `b/hard`; repeat for several.
        #[arg(long, value_name = "CELL")]
        cell: Vec<String>,
    },
    /// Run what is missing of artifacts, then write their reports.
    #[command(after_help = "Examples:\n  runner reproduce table4\n  runner reproduce all --seeds 0..2")]
    Reproduce {
        /// Artifacts or manifests; `all` is every artifact under `experiments/`, as far as the scale has what it needs.
        #[arg(value_name = "ARTIFACT", required = true)]
        artifacts: Vec<String>,
    },
    /// Write an artifact's report from the records that are there.
    #[command(after_help = "Example:\n  runner report table4")]
    Report {
        /// Artifact or manifest.
        #[arg(value_name = "ARTIFACT")]
        artifact: String,
    },
    /// Count the stages that are done, running, interrupted, failed.
    #[command(after_help = "Examples:\n  runner status\n  runner status table4")]
    Status {
        /// Artifact or manifest; everything in the results tree when not given.
        #[arg(value_name = "ARTIFACT")]
        artifact: Option<String>,
    },
    /// Show one stage: parameters, record, provenance, logs.
    #[command(after_help = "Examples:\n  runner show 3fa9\n  runner show b/hard")]
    Show {
        /// Key (its first four digits or more), or a cell: `b/hard`, or with its artifact `table4:b/hard`.
        #[arg(value_name = "KEY|CELL")]
        what: String,
    },
    /// Write what a cell has made into files that others' tools read.
    #[command(arg_required_else_help = true)]
    Export {
        /// What of it.
        #[command(subcommand)]
        command: ExportCommand,
    },
    /// Print the log of a stage's last attempt.
    #[command(after_help = "Example:\n  runner logs 3fa9 --follow")]
    Logs {
        /// Key, or its first four digits or more.
        #[arg(value_name = "KEY")]
        key: String,
        /// Go on printing until the attempt ends.
        #[arg(short, long)]
        follow: bool,
    },
    /// Compare two stages: parameters and metrics that differ.
    #[command(after_help = "Example:\n  runner compare 3fa9 71c0")]
    Compare {
        /// First key.
        #[arg(value_name = "KEY")]
        left: String,
        /// Second key.
        #[arg(value_name = "KEY")]
        right: String,
    },
    /// Check every record and artifact of the results tree against its hash.
    #[command(after_help = "Example:\n  runner verify")]
    Verify,
    /// List what no manifest asks for any more, and delete it with `--delete`.
    #[command(after_help = "Examples:\n  runner gc\n  runner gc --delete")]
    Gc {
        /// Delete what is listed.
        #[arg(long)]
        delete: bool,
    },
    /// Print the JSON schemas of the manifests, or write them to `experiments/schema/`.
    #[command(after_help = "Example:\n  runner schema --write")]
    Schema {
        /// Write the files instead of printing them.
        #[arg(long)]
        write: bool,
    },
    /// Datasets: which there are, fetch them, look through them.
    #[command(arg_required_else_help = true)]
    Data {
        /// What to do with them.
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Files of weights: which there are, fetch them, hold them against a network, convert them.
    #[command(arg_required_else_help = true)]
    Weights {
        /// What to do with them.
        #[command(subcommand)]
        command: WeightsCommand,
    },
    /// Check this machine: cores, memory, SIMD, data, results folder, disk space, device.
    #[command(after_help = "Example:\n  runner doctor --device cuda:0")]
    Doctor,
    /// Time steps, samples, the Frechet distance, precision and recall beside the floor that this machine's matrix products set.
    #[command(
        after_help = "Examples:\n  runner bench\n  runner bench --work nano-dmp --work nano-full --seconds 20 --json"
    )]
    Bench {
        /// What is timed; repeat for several [default: those worth timing on the device; `coverage` takes minutes].
        #[arg(long, value_name = "NAME", value_parser = works())]
        work: Vec<Work>,
        /// How long each work is repeated.
        #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
        seconds: f64,
    },
    /// Print a shell's completion script.
    #[command(after_help = "Example:\n  runner completions bash > ~/.local/share/bash-completion/completions/runner")]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Execute one stage, described by a JSON line on standard input. The runner starts itself this way.
    #[command(hide = true)]
    Stage,
}

/// Names of works, all of which `--help` lists.
fn works() -> impl TypedValueParser<Value = Work> {
    PossibleValuesParser::new(Work::ALL.map(Work::name)).try_map(|name| name.parse::<Work>())
}

/// A time in seconds, not below zero.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(seconds),
        _ => Err("give a number of seconds, e.g. `5`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn repository() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    fn document(name: &str) -> String {
        std::fs::read_to_string(repository().join(name)).unwrap()
    }

    /// Lines of shell blocks, comments cut off.
    fn commands(text: &str) -> Vec<Vec<&str>> {
        let lines =
            text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n")).flat_map(str::lines);
        lines.map(|line| line.split('#').next().unwrap_or_default().split_whitespace().collect()).collect()
    }

    #[test]
    fn every_command_of_the_readme_is_understood() {
        let readme = document("README.md");
        let typed: Vec<_> = commands(&readme).into_iter().filter(|words| words.first() == Some(&"runner")).collect();
        assert!(typed.len() >= 5, "{typed:?}");
        for words in typed {
            Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        }
    }
}
