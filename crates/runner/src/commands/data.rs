//! `runner data`: datasets listed, fetched and looked through.

use std::path::{Path, PathBuf};
use std::time::Instant;

use data::{Photographs, captions, folder, shards};
use engine::archive::Archive;
use indicatif::ProgressBar;
use serde::Serialize;

use super::published;
use crate::cli::{DataCommand, ImagesKind, Options};
use crate::exit::{Exit, Failure};
use crate::output::{Output, counted};
use crate::session::workspace;

/// What was found in a dataset.
#[derive(Serialize)]
struct Found {
    path: PathBuf,
    images: usize,
    classes: usize,
    captions: usize,
    ignored: usize,
    broken: Vec<Broken>,
    seconds: f64,
}

/// An image that cannot be used.
#[derive(Serialize)]
struct Broken {
    path: PathBuf,
    why: String,
}

/// Does what was asked of datasets.
///
/// # Errors
/// Those of the files and of the line.
pub(crate) fn run(options: &Options, command: &DataCommand) -> Result<Exit, Failure> {
    let output = Output::new(options.json);
    let workspace = workspace(options);
    if let DataCommand::Check { what, kind, captions, image_size } = command {
        // A name goes before a folder that is called so, as the one that `fetch` makes; `./name` is the folder.
        let is_name = match &workspace {
            Ok(workspace) => published::read(workspace, output, "data")?.has(what),
            Err(_) => false,
        };
        if !is_name && Path::new(what).exists() {
            return check(output, Path::new(what), *kind, captions.as_deref(), *image_size);
        }
    }
    let workspace = workspace?;
    let publications = published::read(&workspace, output, "data")?;
    match command {
        DataCommand::List => publications.list(),
        DataCommand::Fetch { names } => publications.fetch(names),
        DataCommand::Check { what, .. } if publications.has(what) => publications.check(what),
        DataCommand::Check { what, .. } => Err(Failure::MissingInput(format!(
            "{what} is neither a file or folder nor a dataset of experiments/published.yaml{}\n  `runner data list` lists these",
            publications.did_you_mean(what)
        ))),
    }
}

/// Decodes every image as training would, and says which cannot be.
fn check(
    output: Output,
    path: &Path,
    kind: ImagesKind,
    file_of_captions: Option<&Path>,
    side: usize,
) -> Result<Exit, Failure> {
    if kind == ImagesKind::Npz {
        if file_of_captions.is_some() {
            let problem = format!("{}: an .npz has no captions; leave out --captions, or --as npz", path.display());
            return Err(Failure::Usage(problem));
        }
        return check_archive(output, path, side);
    }
    let opened = match (kind, file_of_captions) {
        (_, Some(file)) => captions::open(file, path, side),
        (ImagesKind::ImageFolder, None) => folder::open(path, side),
        (ImagesKind::ClassFolders, None) => folder::open_classes(path, side),
        (ImagesKind::WebDataset, None) => shards::open(path, side),
        (ImagesKind::Npz, None) => unreachable!("it has no files to decode"),
    };
    let photographs: Photographs = opened.map_err(|error| match error {
        data::Error::Missing { .. } => Failure::MissingInput(error.to_string()),
        error => anyhow::Error::from(error).into(),
    })?;
    let bar = ProgressBar::new(photographs.len() as u64);
    let (start, mut broken) = (Instant::now(), Vec::new());
    photographs.each(0..photographs.len(), |i, image| {
        bar.inc(1);
        if let Err(error) = image {
            broken.push(Broken { path: photographs.path(i), why: error.to_string() });
        }
        Ok::<_, Failure>(())
    })?;
    bar.finish_and_clear();
    let found = Found {
        path: path.to_owned(),
        images: photographs.len(),
        classes: photographs.classes.len(),
        captions: photographs.captions.as_ref().map_or(0, Vec::len),
        ignored: photographs.ignored,
        broken,
        seconds: start.elapsed().as_secs_f64(),
    };
    output.emit(&found, text(&found))?;
    Ok(if found.broken.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Reads every image of an archive, to its checksum.
fn check_archive(output: Output, path: &Path, side: usize) -> Result<Exit, Failure> {
    let start = Instant::now();
    let archive = Archive::open(path, side)?;
    archive.each(0..archive.len(), 1, |_, _| anyhow::Ok(()))?;
    let found = Found {
        path: path.to_owned(),
        images: archive.len(),
        classes: 0,
        captions: 0,
        ignored: 0,
        broken: Vec::new(),
        seconds: start.elapsed().as_secs_f64(),
    };
    output.emit(&found, text(&found))?;
    Ok(Exit::Done)
}

fn text(found: &Found) -> String {
    let mut parts = vec![counted(found.images, "image")];
    if found.classes > 0 {
        parts.push(format!("{} classes", found.classes));
    }
    if found.captions > 0 {
        parts.push(counted(found.captions, "caption"));
    }
    if found.ignored > 0 {
        parts.push(counted(found.ignored, "other file"));
    }
    let rate = found.images as f64 / found.seconds.max(f64::MIN_POSITIVE);
    let lines = found.broken.iter().map(|broken| broken.why.clone());
    let verdict = match found.broken.len() {
        0 => format!("all can be decoded ({rate:.0} a second)"),
        count => format!("{count} CANNOT be decoded"),
    };
    lines.chain([format!("{}: {}; {verdict}", found.path.display(), parts.join(", "))]).collect::<Vec<_>>().join("\n")
}
