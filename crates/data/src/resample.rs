//! Resizing as Pillow does it (`ImagingResample`): antialiased, along the rows and along the columns by themselves.

/// An image in memory, interleaved.
#[derive(Clone, Debug, PartialEq)]
pub struct Raster<T> {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Numbers in a pixel.
    pub channels: usize,
    /// `[height, width, channels]`.
    pub values: Vec<T>,
}

/// A filter of Pillow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The mean of what a pixel covers.
    Box,
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = -1/2.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        match self {
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            },
        }
    }
}

/// A number that is resampled: bytes in fixed point, rounded between the passes, as Pillow's 8-bit modes; floats as its
/// mode `F`, which clean-fid uses.
pub trait Sample: Copy + Default {
    /// A weight as it enters the sum.
    type Weight;

    /// Converts a weight.
    fn weight(weight: f64) -> Self::Weight;

    /// The weighted sum.
    fn weighted<'a>(weights: &[Self::Weight], values: impl Iterator<Item = &'a Self>) -> Self
    where
        Self: 'a;
}

/// Fraction bits of a byte's weight: 8 for the value and 2 for overshoot are taken from 32.
const PRECISION: u32 = 32 - 8 - 2;

impl Sample for u8 {
    type Weight = i32;

    fn weight(weight: f64) -> i32 {
        (weight * f64::from(1 << PRECISION)).round() as i32
    }

    fn weighted<'a>(weights: &[i32], values: impl Iterator<Item = &'a Self>) -> Self {
        let half = 1 << (PRECISION - 1);
        let sum = weights.iter().zip(values).fold(half, |sum, (w, &v)| sum + w * i32::from(v));
        (sum >> PRECISION).clamp(0, 255) as u8
    }
}

impl Sample for f32 {
    type Weight = f64;

    fn weight(weight: f64) -> f64 {
        weight
    }

    fn weighted<'a>(weights: &[f64], values: impl Iterator<Item = &'a Self>) -> Self {
        weights.iter().zip(values).map(|(w, &v)| w * f64::from(v)).sum::<f64>() as f32
    }
}

/// The weights of one output position: the first input position and the weights from there on.
struct Taps<T: Sample> {
    first: usize,
    weights: Vec<T::Weight>,
}

/// Weights from `from` to `to` positions; the filter is widened when shrinking.
fn taps<T: Sample>(from: usize, to: usize, filter: Filter) -> Vec<Taps<T>> {
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
        Taps { first, weights: raw.iter().map(|w| T::weight(w / total)).collect() }
    };
    (0..to).map(at).collect()
}

/// Resizes to `width` x `height`; a pass that would keep its size is skipped. Panics if a size is 0.
///
/// The order of the passes shows in the last bit. Along the rows first, but for images that become lower and wider: there
/// Pillow 13 begins with the columns. (It also does for some that become lower only, and are more than twice as high as
/// wide; the versions before never do. That is not followed.)
pub fn resize<T: Sample>(image: &Raster<T>, width: usize, height: usize, filter: Filter) -> Raster<T> {
    assert!(image.width * image.height * width * height > 0, "an image without pixels");
    match height < image.height && width > image.width {
        true => along_rows(&along_columns(image, height, filter), width, filter),
        false => along_columns(&along_rows(image, width, filter), height, filter),
    }
}

fn along_rows<T: Sample>(image: &Raster<T>, width: usize, filter: Filter) -> Raster<T> {
    if width == image.width {
        return image.clone();
    }
    let channels = image.channels;
    let mut values = vec![T::default(); image.height * width * channels];
    let columns = taps::<T>(image.width, width, filter);
    let rows = image.values.chunks_exact(image.width * channels).zip(values.chunks_exact_mut(width * channels));
    for (from, to) in rows {
        for (pixel, taps) in to.chunks_exact_mut(channels).zip(&columns) {
            for (c, v) in pixel.iter_mut().enumerate() {
                *v = T::weighted(&taps.weights, from[taps.first * channels + c..].iter().step_by(channels));
            }
        }
    }
    Raster { width, values, ..*image }
}

fn along_columns<T: Sample>(image: &Raster<T>, height: usize, filter: Filter) -> Raster<T> {
    if height == image.height {
        return image.clone();
    }
    let stride = image.width * image.channels;
    let mut values = vec![T::default(); height * stride];
    for (row, taps) in values.chunks_exact_mut(stride).zip(taps::<T>(image.height, height, filter)) {
        for (x, v) in row.iter_mut().enumerate() {
            *v = T::weighted(&taps.weights, image.values[taps.first * stride + x..].iter().step_by(stride));
        }
    }
    Raster { height, values, ..*image }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goldens::Golden;

    /// Pillow's own results: bytes to the bit, floats within 1e-3 of 255.
    #[test]
    fn equal_to_pillow_goldens() {
        let golden = Golden::open("image_ops");
        let names = golden.names();
        let mut compared = (0, 0);
        for name in names.iter().filter_map(|name| name.strip_suffix(".in_hwc")).filter(|n| n.starts_with("resize")) {
            let input = golden.get(&format!("{name}.in_hwc"));
            let [height, width, channels] = input.shape[..] else { panic!("{name}: {:?}", input.shape) };
            let bytes: Vec<u8> = input.values.iter().map(|&v| v as u8).collect();
            let floats = Raster { width, height, channels, values: input.f32() };
            let bytes = Raster { width, height, channels, values: bytes };
            let (_, to) = name.split_once("_to_").unwrap();
            let (h, w) = to.split_once('x').unwrap();
            let (h, w): (usize, usize) = (h.parse().unwrap(), w.parse().unwrap());
            for (filter, word) in [(Filter::Bicubic, "bicubic"), (Filter::Bilinear, "bilinear"), (Filter::Box, "box")] {
                if let Some(expected) = golden.find(&format!("{name}.{word}_u8")) {
                    let found = resize(&bytes, w, h, filter);
                    assert!(
                        found.values.iter().zip(&expected.values).all(|(&a, &b)| f64::from(a) == b),
                        "{name}.{word}"
                    );
                    assert_eq!(found.values.len(), expected.values.len());
                    compared.0 += 1;
                }
                if let Some(expected) = golden.find(&format!("{name}.{word}_f32")) {
                    let found = resize(&floats, w, h, filter);
                    // Of the largest the file keeps the first rows.
                    for (a, b) in found.values.iter().zip(&expected.values) {
                        assert!((f64::from(*a) - b).abs() <= 1e-3, "{name}.{word}: {a} for {b}");
                    }
                    compared.1 += 1;
                }
            }
        }
        assert_eq!(compared, (10, 7));
    }

    #[test]
    fn a_size_that_stays_keeps_the_bytes() {
        let image = Raster { width: 3, height: 2, channels: 1, values: vec![1_u8, 2, 3, 4, 5, 6] };
        assert_eq!(resize(&image, 3, 2, Filter::Bicubic), image);
    }
}
