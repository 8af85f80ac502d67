//! A safetensors file of a finished stage, memory-mapped: what is not looked at is not read.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

/// The file.
pub struct Mapped {
    path: PathBuf,
    bytes: Mmap,
}

impl Mapped {
    /// # Errors
    /// The file is missing or cannot be mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> std::io::Result<Mmap> {
            let file = File::open(path)?;
            // SAFETY: the files of a stage are written whole, renamed into place and never changed in place.
            unsafe { Mmap::map(&file) }
        };
        let bytes = open().with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// The shape of a tensor, and where its bytes are.
    ///
    /// # Errors
    /// The file is damaged, or has no such tensor of that type.
    pub fn place(&self, name: &str, dtype: Dtype) -> Result<(Vec<usize>, Range<usize>)> {
        let (found, shape, place) = self.find(name)?;
        ensure!(found == dtype, "{}: {name} has type {found:?}, not {dtype:?}", self.path.display());
        Ok((shape, place))
    }

    /// The same of a tensor of any type, and its type.
    ///
    /// # Errors
    /// As [`Mapped::place`].
    pub fn find(&self, name: &str) -> Result<(Dtype, Vec<usize>, Range<usize>)> {
        let broken = || {
            format!(
                "{} is damaged: `runner verify` lists all damage, and the next run makes its stage again",
                self.path.display()
            )
        };
        let tensors = SafeTensors::deserialize(&self.bytes).with_context(broken)?;
        let tensor = tensors.tensor(name).with_context(broken)?;
        let start = tensor.data().as_ptr().addr() - self.bytes.as_ptr().addr();
        Ok((tensor.dtype(), tensor.shape().to_vec(), start..start + tensor.data().len()))
    }

    /// Bytes of the file.
    pub fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }

    /// Whether it has a tensor of a name.
    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).is_ok_and(|tensors| tensors.tensor(name).is_ok())
    }
}

/// Little-endian numbers of 32 bits.
pub fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}
