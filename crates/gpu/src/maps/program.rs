//! Which layers a network of feature maps has, in order, and their weights.

use crate::machine::Error;

/// Channels are padded to a multiple of this: rows of both precisions are whole packs then.
const PACK: usize = 8;

/// Size of a map of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows of places.
    pub height: usize,
    /// Places in a row.
    pub width: usize,
    /// Numbers of a place.
    pub channels: usize,
}

impl Size {
    /// Places.
    pub fn places(self) -> usize {
        self.height * self.width
    }

    /// Channels as they lie in memory.
    pub(super) fn padded(self) -> usize {
        self.channels.next_multiple_of(PACK)
    }

    /// Numbers as they lie in memory.
    pub(super) fn len(self) -> usize {
        self.places() * self.padded()
    }
}

/// What a convolution sees of a map: kernel, step and borders of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Of one place.
    pub const POINT: Self = Self { kernel: [1, 1], stride: 1, before: [0, 0], after: [0, 0] };

    /// Places in it.
    pub(super) fn places(self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Height and width of what comes out of a map.
    fn output(self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let along = |i: usize, size: usize| {
            let room = (size + self.before[i] + self.after[i]).checked_sub(self.kernel[i])?;
            Some(room / self.stride + 1)
        };
        Some([along(0, height)?, along(1, width)?])
    }
}

/// A map that a program makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    pub(crate) number: usize,
    /// Whether its places stand for squares of four.
    pub(crate) doubled: bool,
}

/// What is taken of a window's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of those inside the map.
    Mean,
    /// The largest; a border counts as zero.
    Max,
}

/// A layer; the map that it makes is the one behind those before it.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    /// `out [places, O] = windows of x [places, K C] weight [O, K C]^T + bias [O]`, weight and bias behind each other from `at` on, and no
    /// less than 0 if `relu`.
    Convolution { x: Map, window: Window, at: usize, relu: bool },
    /// A window's places as one.
    Pool { x: Map, window: Window, kind: Pooling },
    /// The channels of some maps side by side.
    Beside { parts: Vec<Map> },
    /// Bilinear to another size.
    Resize { x: Map },
    /// Weight and bias of a group normalisation behind each other from `at` on.
    Normalisation { x: Map, groups: usize, epsilon: f32, silu: bool, at: usize },
    /// `softmax(q k^T / sqrt(C)) v` over all places.
    Attention { q: Map, k: Map, v: Map },
    /// `a + b`.
    Sum { a: Map, b: Map },
}

impl Layer {
    /// The maps that it reads.
    pub(super) fn reads(&self) -> Vec<usize> {
        let maps = match self {
            Self::Convolution { x, .. } | Self::Pool { x, .. } | Self::Resize { x } | Self::Normalisation { x, .. } => {
                vec![*x]
            }
            Self::Beside { parts } => parts.clone(),
            Self::Attention { q, k, v } => vec![*q, *k, *v],
            Self::Sum { a, b } => vec![*a, *b],
        };
        maps.iter().map(|map| map.number).collect()
    }
}

/// What is read of a map when all is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) map: usize,
    /// Its first channels.
    pub(super) channels: usize,
    /// Whether the mean over all places.
    pub(super) mean: bool,
}

/// A network from one map to some of those that it makes.
#[derive(Clone, Debug)]
pub struct Program {
    /// Of each map, the input's first.
    pub(super) sizes: Vec<Size>,
    /// One for each map but the input.
    pub(super) layers: Vec<Layer>,
    pub(super) outputs: Vec<Output>,
    /// Of the convolutions, as the products read them.
    pub(super) weights: Vec<f32>,
    /// Of the normalisations.
    pub(super) affine: Vec<f32>,
}

impl Program {
    /// A program that does nothing yet, and its input.
    pub fn new(input: Size) -> (Self, Map) {
        let sizes = vec![input];
        let program = Self { sizes, layers: vec![], outputs: vec![], weights: vec![], affine: vec![] };
        (program, Map { number: 0, doubled: false })
    }

