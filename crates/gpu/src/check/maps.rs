//! Layers of feature maps, one by one and in a row, against plain loops in `f64`.

use super::{Bench, Finding};
use crate::launch::Launcher;
use crate::machine::{Error, Machine, Precision};
use crate::maps::{Map, MapNetwork, Program, Size, Window};

const BATCH: usize = 2;
/// So little that most convolutions gather their windows in several parts.
const ROOM: usize = 1 << 10;
const EPSILON: f32 = 1e-6;

/// A square of three that keeps the size.
const THREE: Window = Window { kernel: [3, 3], stride: 1, before: [1, 1], after: [1, 1] };
/// Windows with their channels, and whether the map is doubled: ordinary ones, the autoencoder's, and Inception's.
const WINDOWS: [(Window, [usize; 2], bool); 6] = [
    (Window::POINT, [3, 5], false),
    (THREE, [3, 5], false),
    (THREE, [16, 8], true),
    (Window { kernel: [3, 3], stride: 2, before: [0, 0], after: [1, 1] }, [8, 16], false),
    (Window { kernel: [3, 3], stride: 2, before: [0, 0], after: [0, 0] }, [8, 8], false),
    (Window { kernel: [1, 7], stride: 1, before: [0, 3], after: [0, 3] }, [8, 8], false),
];

/// Every layer, and a residual block over a doubled map.
///
/// # Errors
/// The machine cannot run a layer at all.
pub fn maps<M: Machine>(machine: &M, precision: Precision) -> Result<Vec<Finding>, Error> {
    let mut bench = Bench { launcher: Launcher { machine, precision }, findings: Vec::new(), seed: 400 };
    for (window, [channels, out], doubled) in WINDOWS {
        let what = format!("convolution {:?}, stride {}, doubled {doubled}", window.kernel, window.stride);
        check(&mut bench, &what, Size { height: 11, width: 13, channels }, |net, x| {
            let x = if doubled { net.doubled(x)? } else { x };
            net.convolve(x, window, out)
        })?;
    }
    let wide = Size { height: 11, width: 13, channels: 16 };
    for silu in [false, true] {
        check(&mut bench, &format!("normalisation, silu {silu}"), wide, |net, x| net.normalise(x, 8, silu))?;
    }
    check(&mut bench, "attention", wide, |net, x| {
        let x = net.normalise(x, 8, false)?;
        let qkv = [net.point(x)?, net.point(x)?, net.point(x)?];
        net.attend(qkv)
    })?;
    check(&mut bench, "residual block over a doubled map", wide, |net, x| {
        let x = net.doubled(x)?;
        let x = net.convolve(x, THREE, 8)?;
        let y = net.normalise(x, 4, true)?;
        let y = net.convolve(y, THREE, 16)?;
        let y = net.normalise(y, 4, true)?;
        let y = net.convolve(y, THREE, 16)?;
        let straight = net.convolve(x, Window::POINT, 16)?;
        let sum = net.sum(straight, y)?;
        net.convolve(sum, THREE, 3)
    })?;
    Ok(bench.findings)
}

/// A map as the loops have it, `[B, C, height, width]`.
type Values = Vec<f64>;

/// A program that is written, and what its maps hold.
struct Net<'b, 'm, M: Machine> {
    bench: &'b mut Bench<'m, M>,
    program: Program,
    values: Vec<Values>,
}

/// Writes a program on random images, runs it and holds it against the loops.
fn check<M: Machine>(
    bench: &mut Bench<M>,
    what: &str,
    size: Size,
    write: impl FnOnce(&mut Net<M>, Map) -> Result<Map, Error>,
) -> Result<(), Error> {
    // far from zero: a variance that is a difference of squares would show
    let mut images = bench.numbers(BATCH * size.channels * size.places(), 1.0);
    for value in &mut images {
        *value = bench.rounded(*value + 4.0);
    }
    let (program, input) = Program::new(size);
    let mut net = Net { bench, program, values: vec![images.iter().map(|v| f64::from(*v)).collect()] };
    write(&mut net, input)?;
    let want: Vec<f32> = net.values.pop().unwrap_or_default().into_iter().map(|v| v as f32).collect();
    let (program, Launcher { machine, precision }) = (net.program, bench.launcher);
    let mut network = MapNetwork::new(machine, precision, &program, BATCH, ROOM)?;
    let bound = match precision {
        Precision::F32 => 1e-5,
        Precision::Bf16 => 2e-2,
    };
    // call by call, captured, and replayed
    for time in ["at once", "recorded", "replayed"] {
        let ours = network.run(machine, &images)?;
        bench.find(&format!("{what}, {time}"), &ours, &want, bound);
    }
    Ok(())
}

