//! Files that may be compressed with gzip, recognised by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Result};

/// Opens a file, plain or gzip, and reads what is in it.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut plain = BufReader::new(file);
    let gzip = plain.fill_buf().map_err(|e| Error::io(path, e))?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzip { Box::new(BufReader::new(MultiGzDecoder::new(plain))) } else { Box::new(plain) })
}

/// An error while reading: gzip's own complaints are about the format.
pub(crate) fn broken(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::format(path, "the gzip data is truncated"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Error::format(path, format!("the gzip data is damaged ({error})"))
        }
        _ => Error::io(path, error),
    }
}
