//! What is wrong in the input: every problem with its place, every missing file with where it was looked for.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file, relative to the repository's root; lines and columns count from 1.
    File {
        /// The file.
        file: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column, from 1, in characters.
        column: usize,
    },
    /// On the command line, as typed.
    Option(Arc<str>),
    /// Made by the program.
    Nowhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Place::Option(text) => write!(f, "{text}"),
            Place::Nowhere => write!(f, "(generated)"),
        }
    }
}

/// One thing that is wrong in a manifest, a scale, a recipe, the claims or an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, which values are allowed and which one is nearest.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A file or folder of data or weights that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Where the manifest asks for it.
    pub place: Place,
    /// The path as written.
    pub wanted: String,
    /// Why it cannot be used.
    pub reason: MissingReason,
    /// What gets it, where it is published.
    pub remedy: Option<String>,
}

/// Why an input cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingReason {
    /// It is at none of these places.
    NotFound(Vec<PathBuf>),
    /// It is there, but not the file that the manifest pins.
    WrongContent {
        /// The file.
        path: PathBuf,
        /// What the manifest pins.
        pinned: Digest,
        /// What the file holds.
        found: Digest,
    },
    /// It is there and cannot be read.
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// It has folders for more classes than the backbone has.
    Classes {
        /// The folder.
        path: PathBuf,
        /// Folders of classes in it.
        found: usize,
        /// Classes of the backbone.
        classes: usize,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match &self.reason {
            MissingReason::NotFound(tried) => {
                let tried: Vec<_> = tried.iter().map(|path| path.display().to_string()).collect();
                write!(f, "`{}` is missing; put it at one of: {} (or set DMP_DATA)", self.wanted, tried.join(", "))
            }
            MissingReason::WrongContent { path, pinned, found } => write!(
                f,
                "`{}` is not the file that is pinned here (sha256 {found}, pinned {pinned}); restore {} or change the pin",
                self.wanted,
                path.display()
            ),
            MissingReason::Classes { path, found, classes } => {
                let path = path.display();
                write!(
                    f,
                    "`{}` has {found} class folders, but the backbone has {classes} classes; take the folder right above those of \
                     its classes, or set its `classes`; `runner data check {path} --as class_folders` looks through it",
                    self.wanted
                )
            }
            MissingReason::Unreadable { path, reason } => {
                write!(f, "`{}` cannot be read at {}: {reason}; change its permissions", self.wanted, path.display())
            }
        }?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input is wrong: everything that was found, in the order of the files (exit code 2).
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// Data or weights are missing: all of them (exit code 3).
    #[error("{}", lines(.0))]
    Missing(Vec<Missing>),
}

impl Error {
    /// One problem.
    pub(crate) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem::new(place, message)])
    }
}

fn lines<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

/// Collects problems so that one look at a file finds them all.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(Problem::new(place, message));
    }

    pub(crate) fn extend(&mut self, error: Vec<Problem>) {
        self.0.extend(error);
    }

    /// In the order in which they were found.
    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.0
    }

    /// `value` if nothing is wrong, or else everything that is, by place, each once.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, Error> {
        if self.0.is_empty() { Ok(value) } else { Err(self.into_error()) }
    }

    /// Everything that is wrong, by place, each once.
    pub(crate) fn into_error(self) -> Error {
        let mut problems: Vec<Problem> = Vec::new();
        for problem in self.0 {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Error::Invalid(problems)
    }

    /// Keeps the value, or notes what is wrong and goes on. What is not a problem of the input ends the search.
    pub(crate) fn keep<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Invalid(found)) => {
                self.0.extend(found);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

/// `; did you mean ...?` if something allowed is near `word`, or nothing.
pub fn did_you_mean<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str>) -> String {
    let near = allowed
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().max(word.chars().count()) / 4)
        .min();
    near.map_or(String::new(), |(_, candidate)| format!("; did you mean `{candidate}`?"))
}

/// `; allowed: a, b` and the nearest one.
pub(crate) fn allowed<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let list: Vec<&str> = allowed.clone().into_iter().collect();
    format!("; allowed: {}{}", list.join(", "), did_you_mean(word, allowed))
}
