//! `runner bench`: how long steps take on this machine, beside the floor that its matrix products set.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use engine::bench::{Measurement, Setting, Work, measure};
use manifest::scale::Engine;

use crate::cli::{EngineName, Options};
use crate::device::Device;
use crate::exit::{Exit, Failure};
use crate::output::{Output, columns};

/// Measures `works`, those that are usual on the device where none is named, for `seconds` each.
///
/// Each work has a process of its own, so that neither memory nor caches of one show in another.
///
/// # Errors
/// When the device is missing, or a work failed.
pub(crate) fn run(options: &Options, works: &[Work], seconds: f64) -> Result<Exit, Failure> {
    let device = options.device.unwrap_or(Device::Cpu);
    device.check().map_err(Failure::NoDevice)?;
    let output = Output::new(options.json);
    let on_gpu = device != Device::Cpu;
    let usual = || Work::ALL.into_iter().filter(|work| work.usual(on_gpu)).collect();
    let works: Vec<Work> = if works.is_empty() { usual() } else { works.to_vec() };
    let mut measured = Vec::new();
    for &work in &works {
        // This program has a GPU where it is `runner-cuda`.
        let measurement = match works[..] {
            [_] if !on_gpu || cfg!(feature = "cuda") => here(work, options, device, seconds)?,
            _ => in_a_process_of_its_own(work, options, device, seconds)?,
        };
        if output.is_json() {
            output.object(&measurement)?;
        }
        measured.push(measurement);
    }
    if !output.is_json() {
        output.line(text(&measured))?;
    }
    Ok(Exit::Done)
}

fn here(work: Work, options: &Options, device: Device, seconds: f64) -> anyhow::Result<Measurement> {
    let engine = match options.engine {
        Some(EngineName::Reference) => Engine::Reference,
        Some(EngineName::Fast) | None => Engine::Fast,
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(measure(work, &Setting { engine, device: device.into(), threads, seconds })?)
}

/// Runs the device's program for one work, and reads what it measured.
fn in_a_process_of_its_own(work: Work, options: &Options, device: Device, seconds: f64) -> anyhow::Result<Measurement> {
    let mut command = Command::new(device.program().context("this program's file is not known")?);
    let engine = match options.engine {
        Some(EngineName::Reference) => "reference",
        Some(EngineName::Fast) | None => "fast",
    };
    command.args(["bench", "--json", "--work", work.name(), "--engine", engine]);
    command.args(["--seconds", &seconds.to_string(), "--device", &device.to_string()]);
    let said = command.stderr(Stdio::inherit()).output().with_context(|| format!("{work} cannot be started"))?;
    ensure!(said.status.success(), "{work} failed: {}; try `runner bench --work {work}`", said.status);
    serde_json::from_slice(&said.stdout).with_context(|| format!("{work} did not say what it measured"))
}

fn text(measured: &[Measurement]) -> String {
    let head = ["work", "ms", "floor", "images/s", "GFLOP/s", "peak", "of peak", "memory", "of a step", "activations"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(measured.iter().map(row));
    let mut text = columns(&rows);
    text.push('\n');
    let titles = measured.iter().map(|m| vec![m.work.clone(), m.title.clone()]).collect::<Vec<_>>();
    text.push_str(&columns(&titles));
    if let Some(first) = measured.first() {
        let engine = if first.engine == Engine::Fast { "fast" } else { "reference" };
        text.push_str(&format!("\nengine {engine}, {} threads; medians; {NOTE}", first.threads));
    }
    text
}

/// What the columns mean.
const NOTE: &str = "peak: the machine's matrix products, measured beside each repetition;\n\
    floor: ms of the counted operations at that peak; memory: most of the process, most of a step beyond weights and\n\
    images, and the activations of a frozen step's batch.";

fn row(m: &Measurement) -> Vec<String> {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let megabytes = |bytes: Option<u64>| or_none(bytes.map(|bytes| format!("{:.0} MB", bytes as f64 / 1e6)));
    let milliseconds = |ms: f64| if ms < 100.0 { format!("{ms:.2}") } else { format!("{ms:.0}") };
    vec![
        m.work.clone(),
        milliseconds(m.step_ms),
        milliseconds(m.floor_ms),
        or_none(m.images_per_s.map(|rate| if rate < 100.0 { format!("{rate:.2}") } else { format!("{rate:.0}") })),
        format!("{:.1}", m.gflop_per_s),
        format!("{:.1}", m.peak_gflop_per_s),
        format!("{:.1}%", 100.0 * m.share_of_peak),
        megabytes(m.peak_bytes),
        megabytes(m.step_bytes),
        megabytes(m.activation_bytes),
    ]
}
