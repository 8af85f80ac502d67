//! `runner schema`: JSON schemas of the manifests, for editors.

use std::path::PathBuf;

use anyhow::Context;

use crate::cli::Options;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::session::workspace;

/// Prints the schemas, or writes them to `experiments/schema/`.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn run(options: &Options, write: bool) -> Result<Exit, Failure> {
    let output = Output::new(options.json);
    if !write {
        let all: serde_json::Map<String, serde_json::Value> =
            manifest::schema::all().into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
        let text = serde_json::to_string_pretty(&all).map_err(anyhow::Error::from)?;
        output.emit(&all, text)?;
        return Ok(Exit::Done);
    }
    let folder = workspace(options)?.root().join("experiments/schema");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut written: Vec<PathBuf> = Vec::new();
    for (name, schema) in manifest::schema::all() {
        let path = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&schema).map_err(anyhow::Error::from)? + "\n";
        if std::fs::read_to_string(&path).is_ok_and(|current| current == text) {
            continue;
        }
        store::atomic::write(&path, text.as_bytes())?;
        written.push(path);
    }
    let text = match written.as_slice() {
        [] => "all schemas are current".to_owned(),
        paths => paths.iter().map(|path| format!("wrote {}", path.display())).collect::<Vec<_>>().join("\n"),
    };
    output.emit(&serde_json::json!({"written": written}), text)?;
    Ok(Exit::Done)
}
