//! A program on a machine: room for a batch, and its layers as launches.

use std::borrow::Borrow;

use super::arguments::{AddMaps, Columns, GroupNorm, Images, Means, Pool, Resize, Softmax, Windows};
use super::launch;
use super::program::{Layer, Map, Output, Pooling, Program, Size, Window};
use super::slots::Slots;
use crate::array::Array;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Matrix, Precision, Product, Repeated};

/// Bytes of gathered windows at once: within the cache of the GPUs that this is for, and enough rows to fill their processors.
pub const GATHERED: usize = 32 << 20;
/// Rows that are gathered are a multiple of this, but the last.
const ROWS: usize = 128;

/// Used within a layer and left.
struct Scratch<M: Machine> {
    gathered: Array<M>,
    moments: Array<M>,
    statistics: Array<M>,
    scores: Array<M>,
    probabilities: Array<M>,
}

/// A network of feature maps on a machine, which it holds or borrows.
pub struct MapNetwork<M: Machine, H: Borrow<M>> {
    precision: Precision,
    batch: usize,
    sizes: Vec<Size>,
    layers: Vec<Layer>,
    slots: Slots,
    weights: Array<M>,
    affine: Array<M>,
    /// `[B, C, height, width]` what comes in.
    images: Array<M>,
    /// What is read at the end.
    outputs: Vec<(Output, Array<M>)>,
    maps: Vec<Array<M>>,
    scratch: Scratch<M>,
    /// Bytes of gathered windows at once.
    room: usize,
    repeated: Repeated<M>,
    // behind the memory that is its own
    machine: H,
}

/// Rows of so many numbers that are gathered at once.
fn rows_at_once(room: usize, row: usize, precision: Precision) -> usize {
    (room / (row * precision.bytes()) / ROWS * ROWS).max(ROWS)
}

impl<M: Machine, H: Borrow<M>> MapNetwork<M, H> {
    /// Room for batches of `batch` images, of whose windows `room` bytes are gathered at once (usually [`GATHERED`]), with the weights.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    ///
    /// # Panics
    /// If the batch is empty.
    pub fn new(holder: H, precision: Precision, program: &Program, batch: usize, room: usize) -> Result<Self, Error> {
        assert!(batch > 0, "a batch has at least one image");
        let machine = holder.borrow();
        let slots = Slots::new(program);
        let [mut gathered, mut moments, mut statistics, mut scores] = [0; 4];
        for (layer, out) in program.layers.iter().zip(&program.sizes[1..]) {
            match *layer {
                Layer::Convolution { x, window, .. } if !is_point(x, window) => {
                    let row = window.places() * program.size(x).padded();
                    let rows = rows_at_once(room, row, precision).min(batch * out.places());
                    gathered = gathered.max(rows * row);
                }
                Layer::Convolution { .. }
                | Layer::Pool { .. }
                | Layer::Beside { .. }
                | Layer::Resize { .. }
                | Layer::Sum { .. } => {}
                Layer::Normalisation { groups, .. } => {
                    moments = moments.max(2 * batch * launch::moment_parts(out.places()) * out.channels);
                    statistics = statistics.max(2 * batch * groups);
                }
                Layer::Attention { .. } => scores = scores.max(out.places().pow(2)),
            }
        }
        let array = |count: usize| Array::new(machine, precision, count);
        let wide = |count: usize| Array::new(machine, Precision::F32, count);
        let input = program.sizes[0];
        let outputs = program.outputs.iter().map(|output| {
            let places = if output.mean { 1 } else { program.sizes[output.map].places() };
            Ok((*output, wide(batch * places * output.channels)?))
        });
        Ok(Self {
            precision,
            batch,
            sizes: program.sizes.clone(),
            layers: program.layers.clone(),
            weights: Array::from(machine, precision, &program.weights)?,
            affine: Array::from(machine, Precision::F32, &program.affine)?,
            images: wide(batch * input.places() * input.channels)?,
            outputs: outputs.collect::<Result<_, _>>()?,
            maps: slots.lengths.iter().map(|length| array(batch * length)).collect::<Result<_, _>>()?,
            slots,
            scratch: Scratch {
                gathered: array(gathered)?,
                moments: wide(moments)?,
                statistics: wide(statistics)?,
                scores: wide(scores)?,
                probabilities: array(scores)?,
            },
            room,
            repeated: Repeated::New,
            machine: holder,
        })
    }

