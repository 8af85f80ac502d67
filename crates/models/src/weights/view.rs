//! Where the elements of one tensor lie in a file.

use super::element::Element;
use super::error::Fault;
use super::source::Source;

/// A run of bytes in a file that tensors look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage {
    /// First byte.
    pub(super) start: u64,
    /// Bytes in all; the file is known to hold them.
    pub(super) bytes: u64,
}

/// A tensor in a file: the element `[i, j, ..]` lies `i strides[0] + j strides[1] + ..` elements behind `start`.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    strides: Vec<usize>,
    /// Byte of the first element.
    start: u64,
    /// Elements in all.
    count: usize,
    /// Elements from the first to the last in the file, both included.
    span: usize,
}

impl View {
    /// Elements `offset ..` of `storage`.
    ///
    /// # Errors
    /// The view reaches out of the storage, or its shape and strides make no sense.
    pub(super) fn new(
        element: Element,
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
        storage: Storage,
    ) -> Result<Self, String> {
        if shape.len() != strides.len() {
            return Err(format!("it has {} axes and {} strides", shape.len(), strides.len()));
        }
        let sizes = || shape.iter().zip(&strides);
        let too_large = || format!("its shape {shape:?} is beyond all memory");
        let (mut count, mut span) = (0, 0);
        if !shape.contains(&0) {
            count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).ok_or_else(too_large)?;
            let last = sizes().try_fold(0usize, |n, (size, stride)| n.checked_add((size - 1).checked_mul(*stride)?));
            span = last.and_then(|last| last.checked_add(1)).ok_or_else(too_large)?;
        }
        let width = element.bytes() as u64;
        let skipped = (offset as u64).checked_mul(width).ok_or_else(too_large)?;
        let end = (span as u64).checked_mul(width).and_then(|bytes| bytes.checked_add(skipped));
        if end.is_none_or(|end| end > storage.bytes) && span > 0 {
            return Err(format!(
                "{span} elements of {width} bytes from element {offset} on reach out of its storage of {} bytes",
                storage.bytes
            ));
        }
        // An empty tensor may lie anywhere: nothing of it is read.
        let start = if span > 0 { storage.start.saturating_add(skipped) } else { storage.start };
        Ok(Self { element, shape, strides, start, count, span })
    }

    /// All of `storage`, row-major.
    ///
    /// # Errors
    /// As [`View::new`].
    pub(super) fn whole(element: Element, shape: Vec<usize>, storage: Storage) -> Result<Self, String> {
        let strides = row_major(&shape);
        Self::new(element, shape, strides, 0, storage)
    }

    /// Elements that reading it passes or returns, whichever is more.
    pub(super) fn cost(&self) -> usize {
        self.count.max(self.span)
    }

    /// The same elements without axes of size 1 behind the first `rank`.
    pub(super) fn squeezed_to(mut self, rank: usize) -> Self {
        if self.shape.iter().skip(rank).all(|&size| size == 1) {
            self.shape.truncate(rank);
            self.strides.truncate(rank);
        }
        self
    }

    /// Reads the elements, row-major.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self, source: &mut Source) -> Result<Vec<f32>, Fault> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        let values = self.element.decode(&source.at(self.start, self.span * self.element.bytes())?);
        let straight = row_major(&self.shape);
        let axes = || self.shape.iter().zip(&self.strides).zip(&straight);
        if axes().all(|((size, stride), straight)| *size == 1 || stride == straight) {
            return Ok(values);
        }
        let mut gathered = Vec::with_capacity(self.count);
        let mut index = vec![0; self.shape.len()];
        let mut place = 0;
        for _ in 0..self.count {
            gathered.push(values[place]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                place += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                place -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        Ok(gathered)
    }
}

/// Strides of a tensor without gaps.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}