impl<M: Machine> Net<'_, '_, M> {
    fn doubled(&mut self, x: Map) -> Result<Map, Error> {
        self.program.doubled(x)
    }

    fn convolve(&mut self, x: Map, window: Window, out: usize) -> Result<Map, Error> {
        let (from, [height, width]) = (self.program.size(x), window.kernel);
        let fan_in = height * width * from.channels;
        let kernel = self.bench.numbers(out * fan_in, (fan_in as f32).sqrt().recip());
        let bias = self.bench.numbers(out, 1.0);
        let map = self.program.convolution(x, window, &kernel, &bias)?;
        let (size, times, input) = (self.program.size(map), if x.doubled { 2 } else { 1 }, &self.values[x.number]);
        let mut values = Vec::with_capacity(BATCH * out * size.places());
        for_each([BATCH, out, size.height, size.width], |[image, channel, row, column]| {
            let mut sum = f64::from(bias[channel]);
            for_each([height, width, 1, from.channels], |[dy, dx, _, c]| {
                let y = (row * window.stride + dy).wrapping_sub(window.before[0]);
                let x = (column * window.stride + dx).wrapping_sub(window.before[1]);
                if y < from.height && x < from.width {
                    let line = (image * from.channels + c) * (from.height / times) + y / times;
                    let weight = kernel[channel * fan_in + (dy * width + dx) * from.channels + c];
                    sum += f64::from(weight) * input[line * (from.width / times) + x / times];
                }
            });
            values.push(sum);
        });
        self.values.push(values);
        Ok(map)
    }

    /// A convolution of one place that keeps the channels.
    fn point(&mut self, x: Map) -> Result<Map, Error> {
        self.convolve(x, Window::POINT, self.program.size(x).channels)
    }

    fn normalise(&mut self, x: Map, groups: usize, silu: bool) -> Result<Map, Error> {
        let size = self.program.size(x);
        let (weight, bias) = (self.bench.numbers(size.channels, 1.0), self.bench.numbers(size.channels, 1.0));
        let map = self.program.normalisation(x, (groups, EPSILON), [&weight, &bias], silu)?;
        let mut values = self.values[x.number].clone();
        for (group, values) in values.chunks_exact_mut(size.channels / groups * size.places()).enumerate() {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            let first = group % groups * (size.channels / groups);
            for (channel, values) in (first..).zip(values.chunks_exact_mut(size.places())) {
                for v in values {
                    let normal = (*v - mean) / (variance + f64::from(EPSILON)).sqrt();
                    let y = normal * f64::from(weight[channel]) + f64::from(bias[channel]);
                    *v = if silu { y / (1.0 + (-y).exp()) } else { y };
                }
            }
        }
        self.values.push(values);
        Ok(map)
    }

    fn attend(&mut self, qkv: [Map; 3]) -> Result<Map, Error> {
        let size = self.program.size(qkv[0]);
        let (places, channels) = (size.places(), size.channels);
        let map = self.program.attention(qkv)?;
        let [q, k, v] = qkv.map(|map| &self.values[map.number]);
        let mut values = vec![0.0; q.len()];
        for (image, row) in (0..BATCH).flat_map(|image| (0..places).map(move |row| (image, row))) {
            let at = |channel: usize, place: usize| (image * channels + channel) * places + place;
            let score = |place| (0..channels).map(|c| q[at(c, row)] * k[at(c, place)]).sum::<f64>();
            let scores: Vec<f64> = (0..places).map(|place| score(place) / (channels as f64).sqrt()).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            for channel in 0..channels {
                let mixed = |(place, score): (usize, &f64)| (score - most).exp() / sum * v[at(channel, place)];
                values[at(channel, row)] = scores.iter().enumerate().map(mixed).sum();
            }
        }
        self.values.push(values);
        Ok(map)
    }

    fn sum(&mut self, a: Map, b: Map) -> Result<Map, Error> {
        let map = self.program.sum([a, b])?;
        let both = self.values[a.number].iter().zip(&self.values[b.number]);
        self.values.push(both.map(|(a, b)| a + b).collect());
        Ok(map)
    }
}

/// Every place of an array of this shape, in order.
fn for_each(shape: [usize; 4], mut visit: impl FnMut([usize; 4])) {
    for i in 0..shape.iter().product() {
        let [_, b, c, d] = shape;
        visit([i / (b * c * d), i / (c * d) % b, i / d % c, i % d]);
    }
}