    /// Images at once.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// What the program asks for of `images` `[B, C, height, width]`, in its order. Waits.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If there are more or fewer images.
    pub fn run(&mut self, images: &[f32]) -> Result<Vec<Vec<f32>>, Error> {
        let machine = self.machine.borrow();
        self.images.write(machine, images)?;
        let mut repeated = std::mem::replace(&mut self.repeated, Repeated::New);
        let done = repeated.run(machine, &|| self.launch());
        self.repeated = repeated;
        done?;
        self.outputs.iter().map(|(_, values)| values.read(self.machine.borrow())).collect()
    }

    /// Everything that a batch launches.
    fn launch(&self) -> Result<(), Error> {
        let l = Launcher { machine: self.machine.borrow(), precision: self.precision };
        // SAFETY: every array was made for this program and batch.
        unsafe {
            l.images_to_map(&self.images_of(0, self.sizes[0].channels, self.images.start()))?;
            for number in 1..self.sizes.len() {
                self.layer(l, number)?;
            }
            for (Output { map, channels, mean }, values) in &self.outputs {
                let images = self.images_of(*map, *channels, values.start());
                if !mean {
                    l.map_to_images(&images)?;
                    continue;
                }
                let Images { images: means, map, batch, channels, padded, places } = images;
                l.mean_places(&Means { map, means, batch, channels, padded, places })?;
            }
        }
        Ok(())
    }

    /// A map as so many channels of images.
    fn images_of(&self, map: usize, channels: usize, images: Address) -> Images {
        let size = self.sizes[map];
        Images {
            images,
            map: self.at(map),
            batch: self.batch as i32,
            channels: channels as i32,
            padded: size.padded() as i32,
            places: size.places() as i32,
        }
    }

    /// Where a map lies.
    fn at(&self, map: usize) -> Address {
        self.maps[self.slots.of_map[map]].start()
    }

    /// Makes map `number`.
    fn layer(&self, l: Launcher<M>, number: usize) -> Result<(), Error> {
        let (out, size) = (self.at(number), self.sizes[number]);
        match self.layers[number - 1] {
            Layer::Convolution { x, window, at, relu } => self.convolution(l, x, window, (at, relu), number),
            Layer::Pool { x, window, kind } => {
                let windows = Windows { out, ..self.windows(x, window, size) };
                let mean = i32::from(kind == Pooling::Mean);
                // SAFETY: both are maps of these sizes.
                unsafe { l.pool_windows(&Pool { windows, mean }) }
            }
            Layer::Beside { ref parts } => {
                let mut first = 0;
                for part in parts {
                    let width = self.sizes[part.number].padded();
                    let columns = Columns {
                        from: self.at(part.number),
                        to: out,
                        rows: self.batch * size.places(),
                        width: width as i32,
                        all: size.padded() as i32,
                        first: first as i32,
                    };
                    first += width;
                    // SAFETY: both are maps of these sizes.
                    unsafe { l.copy_columns(&columns)? };
                }
                Ok(())
            }
            Layer::Resize { x } => {
                let from = self.sizes[x.number];
                let resize = Resize {
                    x: self.at(x.number),
                    out,
                    batch: self.batch as i32,
                    height: from.height as i32,
                    width: from.width as i32,
                    out_height: size.height as i32,
                    out_width: size.width as i32,
                    channels: size.padded() as i32,
                };
                // SAFETY: both are maps of these sizes.
                unsafe { l.resize_map(&resize) }
            }
            Layer::Normalisation { x, groups, epsilon, silu, at } => {
                let norm = GroupNorm {
                    x: self.at(x.number),
                    moments: self.scratch.moments.start(),
                    statistics: self.scratch.statistics.start(),
                    weight: self.affine.at(at),
                    bias: self.affine.at(at + size.channels),
                    out,
                    batch: self.batch as i32,
                    places: size.places() as i32,
                    channels: size.channels as i32,
                    groups: groups as i32,
                    epsilon,
                    silu: i32::from(silu),
                };
                // SAFETY: the scratch has room for the largest of these, and the slots for their maps.
                unsafe {
                    l.channel_moments(&norm)?;
                    l.group_statistics(&norm)?;
                    l.group_normalise(&norm)
                }
            }
            Layer::Attention { q, k, v } => self.attention(l, [q, k, v].map(|map| self.at(map.number)), out, size),
            Layer::Sum { a, b } => {
                let (a, b, count) = (self.at(a.number), self.at(b.number), self.batch * size.len());
                // SAFETY: all three are maps of this size.
                unsafe { l.add_maps(&AddMaps { a, b, sum: out, count }) }
            }
        }
    }

