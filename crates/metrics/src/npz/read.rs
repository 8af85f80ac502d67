//! Reading an archive.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use crate::npz::header::Header;
use crate::npz::{Dtype, Element, NpzError};

/// Values read at once by [`Array::values`]: 1 GiB as `f64`.
const MAX_VALUES: u64 = 1 << 27;

/// Bytes asked for at a time. Memory is taken as data arrives, not as it is promised.
const CHUNK: usize = 1 << 16;

/// An archive of arrays, open for reading.
pub struct Archive<R> {
    zip: ZipArchive<R>,
}

impl Archive<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened; those of [`Archive::new`].
    pub fn open(path: &Path) -> Result<Self, NpzError> {
        let file = File::open(path).map_err(|source| NpzError::Archive(ZipError::Io(source)))?;
        Self::new(BufReader::new(file))
    }
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the directory of an archive.
    ///
    /// # Errors
    /// It is no zip archive, or an entry has a path for a name.
    pub fn new(reader: R) -> Result<Self, NpzError> {
        let zip = ZipArchive::new(reader).map_err(NpzError::Archive)?;
        for entry in zip.file_names() {
            let entry = entry.map_err(NpzError::Archive)?;
            if entry.contains(['/', '\\', ':', '\0']) || entry.starts_with("..") {
                return Err(NpzError::Path { entry: entry.into_owned() });
            }
        }
        Ok(Self { zip })
    }

    /// Names of the arrays, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = self.zip.file_names().filter_map(Result::ok);
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.strip_suffix(".npy").map(str::to_owned)).collect();
        names.sort();
        names
    }

    /// Whether there is an array `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{name}.npy")).is_some()
    }

    /// The array called `name`, its header read, its values not yet.
    ///
    /// # Errors
    /// There is none; its header is damaged, promises another length than the archive holds, or names another dtype than
    /// [`Dtype`]; entries share a name, are encrypted, or are compressed in another way than by deflate.
    pub fn array(&mut self, name: &str) -> Result<Array<'_, R>, NpzError> {
        if !self.contains(name) {
            return Err(NpzError::Missing { name: name.to_owned(), there: self.names().join(", ") });
        }
        let mut data = self.zip.by_name(&format!("{name}.npy")).map_err(NpzError::Archive)?;
        let there = data.size();
        let (header, length) = Header::read(name, &mut data)?;
        let promised = header.values().and_then(|n| (n * header.dtype.size() as u64).checked_add(length));
        let Some(values) = header.values().filter(|_| promised == Some(there)) else {
            return Err(NpzError::Length { name: name.to_owned(), shape: header.shape, there });
        };
        let mut array = Array { name: name.to_owned(), header, left: values, data };
        array.check_end()?;
        Ok(array)
    }
}

/// An array whose values are read in the order in which they are stored.
pub struct Array<'a, R: Read> {
    name: String,
    header: Header,
    left: u64,
    data: ZipFile<'a, R>,
}

impl<R: Read> Array<'_, R> {
    /// Type of the values.
    pub fn dtype(&self) -> Dtype {
        self.header.dtype
    }

    /// Sides, outermost first; empty for a single value.
    pub fn shape(&self) -> &[u64] {
        &self.header.shape
    }

    /// Whether values are stored with the first index running fastest.
    pub fn is_fortran(&self) -> bool {
        self.header.fortran
    }

    /// Reads the next `out.len()` values, as they are stored (for a C-ordered batch of images: the next ones). The last
    /// read checks the archive's checksum.
    ///
    /// # Errors
    /// The array holds another type, has fewer values left, or is damaged.
    pub fn fill<T: Element>(&mut self, out: &mut [T]) -> Result<(), NpzError> {
        if T::DTYPE != self.header.dtype {
            return Err(NpzError::Element { name: self.name.clone(), found: self.header.dtype, wanted: T::DTYPE });
        }
        if out.len() as u64 > self.left {
            return Err(NpzError::End { name: self.name.clone(), left: self.left, wanted: out.len() });
        }
        let size = T::DTYPE.size();
        let mut bytes = vec![0; CHUNK.min(out.len() * size)];
        for out in out.chunks_mut(CHUNK / size) {
            let bytes = &mut bytes[..out.len() * size];
            self.take(bytes)?;
            out.iter_mut().zip(bytes.chunks_exact(size)).for_each(|(out, bytes)| *out = T::from_bytes(bytes));
        }
        self.check_end()
    }

    /// All values left in an array that nothing was read of, in C order, widened to `f64` (exactly).
    ///
    /// # Errors
    /// The array has more than 2^27 values or is damaged.
    pub fn values(mut self) -> Result<Vec<f64>, NpzError> {
        if self.left > MAX_VALUES {
            return Err(NpzError::TooLarge { name: self.name.clone(), values: self.left, limit: MAX_VALUES });
        }
        let (dtype, size) = (self.header.dtype, self.header.dtype.size());
        let (mut values, mut bytes) = (Vec::new(), vec![0; CHUNK]);
        while self.left > 0 {
            let bytes = &mut bytes[..(self.left.min((CHUNK / size) as u64) as usize) * size];
            self.take(bytes)?;
            values.extend(bytes.chunks_exact(size).map(|bytes| dtype.widen(bytes)));
            self.check_end()?;
        }
        let ordered = self.header.fortran && self.header.shape.len() > 1;
        Ok(if ordered { c_order(&values, &self.header.shape) } else { values })
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), NpzError> {
        let read = self.data.read_exact(bytes);
        read.map_err(|source| NpzError::Read { name: self.name.clone(), source })?;
        self.left -= (bytes.len() / self.header.dtype.size()) as u64;
        Ok(())
    }

    /// At the end, reads on to it: that is where the archive's reader compares the checksum.
    fn check_end(&mut self) -> Result<(), NpzError> {
        if self.left > 0 {
            return Ok(());
        }
        let read = self.data.read(&mut [0]);
        let more = read.map_err(|source| NpzError::Read { name: self.name.clone(), source })?;
        let shape = || self.header.shape.clone();
        match more {
            0 => Ok(()),
            _ => Err(NpzError::Length { name: self.name.clone(), shape: shape(), there: self.data.size() }),
        }
    }
}

/// Values stored with the first index running fastest, with the last one running fastest.
fn c_order(values: &[f64], shape: &[u64]) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, &side| {
            let this = *stride;
            *stride *= side as usize;
            Some(this)
        })
        .collect();
    let mut index = vec![0; shape.len()];
    for _ in 0..values.len() {
        out.push(values[index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for (i, &side) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < side as usize {
                break;
            }
            *i = 0;
        }
    }
    out
}
