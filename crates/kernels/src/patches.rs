//! Images to patches and back: the rearrangements around the first and the last linear layer.

use crate::shape::Shape;

/// Visits every value of an image of `channels`: `visit(token, row in patch, column in patch, channel, position in the image)`.
fn walk(shape: &Shape, channels: usize, mut visit: impl FnMut(usize, usize, usize, usize, usize)) {
    let (grid, patch, size) = (shape.grid(), shape.patch, shape.image_size);
    for channel in 0..channels {
        for y in 0..size {
            for x in 0..size {
                let token = y / patch * grid + x / patch;
                visit(token, y % patch, x % patch, channel, (channel * size + y) * size + x);
            }
        }
    }
}

/// `[C, size, size]` to `[T, C P P]`, the order of the patch embedding's convolution weights.
pub(crate) fn gather(shape: &Shape, image: &[f32], patches: &mut [f32]) {
    let (p, width) = (shape.patch, shape.patch_in());
    walk(shape, shape.channels, |token, y, x, channel, at| {
        patches[token * width + (channel * p + y) * p + x] = image[at];
    });
}

/// The reverse of [`gather`].
pub(crate) fn scatter(shape: &Shape, patches: &[f32], image: &mut [f32]) {
    let (p, width) = (shape.patch, shape.patch_in());
    walk(shape, shape.channels, |token, y, x, channel, at| {
        image[at] = patches[token * width + (channel * p + y) * p + x];
    });
}

/// `[T, P P O]`, the order of the final layer, to `[O, size, size]`.
pub(crate) fn unpatchify(shape: &Shape, patches: &[f32], image: &mut [f32]) {
    let (p, o, width) = (shape.patch, shape.out_channels, shape.patch_out());
    walk(shape, o, |token, y, x, channel, at| {
        image[at] = patches[token * width + (y * p + x) * o + channel];
    });
}

/// The reverse of [`unpatchify`].
pub(crate) fn patchify(shape: &Shape, image: &[f32], patches: &mut [f32]) {
    let (p, o, width) = (shape.patch, shape.out_channels, shape.patch_out());
    walk(shape, o, |token, y, x, channel, at| {
        patches[token * width + (y * p + x) * o + channel] = image[at];
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rearrangements_are_undone() {
        let (image_size, channels, patch, hidden) = (6, 3, 2, 8);
        let s = Shape { image_size, channels, patch, hidden, depth: 1, heads: 1, label_rows: 1, out_channels: 6 };
        let image: Vec<f32> = (0..s.image()).map(|i| i as f32).collect();
        let (mut patches, mut back) = (vec![0.0; s.image()], vec![0.0; s.image()]);
        gather(&s, &image, &mut patches);
        // the second patch's first row in channel 0, then its second row
        assert_eq!(patches[12..16], [2.0, 3.0, 8.0, 9.0]);
        scatter(&s, &patches, &mut back);
        assert_eq!(back, image);

        let output: Vec<f32> = (0..s.output()).map(|i| i as f32).collect();
        let (mut patches, mut back) = (vec![0.0; s.output()], vec![0.0; s.output()]);
        patchify(&s, &output, &mut patches);
        // the first pixel of the first patch holds all channels together
        assert_eq!(patches[..6], [0.0, 36.0, 72.0, 108.0, 144.0, 180.0]);
        unpatchify(&s, &patches, &mut back);
        assert_eq!(back, output);
    }
}
