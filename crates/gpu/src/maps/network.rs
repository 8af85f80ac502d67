//! A program on a machine: room for a batch, and its layers as launches.

use super::program::{Layer, Map, Program, Size, Window};
use super::slots::Slots;
use super::{AddMaps, GroupNorm, Images, Softmax, Windows, launch};
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

/// A network of feature maps on a machine.
pub struct MapNetwork<M: Machine> {
    precision: Precision,
    batch: usize,
    sizes: Vec<Size>,
    layers: Vec<Layer>,
    slots: Slots,
    weights: Array<M>,
    affine: Array<M>,
    /// `[B, C, height, width]` what comes in, and what goes out.
    images: Array<M>,
    output: Array<M>,
    maps: Vec<Array<M>>,
    scratch: Scratch<M>,
    /// Bytes of gathered windows at once.
    room: usize,
    repeated: Repeated<M>,
}

/// Rows of so many numbers that are gathered at once.
fn rows_at_once(room: usize, row: usize, precision: Precision) -> usize {
    (room / (row * precision.bytes()) / ROWS * ROWS).max(ROWS)
}

impl<M: Machine> MapNetwork<M> {
    /// Room for batches of `batch` images, of whose windows `room` bytes are gathered at once (usually [`GATHERED`]), with the weights.
    ///
    /// # Errors
    /// [`Error::Memory`] where it does not fit.
    ///
    /// # Panics
    /// If the batch is empty.
    pub fn new(machine: &M, precision: Precision, program: &Program, batch: usize, room: usize) -> Result<Self, Error> {
        assert!(batch > 0, "a batch has at least one image");
        let slots = Slots::new(program);
        let [mut gathered, mut moments, mut statistics, mut scores] = [0; 4];
        for (layer, out) in program.layers.iter().zip(&program.sizes[1..]) {
            match *layer {
                Layer::Convolution { x, window, .. } if !is_point(x, window) => {
                    let row = window.places() * program.size(x).padded();
                    let rows = rows_at_once(room, row, precision).min(batch * out.places());
                    gathered = gathered.max(rows * row);
                }
                Layer::Convolution { .. } | Layer::Sum { .. } => {}
                Layer::Normalisation { groups, .. } => {
                    moments = moments.max(2 * batch * launch::moment_parts(out.places()) * out.channels);
                    statistics = statistics.max(2 * batch * groups);
                }
                Layer::Attention { .. } => scores = scores.max(out.places().pow(2)),
            }
        }
        let array = |count: usize| Array::new(machine, precision, count);
        let wide = |count: usize| Array::new(machine, Precision::F32, count);
        let (input, output) = (program.sizes[0], program.sizes[program.sizes.len() - 1]);
        let image = |size: Size| batch * size.places() * size.channels;
        Ok(Self {
            precision,
            batch,
            sizes: program.sizes.clone(),
            layers: program.layers.clone(),
            weights: Array::from(machine, precision, &program.weights)?,
            affine: Array::from(machine, Precision::F32, &program.affine)?,
            images: wide(image(input))?,
            output: wide(image(output))?,
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
        })
    }

    /// Images at once.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The network's map of `images` `[B, C, height, width]`, laid out alike. Waits.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If there are more or fewer images.
    pub fn run(&mut self, machine: &M, images: &[f32]) -> Result<Vec<f32>, Error> {
        self.images.write(machine, images)?;
        let mut repeated = std::mem::replace(&mut self.repeated, Repeated::New);
        let done = repeated.run(machine, &|| self.launch(machine));
        self.repeated = repeated;
        done?;
        self.output.read(machine)
    }

    /// Everything that a batch launches.
    fn launch(&self, machine: &M) -> Result<(), Error> {
        let l = Launcher { machine, precision: self.precision };
        let last = self.sizes.len() - 1;
        // SAFETY: every array was made for this program and batch.
        unsafe {
            l.images_to_map(&Images { images: self.images.start(), ..self.ends(0) })?;
            for number in 1..=last {
                self.layer(l, number)?;
            }
            l.map_to_images(&Images { images: self.output.start(), ..self.ends(last) })
        }
    }

    fn ends(&self, map: usize) -> Images {
        let size = self.sizes[map];
        Images {
            images: Address::NULL,
            map: self.at(map),
            batch: self.batch as i32,
            channels: size.channels as i32,
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
            Layer::Convolution { x, window, at } => self.convolution(l, x, window, at, number),
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

    fn convolution(&self, l: Launcher<M>, x: Map, window: Window, at: usize, number: usize) -> Result<(), Error> {
        let (size, from, bytes) = (self.sizes[number], self.sizes[x.number], self.precision.bytes());
        let (rows, columns, row) = (self.batch * size.places(), size.padded(), window.places() * from.padded());
        let (weight, bias) = (Matrix::transposed(self.weights.at(at)), self.weights.at(at + columns * row));
        if is_point(x, window) {
            let left = Matrix::plain(self.at(x.number));
            // SAFETY: both are maps of this size, the weights those of the layer.
            return unsafe { l.multiply(self.at(number), [rows, columns, row], left, weight, bias) };
        }
        let (times, gathered) = (if x.doubled { 2 } else { 1 }, self.scratch.gathered.start());
        let at_once = rows_at_once(self.room, row, self.precision);
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            let windows = Windows {
                x: self.at(x.number),
                rows: gathered,
                first: first as i32,
                count: count as i32,
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
            };
            let out = self.at(number).offset(first * columns * bytes);
            // SAFETY: the scratch has room for as many rows; the rest as above.
            unsafe {
                l.gather_windows(&windows)?;
                l.multiply(out, [count, columns, row], Matrix::plain(gathered), weight, bias)?;
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
