//! `runner weights`: files of weights listed, fetched, held against a network, converted.

use std::path::Path;

use models::architecture::Architecture;
use models::weights::{self, Format, WeightFile, Weights, WeightsError};
use report::sizes::grouped;
use serde::Serialize;

use super::published;
use crate::cli::{Names, Options, WeightsCommand};
use crate::exit::{Exit, Failure};
use crate::output::{Output, columns};
use crate::session::workspace;

/// Extensions of PyTorch's files.
const PYTORCH: [&str; 5] = ["pt", "pth", "th", "ckpt", "bin"];

/// Does what was asked of weights.
///
/// # Errors
/// Those of the files and of the line.
pub(crate) fn run(options: &Options, command: &WeightsCommand) -> Result<Exit, Failure> {
    let output = Output::new(options.json);
    match command {
        WeightsCommand::List { file: Some(file), part } => return list(output, file, part.as_deref()),
        WeightsCommand::Check { what, architecture: Some(architecture), part } => {
            return check(output, Path::new(what), *architecture, part.as_deref());
        }
        WeightsCommand::Convert { input, to, architecture, names, part, into_part } => {
            return convert(output, input, to, *architecture, *names, part.as_deref(), into_part.as_deref());
        }
        WeightsCommand::List { file: None, .. } | WeightsCommand::Fetch { .. } | WeightsCommand::Check { .. } => {}
    }
    let workspace = workspace(options)?;
    let publications = published::read(&workspace, output, "weights")?;
    match command {
        WeightsCommand::Fetch { names } => publications.fetch(names),
        WeightsCommand::Check { what, .. } if !publications.has(what) && Path::new(what).exists() => {
            Err(Failure::Usage(format!(
                "{what} is held against a network: say which with `--as`, e.g. `--as {}`",
                Architecture::DitB2
            )))
        }
        WeightsCommand::Check { what, .. } => publications.check(what),
        _ => publications.list(),
    }
}

/// A tensor as it is listed.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    element: String,
    shape: &'a [usize],
}

fn open(path: &Path, part: Option<&str>) -> Result<WeightFile, Failure> {
    WeightFile::open(path, part).map_err(failure)
}

/// A missing file is a missing input, a wrong part a wrong command line.
fn failure(error: WeightsError) -> Failure {
    match &error {
        WeightsError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::MissingInput(error.to_string())
        }
        WeightsError::Part { .. } => Failure::Usage(error.to_string()),
        _ => anyhow::Error::from(error).into(),
    }
}

/// Lists the tensors of a file. No number is read.
fn list(output: Output, path: &Path, part: Option<&str>) -> Result<Exit, Failure> {
    let file = open(path, part)?;
    let mut parameters = 0;
    let mut rows = Vec::new();
    for (name, element, shape) in file.tensors() {
        let element = format!("{element:?}").to_lowercase();
        parameters += shape.iter().product::<usize>();
        if output.is_json() {
            output.object(&Listed { name, element, shape })?;
        } else {
            rows.push(vec![name.to_owned(), element, format!("{shape:?}")]);
        }
    }
    if output.is_json() {
        return Ok(Exit::Done);
    }
    let format = match file.format() {
        Format::Safetensors => "safetensors",
        Format::PyTorch => "PyTorch",
    };
    let mut text = columns(&rows);
    text.push_str(&format!("{}: {format}, {} tensors, {} numbers", path.display(), rows.len(), grouped(parameters)));
    if file.parts().len() > 1 {
        text.push_str(&format!(", part {} of {}", file.part(), file.parts().join(", ")));
    }
    if !file.skipped().is_empty() {
        text.push_str(&format!("\nnot read: {}", file.skipped().join(", ")));
    }
    output.line(text)?;
    Ok(Exit::Done)
}

/// Says whether a file is a network's, and all its numbers are finite.
fn check(output: Output, path: &Path, architecture: Architecture, part: Option<&str>) -> Result<Exit, Failure> {
    let mut file = open(path, part)?;
    file.translate(architecture.family());
    let shapes = architecture.shapes().map_err(anyhow::Error::from)?;
    // Of another network's file the numbers say nothing.
    let faults = match file.check(&shapes).and_then(|()| file.check_numbers()) {
        Ok(()) => Vec::new(),
        Err(WeightsError::Keys { faults, .. }) => faults,
        Err(error) => return Err(failure(error)),
    };
    let parameters: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let object = serde_json::json!({
        "file": path, "as": architecture.name(), "part": file.part(), "tensors": shapes.len(),
        "numbers": parameters, "fits": faults.is_empty(), "faults": faults,
    });
    let about = format!("{} ({}, {} tensors)", architecture, architecture.about(), shapes.len());
    let text = match faults.len() {
        0 => format!("{} fits {about}: {} numbers, all finite", path.display(), grouped(parameters)),
        count => format!("{}\n{} does NOT fit {about}: {count} faults", faults.join("\n"), path.display()),
    };
    output.emit(&object, text)?;
    Ok(if faults.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Writes a file anew in the format that the other name's extension says, as 32-bit floats.
fn convert(
    output: Output,
    input: &Path,
    to: &Path,
    architecture: Option<Architecture>,
    names: Names,
    part: Option<&str>,
    into_part: Option<&str>,
) -> Result<Exit, Failure> {
    let format = format_of(to)?;
    if into_part.is_some() && format != Format::PyTorch {
        return Err(Failure::Usage("--into-part: safetensors has no parts; write a .pt file".to_owned()));
    }
    if to.exists() {
        return Err(Failure::Usage(format!("{} is there already; move it away, or give another name", to.display())));
    }
    let mut file = open(input, part)?;
    if let Some(architecture) = architecture {
        file.translate(architecture.family());
        file.check(&architecture.shapes().map_err(anyhow::Error::from)?).map_err(failure)?;
    }
    let mut tensors = file.read().map_err(failure)?;
    if let (Names::Original, Some(architecture)) = (names, architecture) {
        tensors = architecture.family().into_original(tensors);
    }
    let sha256 = write(to, &tensors, format, into_part)?;
    let object = serde_json::json!({"file": to, "tensors": tensors.len(), "sha256": sha256});
    output.emit(&object, format!("{}: {} tensors, sha256 {sha256}", to.display(), tensors.len()))?;
    Ok(Exit::Done)
}

/// The format that a name's extension says.
pub(super) fn format_of(to: &Path) -> Result<Format, Failure> {
    let extension = to.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "safetensors" => Ok(Format::Safetensors),
        extension if PYTORCH.contains(&extension) => Ok(Format::PyTorch),
        _ => {
            let known = PYTORCH.join(", .");
            Err(Failure::Usage(format!("{}: end it with .safetensors or .{known}", to.display())))
        }
    }
}

/// Writes weights, and returns the file's SHA-256.
pub(super) fn write(to: &Path, tensors: &Weights, format: Format, part: Option<&str>) -> Result<String, Failure> {
    let written = match format {
        Format::PyTorch => weights::torch::write(to, tensors, part),
        Format::Safetensors => weights::write(to, tensors),
    };
    written.map_err(failure)
}
