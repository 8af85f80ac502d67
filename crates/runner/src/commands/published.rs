//! What `runner data` and `runner weights` have in common: the files of `experiments/published.yaml`, listed, fetched
//! and checked.

use std::path::PathBuf;

use fetch::{FetchError, Fetched, Fetcher, Remote};
use indicatif::{ProgressBar, ProgressStyle};
use manifest::digest::Digest;
use manifest::problem::did_you_mean;
use manifest::published::{Publication, PublishedFile};
use manifest::{Error, Workspace};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Output, columns};
use crate::signals::StopRequests;

/// The publications of one kind, by name.
pub(super) struct Publications<'a> {
    /// The subcommand they belong to.
    pub(super) command: &'static str,
    pub(super) workspace: &'a Workspace,
    pub(super) named: indexmap::IndexMap<String, Publication>,
    pub(super) output: Output,
}

/// A file as it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It is there, with the pinned content.
    Sound,
    /// It is there; its content was not looked at.
    There,
    /// It is there, but no hash is pinned against which it could be held.
    Unpinned,
    /// It is there and has the pinned length no more, or another content.
    Damaged,
    /// It is nowhere.
    Missing,
}

/// A file, as lists and checks show it.
#[derive(Serialize)]
struct Row {
    name: String,
    file: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    url: String,
    content: Option<manifest::published::Content>,
    title: String,
    licence: String,
}

