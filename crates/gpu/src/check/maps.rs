//! Layers of feature maps, one by one and in a row, against plain loops in `f64`.

use super::{Bench, Finding};
use crate::launch::Launcher;
use crate::machine::{Error, Machine, Precision};
use crate::maps::{Map, MapNetwork, Pooling, Program, Size, Window};

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
            net.convolve(x, window, out, false)
        })?;
    }
    for kind in [Pooling::Mean, Pooling::Max] {
        for window in [THREE, Window { kernel: [3, 3], stride: 2, before: [0, 0], after: [0, 0] }] {
            let what = format!("pooling {kind:?}, stride {}", window.stride);
            check(&mut bench, &what, Size { height: 11, width: 13, channels: 5 }, |net, x| net.pool(x, window, kind))?;
        }
    }
    for to in [[17, 20], [7, 9]] {
        check(&mut bench, &format!("resized to {to:?}"), Size { height: 11, width: 13, channels: 3 }, |net, x| {
            net.resize(x, to)
        })?;
    }
    check(&mut bench, "branches beside each other", Size { height: 11, width: 13, channels: 3 }, |net, x| {
        let parts = [net.convolve(x, THREE, 16, true)?, net.convolve(x, Window::POINT, 8, true)?];
        let both = net.beside(parts)?;
        let both = net.convolve(both, Window::POINT, 8, true)?;
        net.convolve(both, THREE, 8, false)
    })?;
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
        let x = net.convolve(x, THREE, 8, false)?;
        let y = net.normalise(x, 4, true)?;
        let y = net.convolve(y, THREE, 16, false)?;
        let y = net.normalise(y, 4, true)?;
        let y = net.convolve(y, THREE, 16, false)?;
        let straight = net.convolve(x, Window::POINT, 16, false)?;
        let sum = net.sum(straight, y)?;
        net.convolve(sum, THREE, 3, false)
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
    let output = write(&mut net, input)?;
    let last = net.values.pop().unwrap_or_default();
    let places = net.program.size(output).places();
    let means = last.chunks_exact(places).map(|channel| (channel.iter().sum::<f64>() / places as f64) as f32);
    let (means, want): (Vec<f32>, Vec<f32>) = (means.collect(), last.iter().map(|v| *v as f32).collect());
    net.program.read(output, net.program.size(output).channels)?;
    net.program.read_means(output)?;
    let (program, Launcher { machine, precision }) = (net.program, bench.launcher);
    let mut network = MapNetwork::<M, &M>::new(machine, precision, &program, BATCH, ROOM)?;
    let bound = match precision {
        Precision::F32 => 1e-5,
        Precision::Bf16 => 2e-2,
    };
    // call by call, captured, and replayed
    for time in ["at once", "recorded", "replayed"] {
        let ours = network.run(&images)?;
        bench.find(&format!("{what}, {time}"), &ours[0], &want, bound);
        bench.find(&format!("{what}, means, {time}"), &ours[1], &means, bound);
    }
    Ok(())
}

impl<M: Machine> Net<'_, '_, M> {
    fn doubled(&mut self, x: Map) -> Result<Map, Error> {
        self.program.doubled(x)
    }

    fn convolve(&mut self, x: Map, window: Window, out: usize, relu: bool) -> Result<Map, Error> {
        let (from, [height, width]) = (self.program.size(x), window.kernel);
        let fan_in = height * width * from.channels;
        let kernel = self.bench.numbers(out * fan_in, (fan_in as f32).sqrt().recip());
        let bias = self.bench.numbers(out, 1.0);
        let map = self.program.convolution(x, window, [&kernel, &bias], relu)?;
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
            values.push(if relu { sum.max(0.0) } else { sum });
        });
        self.values.push(values);
        Ok(map)
    }

    /// A convolution of one place that keeps the channels.
    fn point(&mut self, x: Map) -> Result<Map, Error> {
        self.convolve(x, Window::POINT, self.program.size(x).channels, false)
    }

    fn pool(&mut self, x: Map, window: Window, kind: Pooling) -> Result<Map, Error> {
        let from = self.program.size(x);
        let map = self.program.pool(x, window, kind)?;
        let (size, input, [height, width]) = (self.program.size(map), &self.values[x.number], window.kernel);
        let mut values = Vec::with_capacity(BATCH * size.channels * size.places());
        for_each([BATCH, size.channels, size.height, size.width], |[image, channel, row, column]| {
            let mut seen = Vec::new();
            for_each([height, width, 1, 1], |[dy, dx, ..]| {
                let y = (row * window.stride + dy).wrapping_sub(window.before[0]);
                let x = (column * window.stride + dx).wrapping_sub(window.before[1]);
                let inside = y < from.height && x < from.width;
                seen.push(
                    inside.then(|| input[((image * from.channels + channel) * from.height + y) * from.width + x]),
                );
            });
            let inside = seen.iter().flatten();
            values.push(match kind {
                Pooling::Mean => inside.clone().sum::<f64>() / inside.count() as f64,
                Pooling::Max => seen.iter().map(|v| v.unwrap_or_default()).fold(f64::NEG_INFINITY, f64::max),
            });
        });
        self.values.push(values);
        Ok(map)
    }

    fn resize(&mut self, x: Map, to: [usize; 2]) -> Result<Map, Error> {
        let from = self.program.size(x);
        let map = self.program.resized(x, to)?;
        let input = &self.values[x.number];
        let between = |i: usize, from: usize, to: usize| {
            let place = (from as f64 / to as f64 * (i as f64 + 0.5) - 0.5).max(0.0);
            (place as usize, (place as usize + 1).min(from - 1), place.fract())
        };
        let mut values = Vec::with_capacity(BATCH * from.channels * to[0] * to[1]);
        for_each([BATCH, from.channels, to[0], to[1]], |[image, channel, row, column]| {
            let (top, bottom, down) = between(row, from.height, to[0]);
            let (left, right, across) = between(column, from.width, to[1]);
            let at = |y: usize, x: usize| input[((image * from.channels + channel) * from.height + y) * from.width + x];
            let line = |y| at(y, left) * (1.0 - across) + at(y, right) * across;
            values.push(line(top) * (1.0 - down) + line(bottom) * down);
        });
        self.values.push(values);
        Ok(map)
    }

    fn beside(&mut self, parts: [Map; 2]) -> Result<Map, Error> {
        let map = self.program.beside(&parts)?;
        let [a, b] = parts.map(|part| {
            let size = self.program.size(part);
            self.values[part.number].chunks_exact(size.channels * size.places())
        });
        let values = a.zip(b).flat_map(|(a, b)| a.iter().chain(b)).copied().collect();
        self.values.push(values);
        Ok(map)
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
