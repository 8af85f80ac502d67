//! A weight file of any format, recognised by its first bytes: what it holds is known before a number is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::error::Fault;
use super::names::Family;
use super::source::Source;
use super::torch::{archive, legacy};
use super::view::View;
use super::{Element, Tensor, Weights, WeightsError, check, safetensors, sha256};

/// Elements that all tensors of a file may have together, per byte of the file. Tensors that share a storage, or repeat
/// its elements, count each time; so a small file cannot fill the memory.
const MOST_PER_BYTE: u64 = 4;

/// How a weight file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// `torch.save`, or TorchScript.
    PyTorch,
}

/// What a file holds, and where.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) format: Format,
    pub(super) part: String,
    pub(super) parts: Vec<String>,
    pub(super) tensors: BTreeMap<String, View>,
    pub(super) skipped: Vec<String>,
}

impl Contents {
    pub(super) fn new(format: Format) -> Self {
        let top = || ".".to_owned();
        Self { format, part: top(), parts: vec![top()], tensors: BTreeMap::new(), skipped: Vec::new() }
    }
}

/// A weight file that is open.
pub struct WeightFile {
    path: PathBuf,
    source: Source,
    contents: Contents,
}

impl WeightFile {
    /// Opens a file. `part` names the state dict to use where a checkpoint holds several (`model`, `ema`, `a.b`, `.` for
    /// the top); without it, the first of `ema`, `model_ema`, `ema_state_dict`, `model`, `state_dict`,
    /// `model_state_dict`, then the top, then the only one.
    ///
    /// # Errors
    /// The file is missing, damaged, in no known format, or holds several state dicts with nothing to choose between.
    pub fn open(path: &Path, part: Option<&str>) -> Result<Self, WeightsError> {
        let source = File::open(path).and_then(Source::file).map_err(WeightsError::io(path, "read"))?;
        Self::new(path, source, part)
    }

    /// The same for a file whose SHA-256 must be `expected`; nothing of it is used otherwise.
    ///
    /// # Errors
    /// As [`WeightFile::open`], or the hash differs.
    pub fn open_checked(path: &Path, expected: &str, part: Option<&str>) -> Result<Self, WeightsError> {
        let bytes = fs::read(path).map_err(WeightsError::io(path, "read"))?;
        let found = sha256(&bytes);
        if !found.eq_ignore_ascii_case(expected) {
            return Err(WeightsError::Hash { path: path.to_owned(), expected: expected.to_owned(), found });
        }
        Self::new(path, Source::memory(bytes), part)
    }