impl Publications<'_> {
    /// A publication by its name.
    ///
    /// # Errors
    /// There is none.
    fn get(&self, name: &str) -> Result<&Publication, Failure> {
        self.named.get(name).ok_or_else(|| {
            let (command, hint) = (self.command, self.did_you_mean(name));
            Failure::Usage(format!(
                "experiments/published.yaml has no {command} called `{name}`{hint}\n  `runner {command} list` lists all"
            ))
        })
    }

    /// The publication that is nearest to a word, if one is near.
    pub(super) fn did_you_mean(&self, word: &str) -> String {
        did_you_mean(word, self.named.keys().map(String::as_str))
    }

    /// Whether a word is the name of a publication.
    pub(super) fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    fn find(&self, file: &PublishedFile) -> Option<PathBuf> {
        self.workspace.data_folders().iter().map(|folder| folder.join(&file.file)).find(|path| path.is_file())
    }

    fn row(&self, name: &str, publication: &Publication, file: &PublishedFile, hashed: bool) -> Result<Row, Failure> {
        let path = self.find(file);
        let state = match (&path, &file.content) {
            (None, _) => State::Missing,
            (Some(_), None) if hashed => State::Unpinned,
            (Some(_), None) => State::There,
            (Some(path), Some(content)) => {
                let length = path.metadata().map_err(anyhow::Error::from)?.len();
                match length == content.bytes {
                    false => State::Damaged,
                    true if !hashed => State::There,
                    true if Digest::of_file(path).map_err(anyhow::Error::from)? == content.sha256 => State::Sound,
                    true => State::Damaged,
                }
            }
        };
        Ok(Row {
            name: name.to_owned(),
            file: file.file.clone(),
            state,
            path,
            url: file.url.clone(),
            content: file.content.clone(),
            title: publication.title.clone(),
            licence: publication.licence.clone(),
        })
    }

    /// Shows rows, and whether all are well.
    fn show(&self, rows: &[Row]) -> Result<Exit, Failure> {
        if self.output.is_json() {
            rows.iter().try_for_each(|row| self.output.object(row))?;
        } else {
            let cells = |row: &Row| {
                let state = match row.state {
                    State::Sound => "sound",
                    State::There => "there",
                    State::Unpinned => "there, no hash is pinned",
                    State::Damaged => "DAMAGED",
                    State::Missing => "missing",
                };
                let size = row.content.as_ref().map_or("?".to_owned(), |content| megabytes(content.bytes));
                let place = row.path.as_ref().map_or(row.file.clone(), |path| path.display().to_string());
                vec![row.name.clone(), state.to_owned(), size, place]
            };
            self.output.line(columns(&rows.iter().map(cells).collect::<Vec<_>>()))?;
        }
        let any = |state| rows.iter().any(|row| row.state == state);
        Ok(match () {
            () if any(State::Damaged) || any(State::Unpinned) => Exit::Failed,
            () if any(State::Missing) => Exit::MissingInput,
            () => Exit::Done,
        })
    }

    /// Lists all files: what is there, and where the rest is expected. What is missing is no failure.
    pub(super) fn list(&self) -> Result<Exit, Failure> {
        let mut rows = Vec::new();
        for (name, publication) in &self.named {
            for file in &publication.files {
                rows.push(self.row(name, publication, file, false)?);
            }
        }
        self.show(&rows)?;
        if !self.output.is_json() && rows.iter().any(|row| row.state == State::Missing) {
            let fetch = format!("`runner {} fetch NAME` puts files under", self.command);
            self.output.line(format!("{fetch} {}", self.workspace.download_folder().display()))?;
        }
        Ok(Exit::Done)
    }

    /// Holds a publication's files against their hashes.
    pub(super) fn check(&self, name: &str) -> Result<Exit, Failure> {
        let publication = self.get(name)?;
        let rows = publication.files.iter().map(|file| self.row(name, publication, file, true));
        self.show(&rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// Fetches what is missing of publications.
    pub(super) fn fetch(&self, names: &[String]) -> Result<Exit, Failure> {
        let stop = StopRequests::listen().map_err(anyhow::Error::from)?;
        let fetcher = Fetcher::default();
        let publications = names.iter().map(|name| Ok((name, self.get(name)?)));
        for (name, publication) in publications.collect::<Result<Vec<_>, Failure>>()? {
            for file in &publication.files {
                let path = self.find(file).unwrap_or_else(|| self.workspace.download_folder().join(&file.file));
                let Some(content) = &file.content else {
                    if path.exists() {
                        let said = "there, no hash is pinned";
                        let object = serde_json::json!({"name": name, "file": file.file, "path": path, "said": said});
                        self.output.emit(&object, format!("{}: {said}", path.display()))?;
                        continue;
                    }
                    return Err(Failure::MissingInput(format!(
                        "the hash of {} is not pinned, so that nothing could tell what came\n  download {} to {}, or pin \
                         its length and hash in experiments/published.yaml",
                        file.file,
                        file.url,
                        path.display()
                    )));
                };
                let remote = Remote { url: file.url.clone(), bytes: content.bytes, sha256: content.sha256 };
                let bar = ProgressBar::new(content.bytes).with_message(file.file.clone());
                let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                let fetched = fetcher.fetch(&remote, &path, |bytes| {
                    bar.set_position(bytes);
                    stop.count() == 0
                });
                bar.finish_and_clear();
                let said = match fetched {
                    Ok(Fetched::AlreadyThere) => "already there".to_owned(),
                    Ok(Fetched::Now { resumed: 0 }) => format!("fetched, {}", megabytes(content.bytes)),
                    Ok(Fetched::Now { resumed }) => {
                        format!("fetched, {}, of which {} were there", megabytes(content.bytes), megabytes(resumed))
                    }
                    Err(FetchError::Interrupted) => {
                        self.output.line(format!("{}: {}", file.file, FetchError::Interrupted))?;
                        return Ok(Exit::Interrupted);
                    }
                    Err(error @ (FetchError::Connection { .. } | FetchError::Status { .. })) => {
                        return Err(Failure::MissingInput(error.to_string()));
                    }
                    Err(error) => return Err(anyhow::Error::from(error).into()),
                };
                let object = serde_json::json!({"name": name, "file": file.file, "path": path, "said": said});
                self.output.emit(&object, format!("{}: {said}", path.display()))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// Reads `experiments/published.yaml` and takes one of its sections.
///
/// # Errors
/// The file is wrong.
pub(super) fn read<'a>(
    workspace: &'a Workspace,
    output: Output,
    command: &'static str,
) -> Result<Publications<'a>, Error> {
    let published = workspace.published()?;
    let named = if command == "data" { published.data } else { published.weights };
    Ok(Publications { command, workspace, named, output })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
