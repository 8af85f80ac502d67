//! Images for people: many in one picture.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::{Error, Images, Result};

/// Value of the gutters and of empty places: white.
const GUTTER: u8 = 255;

/// Writes all `images` (grey or colour) as one RGB picture: `columns` beside each other, each pixel `scale` x `scale`,
/// one pixel of white between neighbours and none around. The file appears whole or not at all.
///
/// # Errors
/// No image, no column, a scale of 0, a number of channels that is neither 1 nor 3; a file that cannot be written.
pub fn grid_png(images: &Images, columns: usize, scale: usize, path: &Path) -> Result<()> {
    if images.is_empty() || columns == 0 || scale == 0 || !matches!(images.channels, 1 | 3) {
        let (n, channels) = (images.len(), images.channels);
        let reason = format!("no grid has {n} images of {channels} channels in {columns} columns at scale {scale}");
        return Err(Error::request(path, reason));
    }
    let (width, height, rgb) = grid(images, columns, scale);
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&rgb, width as u32, height as u32, ExtendedColorType::Rgb8)
        .map_err(|e| Error::io(path, io::Error::other(e)))?;
    write_whole(path, &png).map_err(|e| Error::io(path, e))
}

/// Width, height and interleaved RGB of the picture.
fn grid(images: &Images, columns: usize, scale: usize) -> (usize, usize, Vec<u8>) {
    let columns = columns.min(images.len());
    let rows = images.len().div_ceil(columns);
    let cell = images.side * scale;
    let (width, height) = (columns * (cell + 1) - 1, rows * (cell + 1) - 1);
    let mut rgb = vec![GUTTER; width * height * 3];
    let plane = images.side * images.side;
    for i in 0..images.len() {
        let image = images.image(i);
        let (left, top) = (i % columns * (cell + 1), i / columns * (cell + 1));
        for y in 0..cell {
            let row = &mut rgb[((top + y) * width + left) * 3..][..cell * 3];
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let at = y / scale * images.side + x / scale;
                // A grey image shows its only channel three times.
                pixel.iter_mut().enumerate().for_each(|(c, v)| *v = image[c % images.channels * plane + at]);
            }
        }
    }
    (width, height, rgb)
}

/// Writes beside `path`, syncs, renames.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_where_they_belong() {
        // Three 2x2 colour images: image i has red = 10 i + position, green = 100, blue = 200.
        let pixels = (0..3).flat_map(|i| (0..12).map(move |p| [10 * i + p, 100, 200][p as usize / 4])).collect();
        let images = Images::new(3, 2, pixels);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grid.png");
        grid_png(&images, 2, 3, &path).unwrap();
        let grid = image::open(&path).unwrap().into_rgb8();
        assert_eq!(grid.dimensions(), (13, 13));
        for (x, y, expected) in [
            (0, 0, [0, 100, 200]),
            (5, 2, [1, 100, 200]),
            (6, 0, [255; 3]),
            (7, 3, [12, 100, 200]),
            (0, 6, [255; 3]),
            (2, 7, [20, 100, 200]),
            (12, 12, [255; 3]),
        ] {
            assert_eq!(grid.get_pixel(x, y).0, expected, "({x}, {y})");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn a_grey_image_is_grey_and_few_images_make_a_narrow_grid() {
        let images = Images::new(1, 1, vec![7, 9]);
        assert_eq!(grid(&images, 8, 1), (3, 1, vec![7, 7, 7, 255, 255, 255, 9, 9, 9]));
    }

    #[test]
    fn impossible_grids_and_places_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::new(1, 1, vec![7]);
        let path = folder.path().join("grid.png");
        assert!(grid_png(&images, 0, 1, &path).is_err());
        assert!(grid_png(&images, 1, 0, &path).is_err());
        assert!(grid_png(&images.take(0), 1, 1, &path).is_err());
        let four = Images { channels: 4, pixels: vec![7; 4], ..images.clone() };
        assert!(grid_png(&four, 1, 1, &path).is_err());
        let nowhere = folder.path().join("missing").join("grid.png");
        let message = grid_png(&images, 1, 1, &nowhere).unwrap_err().to_string();
        assert!(message.contains("grid.png"), "{message}");
    }
}