    /// Asks for the first `channels` channels of a map, `[B, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it is doubled.
    ///
    /// # Panics
    /// If it has fewer.
    pub fn read(&mut self, map: Map, channels: usize) -> Result<(), Error> {
        assert!(channels <= self.plain(map)?.channels, "as many channels as the map has");
        self.outputs.push(Output { map: map.number, channels, mean: false });
        Ok(())
    }

    /// Asks for the means of a map over its places, `[B, C]`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_means(&mut self, map: Map) -> Result<(), Error> {
        let channels = self.plain(map)?.channels;
        self.outputs.push(Output { map: map.number, channels, mean: true });
        Ok(())
    }

    /// Size of a map.
    pub fn size(&self, map: Map) -> Size {
        let Size { height, width, channels } = self.sizes[map.number];
        let times = if map.doubled { 2 } else { 1 };
        Size { height: times * height, width: times * width, channels }
    }

    fn push(&mut self, layer: Layer, size: Size) -> Map {
        self.layers.push(layer);
        self.sizes.push(size);
        Map { number: self.sizes.len() - 1, doubled: false }
    }

    /// A convolution: `kernel` `[out, window places, channels of x]`, `bias` `[out]`; `relu` of it or not.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the window does not fit into the map.
    ///
    /// # Panics
    /// If the kernel is of another size.
    pub fn convolution(
        &mut self,
        x: Map,
        window: Window,
        [kernel, bias]: [&[f32]; 2],
        relu: bool,
    ) -> Result<Map, Error> {
        let from = self.size(x);
        let (places, out) = (window.places(), bias.len());
        assert_eq!(kernel.len(), out * places * from.channels, "a kernel for the map's channels and the window");
        let (at, padded) = (self.weights.len(), from.padded());
        let size = Size { channels: out, ..through(window, from)? };
        self.weights.resize(at + size.padded() * (places * padded + 1), 0.0);
        let (rows, biases) = self.weights[at..].split_at_mut(size.padded() * places * padded);
        for (to, from) in rows.chunks_exact_mut(padded).zip(kernel.chunks_exact(from.channels)) {
            to[..from.len()].copy_from_slice(from);
        }
        biases[..out].copy_from_slice(bias);
        Ok(self.push(Layer::Convolution { x, window, at, relu }, size))
    }

    /// A pooling.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the window does not fit into the map, or the map is doubled.
    pub fn pool(&mut self, x: Map, window: Window, kind: Pooling) -> Result<Map, Error> {
        let size = through(window, self.plain(x)?)?;
        Ok(self.push(Layer::Pool { x, window, kind }, size))
    }

    /// The channels of some maps side by side.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where channels are no multiple of 8, or a map is doubled.
    ///
    /// # Panics
    /// If there are none, or they are of different places.
    pub fn beside(&mut self, parts: &[Map]) -> Result<Map, Error> {
        let sizes = parts.iter().map(|map| self.whole(*map)).collect::<Result<Vec<_>, _>>()?;
        let alike = |size: &Size| (size.height, size.width) == (sizes[0].height, sizes[0].width);
        assert!(sizes.iter().all(alike), "maps of the same places");
        let size = Size { channels: sizes.iter().map(|size| size.channels).sum(), ..sizes[0] };
        Ok(self.push(Layer::Beside { parts: parts.to_vec() }, size))
    }

    /// Bilinear to another height and width, corners not aligned, no filter against aliasing; the map itself if it has them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the map is doubled.
    pub fn resized(&mut self, x: Map, [height, width]: [usize; 2]) -> Result<Map, Error> {
        let size = Size { height, width, ..self.plain(x)? };
        Ok(if size == self.size(x) { x } else { self.push(Layer::Resize { x }, size) })
    }

    /// A group normalisation with `weight` and `bias` `[channels of x]`, and `silu` behind it or not.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the channels are no multiple of 8, or the map is doubled.
    ///
    /// # Panics
    /// If weight or bias are of another size, or the channels no multiple of the groups.
    pub fn normalisation(
        &mut self,
        x: Map,
        (groups, epsilon): (usize, f32),
        [weight, bias]: [&[f32]; 2],
        silu: bool,
    ) -> Result<Map, Error> {
        let size = self.whole(x)?;
        assert!(weight.len() == size.channels && bias.len() == size.channels, "a weight and a bias for each channel");
        assert!(size.channels.is_multiple_of(groups), "groups of as many channels");
        let at = self.affine.len();
        self.affine.extend(weight.iter().chain(bias));
        Ok(self.push(Layer::Normalisation { x, groups, epsilon, silu, at }, size))
    }

    /// Attention of one head over all places.
    ///
    /// # Errors
    /// As [`Self::normalisation`].
    ///
    /// # Panics
    /// If the maps are of different sizes.
    pub fn attention(&mut self, [q, k, v]: [Map; 3]) -> Result<Map, Error> {
        let size = self.whole(q)?;
        assert!(self.whole(k)? == size && self.whole(v)? == size, "queries, keys and values of one size");
        Ok(self.push(Layer::Attention { q, k, v }, size))
    }

    /// The sum of two maps.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where one is doubled.
    ///
    /// # Panics
    /// If they are of different sizes.
    pub fn sum(&mut self, [a, b]: [Map; 2]) -> Result<Map, Error> {
        assert_eq!(self.size(a), self.size(b), "maps of one size");
        self.plain(a)?;
        let size = self.plain(b)?;
        Ok(self.push(Layer::Sum { a, b }, size))
    }

    /// Every place of the map as a square of four, for a convolution to look at.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it is doubled already.
    pub fn doubled(&self, x: Map) -> Result<Map, Error> {
        self.plain(x)?;
        Ok(Map { doubled: true, ..x })
    }

    /// The size of a map that is not doubled.
    fn plain(&self, map: Map) -> Result<Size, Error> {
        let what = || "a doubled map before another layer".to_owned();
        let refused = || Error::Unsupported { what: what(), reason: "only a convolution looks at one" };
        if map.doubled { Err(refused()) } else { Ok(self.size(map)) }
    }

    /// The size of a map whose channels fill whole packs.
    fn whole(&self, map: Map) -> Result<Size, Error> {
        let size = self.plain(map)?;
        if size.channels == size.padded() {
            return Ok(size);
        }
        let what = format!("a layer of {} channels", size.channels);
        Err(Error::Unsupported { what, reason: "the channels must be a multiple of 8" })
    }
}

