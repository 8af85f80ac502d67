//! `runner doctor`: whether this machine has what the stages need.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::Options;
use crate::device::Device;
use crate::exit::{Exit, Failure};
use crate::output::{Output, columns};
use crate::session::{self, Access, Session, nearest_existing};

/// Less free memory than this is worth a warning.
const LITTLE_MEMORY: u64 = 2_000_000_000;
/// Less free disk space than this is worth a warning.
const LITTLE_SPACE: u64 = 1_000_000_000;

/// How something looked at turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Missing,
    Failed,
    /// Nothing is wrong, but there is nothing to run.
    NotRun,
}

/// Something looked at.
#[derive(Serialize, Deserialize)]
struct Check {
    what: String,
    verdict: Verdict,
    found: String,
}

/// Looks at the machine. The exit is 3 where data or the device are missing, 1 where something else fails.
///
/// # Errors
/// Outside of a repository.
pub(crate) fn run(options: Options) -> Result<Exit, Failure> {
    let output = Output::new(options.json);
    let mut checks = vec![cores(), memory(), simd()];
    let session = Session::open(options, Access::Read)?;
    checks.extend([writable("results", session.results()), writable("reports", session.reports())]);
    checks.push(space(session.results()));
    checks.extend(device(session.device()));
    checks.extend(data(&session));
    for check in &checks {
        if output.is_json() {
            output.object(check)?;
        }
    }
    if !output.is_json() {
        let row = |check: &Check| {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Missing => "MISSING",
                Verdict::Failed => "FAILED",
                Verdict::NotRun => "not run",
            };
            vec![check.what.clone(), verdict.to_owned(), check.found.clone()]
        };
        output.line(columns(&checks.iter().map(row).collect::<Vec<_>>()))?;
    }
    let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
    Ok(match () {
        () if any(Verdict::Failed) => Exit::Failed,
        () if any(Verdict::Missing) => Exit::MissingInput,
        () => Exit::Done,
    })
}

fn check(what: &str, verdict: Verdict, found: impl Into<String>) -> Check {
    Check { what: what.to_owned(), verdict, found: found.into() }
}

fn cores() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    check("cores", Verdict::Ok, format!("{cores}: up to {cores} stages at once (`--jobs`)"))
}

fn memory() -> Check {
    let Ok(mut system) = sysinfo::System::new() else {
        return check("memory", Verdict::Warning, "the system does not tell");
    };
    system.refresh_memory();
    let (free, total) = (system.available_memory(), system.total_memory());
    let verdict = if free < LITTLE_MEMORY { Verdict::Warning } else { Verdict::Ok };
    check("memory", verdict, format!("{} free of {}", gigabytes(free), gigabytes(total)))
}

/// What the arithmetic can use. Without it all is slower, nothing else.
fn simd() -> Check {
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
        ];
        let found: Vec<&str> = known.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        match found.contains(&"avx2") && found.contains(&"fma") {
            true => check("SIMD", Verdict::Ok, found.join(", ")),
            false => check("SIMD", Verdict::Warning, "no AVX2 with FMA: stages will be slow"),
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        check("SIMD", Verdict::Ok, "NEON")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        check("SIMD", Verdict::Warning, "an unknown processor: stages may be slow")
    }
}

/// Whether the folder of an option can be written.
fn writable(option: &str, folder: &Path) -> Check {
    match session::writable(option, folder) {
        Ok(()) => check(option, Verdict::Ok, format!("{} can be written", folder.display())),
        Err(why) => check(option, Verdict::Failed, why),
    }
}

fn space(results: &Path) -> Check {
    match fs4::available_space(nearest_existing(results)) {
        Ok(free) if free < LITTLE_SPACE => {
            check("disk", Verdict::Warning, format!("{} free for results; `runner gc` may help", gigabytes(free)))
        }
        Ok(free) => check("disk", Verdict::Ok, format!("{} free for results", gigabytes(free))),
        Err(error) => check("disk", Verdict::Warning, format!("the free space is not known: {error}")),
    }
}

/// Whether the device is there and, a GPU, computes what the processor does.
fn device(device: Device) -> Vec<Check> {
    match device.check() {
        Err(why) => vec![check("device", Verdict::Missing, why)],
        Ok(()) if device == Device::Cpu => vec![check("device", Verdict::Ok, device.described())],
        Ok(()) => vec![check("device", Verdict::Ok, device.described()), self_test(device)],
    }
}

/// The self-test of a GPU: here, where this program has one, else by the program that does.
fn self_test(device: Device) -> Check {
    let said = match device {
        Device::Cuda(number) if cfg!(feature = "cuda") => {
            let said = |(findings, failed): (usize, Vec<String>)| match failed.as_slice() {
                [] => Ok(format!("{findings} kernels, passes, steps and samples agree with the processor")),
                failed => Err(format!("{} of {findings} checks failed:\n{}", failed.len(), failed.join("\n"))),
            };
            engine::self_test(number).map_err(|error| error.to_string()).and_then(said)
        }
        _ => by_its_program(device).map_err(|error| engine::causes(&error)),
    };
    match said {
        Ok(found) => check(SELF_TEST, Verdict::Ok, found),
        Err(why) => check(SELF_TEST, Verdict::Failed, why),
    }
}

const SELF_TEST: &str = "self-test";

/// What the device's program says of its self-test.
fn by_its_program(device: Device) -> anyhow::Result<String> {
    let mut command = std::process::Command::new(device.program()?);
    command.args(["doctor", "--json", "--device", &device.to_string()]);
    let said = command.stderr(std::process::Stdio::inherit()).output()?;
    let lines = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut checks = lines.lines().filter_map(|line| serde_json::from_str::<Check>(line).ok());
    match checks.find(|check| check.what == SELF_TEST) {
        Some(check) if check.verdict == Verdict::Ok => Ok(check.found),
        Some(check) => anyhow::bail!("{}", check.found),
        None => anyhow::bail!("{} ended with {} and did not say", device.program()?.display(), said.status),
    }
}

/// Whether each scale of each artifact finds its data and weights.
fn data(session: &Session) -> Vec<Check> {
    let mut checks = Vec::new();
    for artifact in session.workspace().artifacts() {
        for scale in session.workspace().scales() {
            let what = format!("{artifact} at {scale}");
            checks.push(match session.plan_at(&artifact, &scale) {
                Ok(manifest::Plan { missing: Some(missing), .. }) => {
                    let asked_for = scale == session.options.scale;
                    let why = format!("a part is left out: {}", first_line(&missing));
                    check(&what, if asked_for { Verdict::Missing } else { Verdict::Warning }, why)
                }
                Ok(manifest::Plan { stages, not_run, .. }) => match not_run.first() {
                    Some(cell) if stages.is_empty() => check(&what, Verdict::NotRun, &cell.reason),
                    _ => check(&what, Verdict::Ok, format!("data and weights are there, {} stages", stages.len())),
                },
                // Other scales than the one asked for may well lack their data.
                Err(Failure::Manifest(error @ manifest::Error::Missing(_))) => {
                    let asked_for = scale == session.options.scale;
                    let why = format!("{}; `runner plan {artifact} --scale {scale}` lists all", first_line(&error));
                    check(&what, if asked_for { Verdict::Missing } else { Verdict::Warning }, why)
                }
                Err(error) => check(&what, Verdict::Failed, first_line(&error)),
            });
        }
    }
    checks
}

fn first_line(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
