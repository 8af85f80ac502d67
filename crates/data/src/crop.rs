//! Any photograph to a square: the centre crop of the DiT reference (`center_crop_arr`), with 8-bit resampling as in
//! Pillow.

/// An 8-bit RGB image, interleaved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Photo {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// `[height, width, 3]`.
    pub(crate) rgb: Vec<u8>,
}

/// Resizes `photo` so that its shorter side is `side` and cuts the centre out; `out` is planar `[3, side, side]`.
///
/// Halved with a box filter while the shorter side is at least twice `side`, then bicubic; sizes round half to even.
pub(crate) fn centre_crop(mut photo: Photo, side: usize, out: &mut [u8]) {
    while photo.width.min(photo.height) >= 2 * side {
        photo = resize(&photo, photo.width / 2, photo.height / 2, Filter::Box);
    }
    let scale = side as f64 / photo.width.min(photo.height) as f64;
    let scaled = |size: usize| (size as f64 * scale).round_ties_even() as usize;
    photo = resize(&photo, scaled(photo.width), scaled(photo.height), Filter::Bicubic);
    let (left, top) = ((photo.width - side) / 2, (photo.height - side) / 2);
    for (c, plane) in out.chunks_exact_mut(side * side).enumerate() {
        for (y, row) in plane.chunks_exact_mut(side).enumerate() {
            let from = &photo.rgb[((top + y) * photo.width + left) * 3..];
            row.iter_mut().zip(from.chunks_exact(3)).for_each(|(v, pixel)| *v = pixel[c]);
        }
    }
}

/// A filter of Pillow's `ImagingResample`.
#[derive(Clone, Copy, Debug)]
enum Filter {
    Box,
    /// Keys' cubic with a = -1/2.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        match self {
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bicubic => match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            },
        }
    }
}

/// Fraction bits of a weight: 8 for the value and 2 for overshoot are taken from 32.
const PRECISION: u32 = 32 - 8 - 2;

/// The weights of one output position: the first input position and the fixed-point weights from there on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Weights from `from` to `to` positions; the filter is widened when shrinking.
fn taps(from: usize, to: usize, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let support = filter.support() * widening;
    let narrowing = 1.0 / widening;
    let at = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let raw: Vec<f64> = (first..end).map(|x| filter.at((x as f64 - centre + 0.5) * narrowing)).collect();
        let total: f64 = raw.iter().sum();
        let fixed = |w: &f64| (w / total * f64::from(1 << PRECISION)).round() as i32;
        Taps { first, weights: raw.iter().map(fixed).collect() }
    };
    (0..to).map(at).collect()
}

/// Resizes in two passes, horizontal then vertical, rounding to 8 bits in between; skips a pass that keeps its size.
fn resize(photo: &Photo, width: usize, height: usize, filter: Filter) -> Photo {
    let mut rgb = photo.rgb.clone();
    if width != photo.width {
        let mut wide = vec![0; photo.height * width * 3];
        let columns = taps(photo.width, width, filter);
        for (from, to) in rgb.chunks_exact(photo.width * 3).zip(wide.chunks_exact_mut(width * 3)) {
            for (pixel, taps) in to.chunks_exact_mut(3).zip(&columns) {
                for (c, v) in pixel.iter_mut().enumerate() {
                    *v = weighted(taps, from[taps.first * 3 + c..].iter().step_by(3));
                }
            }
        }
        rgb = wide;
    }
    if height != photo.height {
        let mut tall = vec![0; height * width * 3];
        let stride = width * 3;
        for (row, taps) in tall.chunks_exact_mut(stride).zip(taps(photo.height, height, filter)) {
            for (x, v) in row.iter_mut().enumerate() {
                *v = weighted(&taps, rgb[taps.first * stride + x..].iter().step_by(stride));
            }
        }
        rgb = tall;
    }
    Photo { width, height, rgb }
}

fn weighted<'a>(taps: &Taps, values: impl Iterator<Item = &'a u8>) -> u8 {
    let half = 1 << (PRECISION - 1);
    let sum = taps.weights.iter().zip(values).fold(half, |sum, (w, &v)| sum + w * i32::from(v));
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// Image `n` of the goldens' formula with seed 11 (README of the goldens, "Image formula").
    fn formula(n: u64, height: u64, width: u64) -> Photo {
        let splitmix = |i: u64| {
            let z = 11_u64.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ z >> 31
        };
        let value = |y, x, c| {
            let noise = splitmix(((n * 3 + c) * height + y) * width + x) >> 58;
            (x * (n + 2) * 256 / width + y * (c + 1) * 256 / height + 40 * c + noise) as u8
        };
        let pixel = |i: u64| (0..3).map(move |c| value(i / width, i % width, c));
        let rgb = (0..height * width).flat_map(pixel).collect();
        Photo { width: width as usize, height: height as usize, rgb }
    }

    /// Digests of `cropI_HxW.out_hwc` of the golden file `image_ops` (the reference's `center_crop_arr` to 64).
    #[test]
    fn equal_to_the_reference_bit_for_bit_goldens() {
        let cases = [
            (0, 200, 150, "f898fa13d3bc0122"),
            (1, 90, 300, "491842aa45faff5a"),
            (2, 64, 100, "0207fa8c970b0f6a"),
            (3, 517, 389, "a6d76179a5c4e9d7"),
            (4, 63, 80, "2891d18fb6f1d174"),
            (5, 129, 128, "59efaa7fd16b6bae"),
        ];
        for (n, height, width, digest) in cases {
            let mut planar = vec![0; 3 * 64 * 64];
            centre_crop(formula(n, height, width), 64, &mut planar);
            let mut hash = Sha256::new();
            for i in 0..64 * 64 {
                hash.update([planar[i], planar[64 * 64 + i], planar[2 * 64 * 64 + i]]);
            }
            let found: String = hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(found, digest, "crop{n}_{height}x{width}");
        }
    }

    #[test]
    fn a_crop_of_the_right_size_is_the_photo_itself() {
        let photo = formula(0, 9, 9);
        let mut out = vec![0; 3 * 81];
        centre_crop(photo.clone(), 9, &mut out);
        assert!((0..81).all(|i| out[81 + i] == photo.rgb[i * 3 + 1]));
    }

    #[test]
    fn one_pixel_fills_the_square() {
        let mut out = vec![0; 3 * 25];
        centre_crop(Photo { width: 1, height: 1, rgb: vec![10, 200, 30] }, 5, &mut out);
        assert!(out[..25].iter().all(|&v| v == 10) && out[25..50].iter().all(|&v| v == 200));
    }
}