/// What comes out of a map behind a window, of as many channels.
fn through(window: Window, from: Size) -> Result<Size, Error> {
    let Some([height, width]) = window.output([from.height, from.width]) else {
        let what = format!("a window of {:?} on a map of {} x {}", window.kernel, from.height, from.width);
        return Err(Error::Unsupported { what, reason: "the window does not fit into it" });
    };
    Ok(Size { height, width, ..from })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no kernel does is said when it is written, not when it is run.
    #[test]
    fn what_does_not_fit_is_refused() {
        let (mut program, x) = Program::new(Size { height: 4, width: 5, channels: 3 });
        let five = Window { kernel: [5, 5], ..Window::POINT };
        let error = program.pool(x, five, Pooling::Max).unwrap_err().to_string();
        assert!(error.contains("a window of [5, 5] on a map of 4 x 5"), "{error}");
        let error = program.normalisation(x, (1, 1e-6), [&[1.0; 3], &[0.0; 3]], true).unwrap_err().to_string();
        assert!(error.contains("3 channels") && error.contains("a multiple of 8"), "{error}");
        let doubled = program.doubled(x).unwrap();
        assert_eq!(program.size(doubled), Size { height: 8, width: 10, channels: 3 });
        let error = program.sum([doubled, doubled]).unwrap_err().to_string();
        assert!(error.contains("doubled"), "{error}");
    }
}
