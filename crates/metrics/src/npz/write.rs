//! Writing an archive.

use std::io::{Seek, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::npz::header::Header;
use crate::npz::{Element, NpzError};

/// How arrays are held in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// As they are (`numpy.savez`).
    Stored,
    /// Deflated (`numpy.savez_compressed`).
    Deflated,
}

/// An archive of arrays, open for writing. Equal arrays make equal bytes: no time is recorded.
pub struct Writer<W: Write + Seek> {
    zip: ZipWriter<W>,
    storage: Storage,
}

impl<W: Write + Seek> Writer<W> {
    /// An empty archive.
    pub fn new(writer: W, storage: Storage) -> Self {
        Self { zip: ZipWriter::new(writer), storage }
    }

    /// Adds an array in C order. Panics if `shape` has another number of values.
    ///
    /// # Errors
    /// The name is taken; the archive cannot be written.
    pub fn array<T: Element>(&mut self, name: &str, shape: &[usize], values: &[T]) -> Result<(), NpzError> {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values of shape {shape:?}");
        let failed = |source: std::io::Error| NpzError::Write { name: name.to_owned(), source };
        self.array_in_parts(name, shape, |out| out(values)).map_err(failed)
    }

    /// Adds an array whose values are not all in memory: `write` hands them over in C order, part by part.
    ///
    /// # Errors
    /// The name is taken; the archive cannot be written; `write` failed, or left values out, or had too many.
    pub fn array_in_parts<T: Element, E: From<std::io::Error>>(
        &mut self,
        name: &str,
        shape: &[usize],
        write: impl FnOnce(&mut dyn FnMut(&[T]) -> Result<(), E>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = shape.iter().product::<usize>();
        let bytes_of_values = left * T::DTYPE.size();
        let shape = shape.iter().map(|&side| side as u64).collect();
        let header = Header { dtype: T::DTYPE, fortran: false, shape }.to_bytes();
        let method = match self.storage {
            Storage::Stored => CompressionMethod::Stored,
            Storage::Deflated => CompressionMethod::Deflated,
        };
        let bytes = header.len() + bytes_of_values;
        let options = SimpleFileOptions::DEFAULT
            .compression_method(method)
            .last_modified_time(DateTime::DEFAULT)
            .large_file(bytes >= u32::MAX as usize);
        self.zip.start_file(format!("{name}.npy"), options).map_err(std::io::Error::from)?;
        self.zip.write_all(&header)?;
        let (zip, mut bytes) = (&mut self.zip, Vec::new());
        write(&mut |values: &[T]| {
            let too_many = || std::io::Error::other("more values than the shape has");
            left = left.checked_sub(values.len()).ok_or_else(too_many)?;
            for values in values.chunks(1 << 13) {
                bytes.clear();
                values.iter().for_each(|value| value.put_le(&mut bytes));
                zip.write_all(&bytes)?;
            }
            Ok(())
        })?;
        if left == 0 { Ok(()) } else { Err(std::io::Error::other(format!("{left} values are missing")).into()) }
    }

    /// Writes the archive's directory. Without it the file is none.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub fn finish(self) -> Result<W, NpzError> {
        self.zip.finish().map_err(NpzError::Archive)
    }
}
