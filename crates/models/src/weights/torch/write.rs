//! Writing what `torch.load(path, weights_only=True)` reads: an archive with an ordered dict of contiguous 32-bit floats.

use std::io::{Cursor, Write};
use std::path::Path;

use zip::result::ZipResult;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::weights::disk::{sha256, write_atomically};
use crate::weights::view::row_major;
use crate::weights::{Weights, WeightsError};

/// Name of the archive within itself, as `torch.save` gives it to what has no file name.
const ROOT: &str = "archive";

/// Where PyTorch starts a storage's bytes, so that they can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// Writes a PyTorch file whole and returns its SHA-256. With `part` the state dict lies under that key: the released
/// DMP code takes `model` to sample from and `ema` to train from, and the top where there is no `ema`.
///
/// # Errors
/// As [`to_bytes`] and [`write_atomically`].
pub fn write(path: &Path, weights: &Weights, part: Option<&str>) -> Result<String, WeightsError> {
    let bytes = to_bytes(path, weights, part)?;
    write_atomically(path, &bytes)?;
    Ok(sha256(&bytes))
}

/// The bytes of a PyTorch file: a function of names, shapes and values alone.
///
/// # Errors
/// A tensor has another number of values than its shape says; `path` is named.
pub fn to_bytes(path: &Path, weights: &Weights, part: Option<&str>) -> Result<Vec<u8>, WeightsError> {
    let fault = |reason: String| {
        let remedy = "this is an error in the program";
        WeightsError::Format { path: path.to_owned(), reason, remedy }
    };
    for (name, tensor) in weights {
        if tensor.shape.iter().product::<usize>() != tensor.values.len() {
            let (shape, count) = (&tensor.shape, tensor.values.len());
            return Err(fault(format!("{name} has shape {shape:?} and {count} values")));
        }
    }
    archive(weights, part).map_err(|error| fault(error.to_string()))
}

fn archive(weights: &Weights, part: Option<&str>) -> ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut entry = |name: &str, bytes: &[u8]| -> ZipResult<()> {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let options = options.with_alignment(ALIGNMENT).large_file(u32::try_from(bytes.len()).is_err());
        zip.start_file(format!("{ROOT}/{name}"), options)?;
        Ok(zip.write_all(bytes)?)
    };
    entry("data.pkl", &pickle(weights, part))?;
    entry("byteorder", b"little")?;
    for (number, tensor) in weights.values().enumerate() {
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        entry(&format!("data/{number}"), &bytes)?;
    }
    entry("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// `OrderedDict` of `torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`, protocol 2.
fn pickle(weights: &Weights, part: Option<&str>) -> Vec<u8> {
    let mut program = Program(vec![0x80, 2]);
    if let Some(part) = part {
        program.write(b"}");
        program.text(part);
    }
    program.ordered_dict();
    program.write(b"(");
    for (number, (name, tensor)) in weights.iter().enumerate() {
        program.text(name);
        program.write(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        program.text("storage");
        program.write(b"ctorch\nFloatStorage\n");
        program.text(&number.to_string());
        program.text("cpu");
        program.integer(tensor.values.len());
        program.write(b"tQ");
        program.integer(0);
        for sizes in [&tensor.shape, &row_major(&tensor.shape)] {
            program.write(b"(");
            sizes.iter().for_each(|&size| program.integer(size));
            program.write(b"t");
        }
        program.write(&[0x89]); // requires_grad
        program.ordered_dict(); // backward hooks
        program.write(b"tR");
    }
    program.write(b"u");
    program.write(if part.is_some() { b"s." } else { b"." });
    program.0
}

/// A pickle being written.
struct Program(Vec<u8>);

impl Program {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.write(b"X");
        self.write(&(text.len() as u32).to_le_bytes());
        self.write(text.as_bytes());
    }

    fn integer(&mut self, number: usize) {
        match i32::try_from(number) {
            Ok(number) => {
                self.write(b"J");
                self.write(&number.to_le_bytes());
            }
            // As signed as any number of elements: memory holds no more.
            Err(_) => {
                self.write(&[0x8a, 8]);
                self.write(&(number as u64).to_le_bytes());
            }
        }
    }

    fn ordered_dict(&mut self) {
        self.write(b"ccollections\nOrderedDict\n)R");
    }
}