    /// The same for bytes that are already in memory; `path` is what errors call them.
    ///
    /// # Errors
    /// As [`WeightFile::open`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>, part: Option<&str>) -> Result<Self, WeightsError> {
        Self::new(path, Source::memory(bytes), part)
    }

    fn new(path: &Path, mut source: Source, part: Option<&str>) -> Result<Self, WeightsError> {
        let contents = contents(&mut source, part).map_err(|fault| fault.at(path))?;
        Ok(Self { path: path.to_owned(), source, contents })
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.contents.format
    }

    /// The state dict in use: keys joined by dots, or `.` for the top.
    pub fn part(&self) -> &str {
        &self.contents.part
    }

    /// All state dicts that it holds.
    pub fn parts(&self) -> &[String] {
        &self.contents.parts
    }

    /// Python classes that lie beside the tensors, which are not read; the first thousand by name.
    pub fn skipped(&self) -> &[String] {
        &self.contents.skipped
    }

    /// Name, type and shape of each tensor, by name. No number is read.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Element, &[usize])> {
        self.contents.tensors.iter().map(|(name, view)| (name.as_str(), view.element, view.shape.as_slice()))
    }

    /// Gives the tensors the names that they have here; what does not belong to the network is left out.
    pub fn translate(&mut self, family: Family) {
        let tensors = std::mem::take(&mut self.contents.tensors);
        let names: Vec<&str> = tensors.keys().map(String::as_str).collect();
        let names = family.translate(&names);
        let renamed = names.into_iter().zip(tensors.into_values()).filter_map(|(name, view)| {
            let name = name?;
            let view = if family.is_linear(&name) { view.squeezed_to(2) } else { view };
            Some((name, view))
        });
        self.contents.tensors = renamed.collect();
    }

    /// Checks that the file holds exactly the tensors `shapes`. No number is read.
    ///
    /// # Errors
    /// Lists every missing, unexpected and mis-shaped tensor.
    pub fn check(&self, shapes: &[(String, Vec<usize>)]) -> Result<(), WeightsError> {
        check::exactly(&self.path, self.tensors().map(|(name, _, shape)| (name, shape)), shapes)
    }

    /// Checks that all numbers are finite, reading one tensor after the other.
    ///
    /// # Errors
    /// Lists the tensors that hold infinities or no numbers; as [`WeightFile::read`].
    pub fn check_numbers(&mut self) -> Result<(), WeightsError> {
        let mut faults = Vec::new();
        self.each(|name, _, values| faults.extend(check::not_finite(name, &values)))?;
        if faults.is_empty() { Ok(()) } else { Err(WeightsError::Keys { path: self.path.clone(), faults }) }
    }

    /// Reads all tensors.
    ///
    /// # Errors
    /// The file cannot be read, or its tensors together are larger than it by far.
    pub fn read(&mut self) -> Result<Weights, WeightsError> {
        let mut weights = Weights::new();
        self.each(|name, shape, values| {
            drop(weights.insert(name.to_owned(), Tensor { shape: shape.to_vec(), values }))
        })?;
        Ok(weights)
    }

    /// Hands name, shape and values of each tensor to `consume`, one after the other.
    fn each(&mut self, mut consume: impl FnMut(&str, &[usize], Vec<f32>)) -> Result<(), WeightsError> {
        let path = &self.path;
        let cost = self.contents.tensors.values().map(View::cost).fold(0u64, |sum, n| sum.saturating_add(n as u64));
        if cost > self.source.length().saturating_mul(MOST_PER_BYTE) {
            let reason = format!("its tensors have {cost} elements in a file of {} bytes", self.source.length());
            let remedy = "save its tensors again without expanded or shared ones (tensor.contiguous())";
            return Err(Fault::unsupported(reason, remedy).at(path));
        }
        for (name, view) in &self.contents.tensors {
            consume(name, &view.shape, view.read(&mut self.source).map_err(|fault| fault.at(path))?);
        }
        Ok(())
    }

    /// Leaves out all tensors but those of `shapes`: a patch alone, or a backbone alone, of a checkpoint of both.
    ///
    /// # Errors
    /// Lists every missing and mis-shaped tensor.
    pub fn keep(&mut self, shapes: &[(String, Vec<usize>)]) -> Result<(), WeightsError> {
        let kept: std::collections::BTreeSet<&str> = shapes.iter().map(|(name, _)| name.as_str()).collect();
        self.contents.tensors.retain(|name, _| kept.contains(name.as_str()));
        self.check(shapes)
    }
}

impl std::fmt::Debug for WeightFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightFile").field("path", &self.path).field("contents", &self.contents).finish_non_exhaustive()
    }
}

fn contents(source: &mut Source, part: Option<&str>) -> Result<Contents, Fault> {
    const TAR: std::ops::Range<usize> = 257..262;
    let start = source.prefix(TAR.end)?;
    if start.starts_with(archive::MAGIC) {
        archive::open(source, part)
    } else if legacy::is_pickle(&start) {
        legacy::open(source, part)
    } else if safetensors::is_header(&start) {
        safetensors::open(source, part)
    } else {
        let (reason, remedy) = if start.starts_with(b"version https://git-lfs") {
            ("it is a pointer of Git LFS", "fetch the file itself (git lfs pull)")
        } else if start.trim_ascii_start().starts_with(b"<") {
            ("it is a web page", "download the file itself")
        } else if start.get(TAR) == Some(b"ustar") {
            ("it is a tar archive", "unpack it; if PyTorch before 0.1.10 wrote it, load it there and save it again")
        } else {
            ("it is neither safetensors nor a file of PyTorch", "check that it is the file that is meant")
        };
        Err(Fault::unsupported(reason, remedy))
    }
}
