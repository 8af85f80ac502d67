//! Images to patches and back: the rearrangements around the first and the last linear layer.

use std::ops::Range;

use crate::shape::Shape;

/// Visits every row of every patch: `visit(token, channel, row in the patch, its values' place in the image)`.
#[inline(always)]
fn walk(shape: &Shape, channels: usize, mut visit: impl FnMut(usize, usize, usize, Range<usize>)) {
    let (grid, patch, size) = (shape.grid(), shape.patch, shape.image_size);
    for channel in 0..channels {
        for y in 0..size {
            let (first, row) = (y / patch * grid, y % patch);
            for column in 0..grid {
                let at = (channel * size + y) * size + column * patch;
                visit(first + column, channel, row, at..at + patch);
            }
        }
    }
}

/// `[C, size, size]` to `[T, C P P]`, the order of the patch embedding's convolution weights.
pub(crate) fn gather(shape: &Shape, image: &[f32], patches: &mut [f32]) {
    let (p, width) = (shape.patch, shape.patch_in());
    walk(shape, shape.channels, |token, channel, row, at| {
        let patch = &mut patches[token * width + (channel * p + row) * p..][..p];
        patch.iter_mut().zip(&image[at]).for_each(|(patch, image)| *patch = *image);
    });
}

/// The reverse of [`gather`].
pub(crate) fn scatter(shape: &Shape, patches: &[f32], image: &mut [f32]) {
    let (p, width) = (shape.patch, shape.patch_in());
    walk(shape, shape.channels, |token, channel, row, at| {
        let patch = &patches[token * width + (channel * p + row) * p..][..p];
        image[at].iter_mut().zip(patch).for_each(|(image, patch)| *image = *patch);
    });
}

/// `[T, P P O]`, the order of the final layer, to `[O, size, size]`.
pub(crate) fn unpatchify(shape: &Shape, patches: &[f32], image: &mut [f32]) {
    let (p, o, width) = (shape.patch, shape.out_channels, shape.patch_out());
    walk(shape, o, |token, channel, row, at| {
        let patch = &patches[token * width + row * p * o..][..p * o];
        image[at].iter_mut().zip(patch.chunks_exact(o)).for_each(|(image, patch)| *image = patch[channel]);
    });
}

/// The reverse of [`unpatchify`].
pub(crate) fn patchify(shape: &Shape, image: &[f32], patches: &mut [f32]) {
    let (p, o, width) = (shape.patch, shape.out_channels, shape.patch_out());
    walk(shape, o, |token, channel, row, at| {
        let patch = &mut patches[token * width + row * p * o..][..p * o];
        patch.chunks_exact_mut(o).zip(&image[at]).for_each(|(patch, image)| patch[channel] = *image);
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
