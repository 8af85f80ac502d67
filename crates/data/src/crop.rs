//! Any photograph to a square: the centre crop of the DiT reference (`center_crop_arr`).

use crate::resample::{Filter, Raster, resize};

/// Resizes an RGB photograph so that its shorter side is `side` and cuts the centre out; `out` is planar
/// `[3, side, side]`.
///
/// Halved with a box filter while the shorter side is at least twice `side`, then bicubic; sizes round half to even.
pub(crate) fn centre_crop(mut photo: Raster<u8>, side: usize, out: &mut [u8]) {
    while photo.width.min(photo.height) >= 2 * side {
        photo = resize(&photo, photo.width / 2, photo.height / 2, Filter::Box);
    }
    let scale = side as f64 / photo.width.min(photo.height) as f64;
    let scaled = |size: usize| (size as f64 * scale).round_ties_even() as usize;
    photo = resize(&photo, scaled(photo.width), scaled(photo.height), Filter::Bicubic);
    let (left, top) = ((photo.width - side) / 2, (photo.height - side) / 2);
    for (c, plane) in out.chunks_exact_mut(side * side).enumerate() {
        for (y, row) in plane.chunks_exact_mut(side).enumerate() {
            let from = &photo.values[((top + y) * photo.width + left) * 3..];
            row.iter_mut().zip(from.chunks_exact(3)).for_each(|(v, pixel)| *v = pixel[c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goldens::Golden;

    /// Image `n` of the goldens' formula with seed 11 (README of the goldens, "Image formula").
    fn formula(n: u64, height: u64, width: u64) -> Raster<u8> {
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
        let values = (0..height * width).flat_map(pixel).collect();
        Raster { width: width as usize, height: height as usize, channels: 3, values }
    }

    #[test]
    fn equal_to_the_reference_bit_for_bit_goldens() {
        let golden = Golden::open("image_ops");
        for (n, height, width) in [(0, 200, 150), (1, 90, 300), (2, 64, 100), (3, 517, 389), (4, 63, 80), (5, 129, 128)]
        {
            let name = format!("crop{n}_{height}x{width}");
            let photo = formula(n, height, width);
            let sum: u64 = photo.values.iter().map(|&v| u64::from(v)).sum();
            assert_eq!(sum as f64, golden.get(&format!("{name}.in_sum")).scalar());
            let expected = golden.get(&format!("{name}.out_hwc"));
            let side = expected.shape[0];
            let mut planar = vec![0; 3 * side * side];
            centre_crop(photo, side, &mut planar);
            for (i, &v) in expected.values.iter().enumerate() {
                assert_eq!(f64::from(planar[i % 3 * side * side + i / 3]), v, "{name}");
            }
        }
    }

    #[test]
    fn a_crop_of_the_right_size_is_the_photo_itself() {
        let photo = formula(0, 9, 9);
        let mut out = vec![0; 3 * 81];
        centre_crop(photo.clone(), 9, &mut out);
        assert!((0..81).all(|i| out[81 + i] == photo.values[i * 3 + 1]));
    }

    #[test]
    fn one_pixel_fills_the_square() {
        let mut out = vec![0; 3 * 25];
        centre_crop(Raster { width: 1, height: 1, channels: 3, values: vec![10, 200, 30] }, 5, &mut out);
        assert!(out[..25].iter().all(|&v| v == 10) && out[25..50].iter().all(|&v| v == 200));
    }
}
