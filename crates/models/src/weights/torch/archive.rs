//! The zip archives that `torch.save` has written since PyTorch 1.6, and those of TorchScript: `NAME/data.pkl` holds the
//! pickle, `NAME/data/KEY` the storages.
//!
//! Nothing is ever unpacked: entries are looked up by name and read in place. PyTorch stores without compression, and
//! nothing else is read; so an archive cannot grow.

use std::collections::BTreeMap;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::{LARGEST_PICKLE, Storages, read_pickle};
use crate::weights::error::Fault;
use crate::weights::file::Contents;
use crate::weights::source::Source;
use crate::weights::view::Storage;

/// First bytes of a zip file.
pub(in crate::weights) const MAGIC: &[u8] = b"PK\x03\x04";

const REPACK: &str = "load it in PyTorch and save it again with torch.save";

/// Reads what an archive holds.
///
/// # Errors
/// It is damaged, holds no pickle of PyTorch, or its entries do not lie within it.
pub(in crate::weights) fn open(source: &mut Source, part: Option<&str>) -> Result<Contents, Fault> {
    let directory = Directory::read(source)?;
    let pickle = directory.entry(source, "data.pkl")?;
    if let Ok(order) = directory.entry(source, "byteorder")
        && source.at(order.start, usize::try_from(order.bytes).unwrap_or(0).min(3))? != b"lit"
    {
        return Err(Fault::unsupported("its numbers are not little-endian", REPACK));
    }
    let length = usize::try_from(pickle.bytes).ok().filter(|&length| length <= LARGEST_PICKLE);
    let too_long = || Fault::unsupported(format!("its pickle has {} bytes", pickle.bytes), REPACK);
    let program = source.at(pickle.start, length.ok_or_else(too_long)?)?;
    super::contents(&read_pickle(&program)?, part, source, &directory)
}

/// What an archive holds, by name.
struct Directory {
    entries: BTreeMap<String, Entry>,
    /// `NAME`.
    root: String,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Its content; `None` where the file does not hold it.
    storage: Option<Storage>,
    /// Whether the content is stored as it is.
    stored: bool,
}

impl Directory {
    fn read(source: &mut Source) -> Result<Self, Fault> {
        let length = source.length();
        let damaged = |error: ZipError| match error {
            // Others come of places that the file does not have.
            ZipError::Io(error) if error.raw_os_error().is_some() => Fault::Io(error),
            other => Fault::damaged(format!("it starts as a zip archive, but {other}")),
        };
        let mut archive = ZipArchive::new(source.stream()).map_err(damaged)?;
        if archive.has_duplicate_names() {
            return Err(Fault::damaged("its zip directory holds a name twice"));
        }
        let mut entries = BTreeMap::new();
        for number in 0..archive.len() {
            let file = archive.by_index_raw(number).map_err(damaged)?;
            let name = file.name().map_err(damaged)?.into_owned();
            if leaves(&name) {
                return Err(Fault::damaged(format!("its zip entry {name:?} leaves the archive")));
            }
            let start = file.data_start().unwrap_or(length);
            let bytes = file.compressed_size();
            let inside = start.checked_add(bytes).is_some_and(|end| end <= length);
            let stored = file.compression() == CompressionMethod::Stored && bytes == file.size() && !file.encrypted();
            entries.insert(name, Entry { storage: inside.then_some(Storage { start, bytes }), stored });
        }
        let mut roots = entries.keys().filter_map(|name| match name.rsplit_once('/') {
            Some((root, "data.pkl")) if !root.contains('/') => Some(root.to_owned()),
            _ => None,
        });
        match (roots.next(), roots.next()) {
            (Some(root), None) => Ok(Self { entries, root }),
            _ => Err(Fault::unsupported(
                "it is a zip archive without one NAME/data.pkl, so not of torch.save",
                "unpack it, and name the weight file within",
            )),
        }
    }

    fn entry(&self, source: &Source, name: &str) -> Result<Storage, Fault> {
        let name = format!("{}/{name}", self.root);
        let entry =
            self.entries.get(&name).ok_or_else(|| Fault::damaged(format!("its zip entry {name} is missing")))?;
        if !entry.stored {
            return Err(Fault::unsupported(format!("its zip entry {name} is compressed or encrypted"), REPACK));
        }
        let length = source.length();
        entry.storage.ok_or_else(|| Fault::damaged(format!("its zip entry {name} ends behind its last byte {length}")))
    }
}

/// Whether a name, taken as a path, would lead out of a folder.
fn leaves(name: &str) -> bool {
    let mut parts = name.split(['/', '\\']);
    let first = parts.next().unwrap_or_default();
    first.is_empty() || first.ends_with(':') || first == ".." || parts.any(|part| part == "..")
}

impl Storages for Directory {
    fn storage(&self, source: &Source, key: &str) -> Result<Storage, Fault> {
        self.entry(source, &format!("data/{key}"))
    }
}