    /// What a window sees of a map at all places of an output of `size`.
    fn windows(&self, x: Map, window: Window, size: Size) -> Windows {
        let (from, times) = (self.sizes[x.number], if x.doubled { 2 } else { 1 });
        Windows {
            x: self.at(x.number),
            out: Address::NULL,
            first: 0,
            count: (self.batch * size.places()) as i32,
            height: (times * from.height) as i32,
            width: (times * from.width) as i32,
            channels: from.padded() as i32,
            out_height: size.height as i32,
            out_width: size.width as i32,
            kernel_height: window.kernel[0] as i32,
            kernel_width: window.kernel[1] as i32,
            stride: window.stride as i32,
            above: window.before[0] as i32,
            left: window.before[1] as i32,
            doubled: i32::from(x.doubled),
        }
    }

    fn convolution(
        &self,
        l: Launcher<M>,
        x: Map,
        window: Window,
        (at, relu): (usize, bool),
        number: usize,
    ) -> Result<(), Error> {
        let (size, from, bytes) = (self.sizes[number], self.sizes[x.number], self.precision.bytes());
        let (rows, columns, row) = (self.batch * size.places(), size.padded(), window.places() * from.padded());
        let product = |left: Address, out: Address, rows: usize| Product {
            precision: self.precision,
            left: Matrix::plain(left),
            right: Matrix::transposed(self.weights.at(at)),
            bias: self.weights.at(at + columns * row),
            out,
            wide: false,
            relu,
            rows,
            columns,
            inner: row,
        };
        if is_point(x, window) {
            // SAFETY: both are maps of this size, the weights those of the layer.
            return unsafe { l.machine.multiply(&product(self.at(x.number), self.at(number), rows)) };
        }
        let gathered = self.scratch.gathered.start();
        let at_once = rows_at_once(self.room, row, self.precision);
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            let all = self.windows(x, window, size);
            let windows = Windows { out: gathered, first: first as i32, count: count as i32, ..all };
            let out = self.at(number).offset(first * columns * bytes);
            // SAFETY: the scratch has room for as many rows; the rest as above.
            unsafe {
                l.gather_windows(&windows)?;
                l.machine.multiply(&product(gathered, out, count))?;
            }
        }
        Ok(())
    }

    /// One image after the other: scores in `f32`, of which a row is summed up as one.
    fn attention(&self, l: Launcher<M>, qkv: [Address; 3], out: Address, size: Size) -> Result<(), Error> {
        let (places, width, precision) = (size.places(), size.channels, self.precision);
        let (scores, probabilities) = (self.scratch.scores.start(), self.scratch.probabilities.start());
        let scale = (width as f64).sqrt().recip() as f32;
        let softmax = Softmax { scores, probabilities, rows: places as i32, width: places as i32, scale };
        for image in 0..self.batch {
            let of_image = |map: Address| map.offset(image * places * width * precision.bytes());
            let [q, k, v] = qkv.map(of_image);
            let product = Product {
                precision,
                left: Matrix::plain(q),
                right: Matrix::transposed(k),
                bias: Address::NULL,
                out: scores,
                wide: true,
                relu: false,
                rows: places,
                columns: places,
                inner: width,
            };
            // SAFETY: the maps are of this size, and the scratch has room for an image's scores.
            unsafe {
                l.machine.multiply(&product)?;
                l.softmax_rows(&softmax)?;
                let (left, right) = (Matrix::plain(probabilities), Matrix::plain(v));
                l.multiply(of_image(out), [places, width, places], left, right, Address::NULL)?;
            }
        }
        Ok(())
    }
}

/// Whether a product can read the map as it lies.
fn is_point(x: Map, window: Window) -> bool {
    window == Window::POINT && !x.doubled
}
