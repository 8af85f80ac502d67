//! A window that slides over a feature map: what convolutions and poolings have in common.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Result, Tensor};

use super::FeatureMap;

/// Kernel, stride and border of zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Step in both directions.
    pub stride: usize,
    /// Zeros above and to the left.
    pub before: [usize; 2],
    /// Zeros below and to the right.
    pub after: [usize; 2],
}

impl Window {
    /// A step of one that keeps height and width (odd kernels).
    pub const fn same(height: usize, width: usize) -> Self {
        let border = [(height - 1) / 2, (width - 1) / 2];
        Self { kernel: [height, width], stride: 1, before: border, after: border }
    }

    /// A square without a border.
    pub const fn valid(side: usize, stride: usize) -> Self {
        Self { kernel: [side, side], stride, before: [0, 0], after: [0, 0] }
    }

    /// The same window with another step.
    pub const fn every(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Number of places in the window.
    pub const fn places(self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Height and width of what comes out of a map of `height` x `width`.
    ///
    /// # Errors
    /// The map with its border is smaller than the window.
    pub fn output(self, height: usize, width: usize) -> Result<[usize; 2]> {
        let size = |i: usize, size: usize| {
            let room = (size + self.before[i] + self.after[i]).checked_sub(self.kernel[i]);
            room.map(|room| room / self.stride + 1)
        };
        let Some((height, width)) = size(0, height).zip(size(1, width)) else {
            candle_core::bail!("a window of {:?} does not fit into a map of {height} x {width}", self.kernel)
        };
        Ok([height, width])
    }

    /// The input place of each (output place, window place); the border is the largest number, which candle's
    /// `index_select` reads as a row of zeros.
    fn table(self, height: usize, width: usize) -> Result<Vec<u32>> {
        let [rows, columns] = self.output(height, width)?;
        let mut table = Vec::with_capacity(rows * columns * self.places());
        for (row, column) in (0..rows * columns).map(|i| (i / columns * self.stride, i % columns * self.stride)) {
            for (dy, dx) in (0..self.places()).map(|i| (i / self.kernel[1], i % self.kernel[1])) {
                // Below zero wraps to a number beyond the map.
                let (y, x) = ((row + dy).wrapping_sub(self.before[0]), (column + dx).wrapping_sub(self.before[1]));
                table.push(if y < height && x < width { (y * width + x) as u32 } else { u32::MAX });
            }
        }
        Ok(table)
    }

    /// How many places of each window lie inside a map of `height` x `width`, per output place.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub fn inside(self, height: usize, width: usize) -> Result<Vec<usize>> {
        let table = self.table(height, width)?;
        Ok(table.chunks_exact(self.places()).map(|places| places.iter().filter(|&&p| p != u32::MAX).count()).collect())
    }
}

/// A [`Window`] that remembers where it looked last time.
#[derive(Clone, Debug)]
pub struct Gather {
    window: Window,
    last: Arc<Mutex<Option<Table>>>,
}

#[derive(Clone, Debug)]
struct Table {
    size: [usize; 2],
    output: [usize; 2],
    /// `[output places * window places]` in `u32`.
    places: Tensor,
}

impl Gather {
    /// Looks through `window`.
    pub fn new(window: Window) -> Self {
        Self { window, last: Arc::default() }
    }

    /// Its window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// All windows: a map of the output's places whose channels are (window place, channel); zero where a window
    /// reaches over the edge.
    ///
    /// # Shapes
    /// `[B, places, C]` to `[B, output places, window places * C]`.
    ///
    /// # Errors
    /// As [`Window::output`].
    pub fn forward(&self, x: &FeatureMap) -> Result<FeatureMap> {
        let (b, _, c) = x.values.dims3()?;
        if self.window == Window::same(1, 1) {
            return Ok(x.clone());
        }
        let Table { output: [height, width], places, .. } = self.table([x.height, x.width], x.values.device())?;
        let gathered = x.values.contiguous()?.index_select(&places, 1)?;
        Ok(FeatureMap { values: gathered.reshape((b, height * width, self.window.places() * c))?, height, width })
    }

    fn table(&self, size: [usize; 2], device: &Device) -> Result<Table> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = last.as_ref().filter(|table| table.size == size) {
            return Ok(table.clone());
        }
        let places = Tensor::new(self.window.table(size[0], size[1])?, device)?;
        let table = Table { size, output: self.window.output(size[0], size[1])?, places };
        Ok(last.insert(table).clone())
    }
}
