//! The safetensors format: the header's length, a header in JSON, the tensors.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorView};

use super::disk::{sha256, write_atomically};
use super::element::Element;
use super::error::Fault;
use super::file::{Contents, Format};
use super::source::Source;
use super::view::{Storage, View};
use super::{Weights, WeightsError};

/// Bytes of the header's length.
const LENGTH: usize = size_of::<u64>();

/// Bytes of a header; the format's own limit.
const LARGEST_HEADER: u64 = 100_000_000;

/// Whether a file starts as safetensors.
pub(super) fn is_header(start: &[u8]) -> bool {
    start.get(LENGTH) == Some(&b'{')
}

/// Reads what a file holds.
///
/// # Errors
/// The header is damaged, or its tensors do not lie one behind the other up to the file's end.
pub(super) fn open(source: &mut Source, part: Option<&str>) -> Result<Contents, Fault> {
    let contents = Contents::new(Format::Safetensors);
    if let Some(part) = part.filter(|part| *part != contents.part) {
        return Err(Fault::Part { reason: format!("has no part {part:?}"), parts: contents.parts });
    }
    let length = source.at(0, LENGTH)?;
    let length = u64::from_le_bytes(*length.first_chunk().unwrap_or(&[0xff; LENGTH]));
    if length > LARGEST_HEADER {
        return Err(Fault::damaged(format!("its header has {length} bytes")));
    }
    let header = source.at(LENGTH as u64, length as usize)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| Fault::damaged(format!("its header: {error}")))?;
    let start = LENGTH as u64 + length;
    let end = start.saturating_add(header.data_len() as u64);
    if end != source.length() {
        return Err(Fault::damaged(format!("its tensors end at byte {end}, it ends at byte {}", source.length())));
    }
    let mut contents = contents;
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let fault = |reason| Fault::unsupported(format!("{name}: {reason}"), "save it again as float32");
        let element = element(info.dtype).ok_or_else(|| fault(format!("type {:?} is not read", info.dtype)))?;
        let (first, last) = info.data_offsets;
        let storage = Storage { start: start + first as u64, bytes: (last - first) as u64 };
        let view = View::whole(element, info.shape.clone(), storage).map_err(fault)?;
        contents.tensors.insert(name, view);
    }
    Ok(contents)
}

fn element(dtype: Dtype) -> Option<Element> {
    Some(match dtype {
        Dtype::F64 => Element::F64,
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::BF16,
        Dtype::I64 => Element::I64,
        Dtype::I32 => Element::I32,
        Dtype::I16 => Element::I16,
        Dtype::I8 => Element::I8,
        Dtype::U64 => Element::U64,
        Dtype::U32 => Element::U32,
        Dtype::U16 => Element::U16,
        Dtype::U8 => Element::U8,
        Dtype::BOOL => Element::Bool,
        _ => return None,
    })
}

/// The bytes of a weight file: a function of names, shapes and values alone.
///
/// # Errors
/// A tensor has another number of values than its shape says; `path` is named.
pub fn to_bytes(path: &Path, weights: &Weights) -> Result<Vec<u8>, WeightsError> {
    let fault = |reason: String| Fault::unsupported(reason, "this is an error in the program").at(path);
    let raw: Vec<Vec<u8>> = weights.values().map(|t| t.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = Vec::with_capacity(raw.len());
    for ((name, tensor), bytes) in weights.iter().zip(&raw) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        views.push((name, view.map_err(|error| fault(format!("{name}: {error}")))?));
    }
    safetensors::serialize(views, None).map_err(|error| fault(error.to_string()))
}

/// Writes a weight file whole and returns its SHA-256.
///
/// # Errors
/// As [`to_bytes`] and [`write_atomically`].
pub fn write(path: &Path, weights: &Weights) -> Result<String, WeightsError> {
    let bytes = to_bytes(path, weights)?;
    write_atomically(path, &bytes)?;
    Ok(sha256(&bytes))
}
