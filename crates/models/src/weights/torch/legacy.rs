//! The format of `torch.save` before PyTorch 1.6: a magic number, a version, facts about the machine, the object, the
//! names of its storages, all pickled; then each storage as a count of 8 bytes and its elements.

use std::collections::BTreeMap;

use super::{LARGEST_PICKLE, Storages, read_pickle, tensor};
use crate::weights::error::Fault;
use crate::weights::file::Contents;
use crate::weights::pickle::Value;
use crate::weights::source::Source;
use crate::weights::view::Storage;

/// The magic number, an integer of ten bytes.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The only version there has been.
const VERSION: Value = Value::Int(1001);

/// Whether a file starts as a pickle of protocol 2 or later.
pub(in crate::weights) fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, ..])
}

/// Reads what a legacy file holds.
///
/// # Errors
/// It is damaged, or a pickle of something else.
pub(in crate::weights) fn open(source: &mut Source, part: Option<&str>) -> Result<Contents, Fault> {
    let program = source.prefix(LARGEST_PICKLE)?;
    let mut at = 0;
    let mut next = || {
        let pickle = read_pickle(&program[at..])?;
        at += pickle.length;
        Ok::<_, Fault>(pickle)
    };
    if next()?.root != Value::Long(MAGIC) {
        return Err(Fault::unsupported(
            "it is a pickle, but not of torch.save",
            "load it in Python and save its tensors with torch.save or safetensors",
        ));
    }
    if next()?.root != VERSION {
        return Err(Fault::damaged("its version is not 1001"));
    }
    let machine = next()?;
    if machine.entry(machine.root, "little_endian") == Some(Value::Bool(false)) {
        return Err(Fault::unsupported(
            "its numbers are not little-endian",
            "load it in PyTorch and save it again with torch.save",
        ));
    }
    let object = next()?;
    let keys = next()?;
    let keys = keys.sequence(keys.root).ok_or_else(|| Fault::damaged("the names of its storages are no list"))?;

    let named = tensor::storages(&object).map_err(Fault::damaged)?;
    let widths: BTreeMap<&str, u64> =
        named.iter().map(|id| (id.key, id.element.map_or(1, |element| element.bytes() as u64))).collect();
    let mut start = at as u64;
    let mut storages = InTurn(BTreeMap::new());
    for key in keys {
        let Value::Text(key) = *key else { return Err(Fault::damaged("the name of a storage is no text")) };
        let width = *widths.get(key).ok_or_else(|| Fault::damaged(format!("no tensor uses its storage {key}")))?;
        let count = source.at(start, size_of::<u64>())?;
        let count = u64::from_le_bytes(*count.first_chunk().unwrap_or(&[0xff; 8]));
        start += size_of::<u64>() as u64;
        let bytes = count.checked_mul(width);
        let end = bytes.and_then(|bytes| bytes.checked_add(start)).filter(|&end| end <= source.length());
        let (Some(bytes), Some(end)) = (bytes, end) else {
            let length = source.length();
            let reason = format!("its storage {key} has {count} elements of {width} bytes from byte {start} on");
            return Err(Fault::damaged(format!("{reason}, and it ends at byte {length}")));
        };
        storages.0.insert(key.to_owned(), Storage { start, bytes });
        start = end;
    }
    super::contents(&object, part, source, &storages)
}

/// Storages one behind the other.
struct InTurn(BTreeMap<String, Storage>);

impl Storages for InTurn {
    fn storage(&self, _: &Source, key: &str) -> Result<Storage, Fault> {
        self.0.get(key).copied().ok_or_else(|| Fault::damaged(format!("its storage {key} is missing")))
    }
}
