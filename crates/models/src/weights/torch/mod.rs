//! PyTorch's own files: `.pt`, `.pth`, `.th`, `.ckpt`, `.bin`, in either of the formats that `torch.save` writes, and
//! TorchScript's.
//!
//! candle's reader of these files is not used: it copies whole objects where a pickle refers to one again (so that a
//! file of a few hundred bytes can fill any memory), indexes past the arguments of odd calls, and knows neither the
//! format before PyTorch 1.6 nor views with gaps, nor what lies deeper than one level.

pub(super) mod archive;
pub(super) mod legacy;
mod state_dict;
mod tensor;
mod write;

use std::collections::BTreeSet;

pub use write::{to_bytes, write};

use super::error::Fault;
use super::file::{Contents, Format};
use super::pickle::{self, Pickle};
use super::source::Source;
use super::view::{Storage, View};

/// Bytes of a pickle, without the tensors' own. The largest published checkpoints have a few megabytes.
const LARGEST_PICKLE: usize = 1 << 26;

/// Foreign classes that are told by name.
const MOST_SKIPPED: usize = 1 << 10;

/// Finds storages in a file.
trait Storages {
    /// The storage that the pickle calls `key`.
    ///
    /// # Errors
    /// There is none, or the file does not hold all of it.
    fn storage(&self, source: &Source, key: &str) -> Result<Storage, Fault>;
}

fn read_pickle(program: &[u8]) -> Result<Pickle<'_>, Fault> {
    pickle::read(program).map_err(|fault| Fault::damaged(fault.to_string()))
}

/// The tensors of the state dict in `pickle` that `part` names, each with its place in the file.
fn contents(pickle: &Pickle, part: Option<&str>, source: &Source, storages: &dyn Storages) -> Result<Contents, Fault> {
    let found = state_dict::find(pickle, part)?;
    let mut contents = Contents::new(Format::PyTorch);
    for (name, value) in found.tensors {
        let fault = |reason| {
            let remedy = "save it again as a dense float32 tensor, or restore the file";
            Fault::unsupported(format!("{name}: {reason}"), remedy)
        };
        let described = tensor::describe(pickle, value).map_err(fault)?;
        let tensor::Described { storage, element, shape, strides, offset } = described;
        let storage = storages.storage(source, storage.key)?;
        let view = View::new(element, shape, strides, offset, storage);
        contents.tensors.insert(name.clone(), view.map_err(fault)?);
    }
    contents.part = found.part;
    contents.parts = found.parts;
    let foreign = pickle.globals().filter(|(module, name)| !tensor::is_own(module, name));
    let foreign: BTreeSet<(&str, &str)> = foreign.collect();
    contents.skipped =
        foreign.into_iter().take(MOST_SKIPPED).map(|(module, name)| format!("{module}.{name}")).collect();
    Ok(contents)
}
