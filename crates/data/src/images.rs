//! A dataset in memory.

use std::ops::Range;

/// Square images in memory, as bytes, with what is known about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Channels: 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Side in pixels.
    pub side: usize,
    /// Pixels `[n, channels, side, side]`, planar.
    pub pixels: Vec<u8>,
    /// Class of each image, `[n]`.
    pub labels: Option<Vec<u32>>,
    /// Factors of each image, `[n, F]` with `F` the same for all, each within [-1, 1].
    pub factors: Option<Vec<f32>>,
    /// Caption of each image, `[n]`.
    pub captions: Option<Vec<String>>,
}

impl Images {
    /// Images of which nothing more is known; `pixels` is `[n, channels, side, side]`.
    pub fn new(channels: usize, side: usize, pixels: Vec<u8>) -> Self {
        Self { channels, side, pixels, labels: None, factors: None, captions: None }
    }

    /// Quantises images from [-1, 1]: `round((x + 1) * 127.5)`, clamped to 0..=255 (NaN becomes 0).
    pub fn from_normalised(channels: usize, side: usize, values: &[f32]) -> Self {
        let pixels = values.iter().map(|&x| ((x + 1.0) * 127.5).round() as u8).collect();
        Self::new(channels, side, pixels)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.elements().max(1)
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Numbers in one image: `channels * side * side`.
    pub fn elements(&self) -> usize {
        self.channels * self.side * self.side
    }

    /// Image `i` as bytes, `[channels, side, side]`.
    pub fn image(&self, i: usize) -> &[u8] {
        let n = self.elements();
        &self.pixels[i * n..(i + 1) * n]
    }

    /// Factors of image `i`, `[F]`; empty where none are known.
    pub fn factors(&self, i: usize) -> &[f32] {
        self.factors.as_deref().map_or(&[], |all| {
            let f = all.len() / self.len();
            &all[i * f..(i + 1) * f]
        })
    }

    /// Image `i` as `x / 127.5 - 1` in [-1, 1], mirrored left to right if `flip`; `out` is `[channels, side, side]`.
    pub fn normalised(&self, i: usize, flip: bool, out: &mut [f32]) {
        let rows = self.image(i).chunks_exact(self.side);
        for (row, out) in rows.zip(out.chunks_exact_mut(self.side)) {
            for (x, v) in out.iter_mut().enumerate() {
                let x = if flip { self.side - 1 - x } else { x };
                *v = f32::from(row[x]) / 127.5 - 1.0;
            }
        }
    }

    /// Images `range`, copied. Panics if it reaches past the end.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let n = self.elements();
        let f = self.factors.as_ref().map_or(0, |all| all.len() / self.len().max(1));
        Self {
            channels: self.channels,
            side: self.side,
            pixels: self.pixels[range.start * n..range.end * n].to_vec(),
            labels: self.labels.as_ref().map(|all| all[range.clone()].to_vec()),
            factors: self.factors.as_ref().map(|all| all[range.start * f..range.end * f].to_vec()),
            captions: self.captions.as_ref().map(|all| all[range].to_vec()),
        }
    }

    /// The first `n` images (all of them if there are fewer), copied.
    pub fn take(&self, n: usize) -> Self {
        self.slice(0..n.min(self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Images {
        let pixels = (0..3 * 2 * 3 * 3).map(|v| (v * 4) as u8).collect();
        let factors = vec![0.0, 0.5, 1.0, -0.5, -1.0, 0.25];
        let captions = ["a", "b", "c"].map(str::to_owned).to_vec();
        Images {
            channels: 2,
            side: 3,
            pixels,
            labels: Some(vec![5, 6, 7]),
            factors: Some(factors),
            captions: Some(captions),
        }
    }

    #[test]
    fn every_byte_survives_normalisation_and_quantisation() {
        let pixels: Vec<u8> = (0..=255).collect();
        let images = Images::new(1, 16, pixels);
        let mut values = vec![0.0; 256];
        images.normalised(0, false, &mut values);
        assert_eq!((values[0], values[255]), (-1.0, 1.0));
        assert_eq!(Images::from_normalised(1, 16, &values), images);
    }

    #[test]
    fn quantisation_clamps_and_rounds() {
        let values =
            [-7.0, f32::NEG_INFINITY, 1.01, f32::INFINITY, f32::NAN, 0.0, 1.4 / 127.5 - 1.0, 1.6 / 127.5 - 1.0, 1.0];
        let images = Images::from_normalised(1, 3, &values);
        assert_eq!(images.pixels, [0, 0, 255, 255, 0, 128, 1, 2, 255]);
    }

    #[test]
    fn a_flip_mirrors_each_row_of_each_channel() {
        let images = sample();
        let (mut plain, mut flipped) = (vec![0.0; 18], vec![0.0; 18]);
        images.normalised(1, false, &mut plain);
        images.normalised(1, true, &mut flipped);
        assert_ne!(plain, flipped);
        for (row, mirrored) in plain.chunks(3).zip(flipped.chunks(3)) {
            assert!(row.iter().eq(mirrored.iter().rev()));
        }
    }

    #[test]
    fn a_slice_keeps_pixels_labels_and_factors_together() {
        let images = sample();
        let tail = images.slice(1..3);
        assert_eq!(tail.len(), 2);
        assert_eq!(tail.image(0), images.image(1));
        assert_eq!(tail.labels.as_deref(), Some(&[6, 7][..]));
        assert_eq!(tail.factors(1), images.factors(2));
        assert_eq!(tail.captions.as_deref(), Some(&["b".to_owned(), "c".to_owned()][..]));
        assert_eq!(images.take(9), images);
        assert!(images.take(0).is_empty());
    }
}
