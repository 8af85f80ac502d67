//! The bytes of a weight file, on disk or in memory, read by place.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};

use super::error::Fault;

/// What weights are read from. Nothing beyond its end is ever asked for, and no more is allocated than it holds.
pub(super) struct Source {
    bytes: Box<dyn Bytes>,
    length: u64,
}

/// Something read by place.
pub(super) trait Bytes: Read + Seek + Send {}

impl<T: Read + Seek + Send> Bytes for T {}

impl Source {
    pub(super) fn file(file: File) -> std::io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { bytes: Box::new(file), length })
    }

    pub(super) fn memory(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len() as u64, bytes: Box::new(Cursor::new(bytes)) }
    }

    /// Bytes in all.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// For readers that seek themselves.
    pub(super) fn stream(&mut self) -> &mut dyn Bytes {
        &mut *self.bytes
    }

    /// The first bytes, at most `count`.
    pub(super) fn prefix(&mut self, count: usize) -> Result<Vec<u8>, Fault> {
        let count = usize::try_from(self.length).unwrap_or(usize::MAX).min(count);
        self.at(0, count)
    }

    /// `count` bytes from `start` on.
    pub(super) fn at(&mut self, start: u64, count: usize) -> Result<Vec<u8>, Fault> {
        let end = start.checked_add(count as u64).filter(|&end| end <= self.length);
        if end.is_none() {
            let length = self.length;
            return Err(Fault::damaged(format!(
                "it ends at byte {length}, where bytes {start} to +{count} are needed"
            )));
        }
        let mut bytes = vec![0; count];
        self.bytes.seek(SeekFrom::Start(start))?;
        self.bytes.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
