//! Channels as samples, brought to the size of the image and to RGB.

use super::frame::{Component, Frame};
use super::transform::inverse;

/// A channel's samples, and how many pixels each stands for across and down.
struct Plane {
    samples: Vec<u8>,
    stride: usize,
    sides: [usize; 2],
    scale: [usize; 2],
}

/// All channels.
pub(super) struct Planes {
    planes: Vec<Plane>,
}

impl Planes {
    /// Transforms all blocks, a channel's coefficients giving way to its samples; `None` where a table is missing.
    pub(super) fn of(frame: Frame, quantisation: &[Option<[u16; 64]>; 4]) -> Option<Self> {
        let most = frame.most;
        let plane = |component: Component| {
            let steps = quantisation[component.quantisation].as_ref()?;
            let [across, down] = component.blocks;
            let stride = 8 * across;
            let mut samples = vec![0; stride * 8 * down];
            for (number, block) in component.coefficients.chunks_exact(64).enumerate() {
                let corner = number / across * 8 * stride + number % across * 8;
                for (y, row) in inverse(block, steps).chunks_exact(8).enumerate() {
                    samples[corner + y * stride..][..8].copy_from_slice(row);
                }
            }
            let scale = [0, 1].map(|axis| most[axis] / component.sampling[axis]);
            Some(Plane { samples, stride, sides: component.samples, scale })
        };
        Some(Self { planes: frame.components.into_iter().map(plane).collect::<Option<Vec<_>>>()? })
    }

    /// Row `y` of the image in `N` channels, each at least as wide as the image.
    pub(super) fn row<const N: usize>(&self, y: usize) -> [Vec<u8>; N] {
        std::array::from_fn(|channel| self.planes[channel].row(y))
    }
}

impl Plane {
    fn samples(&self, row: usize) -> &[u8] {
        &self.samples[row * self.stride..][..self.sides[0]]
    }

    /// Samples of a row of the image. Between two samples three quarters of the nearer and one of the farther; beyond the
    /// edges, the last one. Other scales than two repeat samples, and so do rows of one or two.
    fn row(&self, y: usize) -> Vec<u8> {
        let [across, down] = self.scale;
        let near = self.samples(y / down);
        // The row above for the upper of two, that below for the lower.
        let far = || match y % 2 {
            0 => self.samples((y / 2).saturating_sub(1)),
            _ => self.samples((y / 2 + 1).min(self.sides[1] - 1)),
        };
        let wide = near.len() > 2;
        match (across, down) {
            (1, 1) => near.to_vec(),
            (1, 2) => {
                let bias = 1 + (y % 2) as u16;
                near.iter().zip(far()).map(|(&n, &f)| ((3 * u16::from(n) + u16::from(f) + bias) >> 2) as u8).collect()
            }
            (2, 1) if wide => {
                let sums: Vec<u16> = near.iter().map(|&n| u16::from(n)).collect();
                doubled(&sums, [1, 2], 2)
            }
            (2, 2) if wide => {
                let sums: Vec<u16> = near.iter().zip(far()).map(|(&n, &f)| 3 * u16::from(n) + u16::from(f)).collect();
                doubled(&sums, [8, 7], 4)
            }
            _ => near.iter().flat_map(|&n| std::iter::repeat_n(n, across)).collect(),
        }
    }
}

/// Twice as many: three times each and once its left, then its right neighbour, which `biases` round and `shift` scales. At the
/// edges a sample is its own neighbour.
fn doubled(sums: &[u16], biases: [u16; 2], shift: u32) -> Vec<u8> {
    let last = sums.len() - 1;
    let pair = |(i, &sum): (usize, &u16)| {
        let (left, right) = (sums[i.saturating_sub(1)], sums[(i + 1).min(last)]);
        [left, right].into_iter().zip(biases).map(move |(other, bias)| ((3 * sum + other + bias) >> shift) as u8)
    };
    sums.iter().enumerate().flat_map(pair).collect()
}

/// Luminance and two differences to RGB, with 16 bits behind the point.
pub(super) fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91881 * cr + HALF) >> 16);
    let green = y + ((-22554 * cb - 46802 * cr + HALF) >> 16);
    let blue = y + ((116130 * cb + HALF) >> 16);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}
