//! Samples of several methods from the same initial noise: one row per method, one column per noise.

use plotters::style::text_anchor::{HPos, VPos};

use super::{Bitmap, Failure, INK, LABEL, enlarge, headline, svg, write};

/// A grid of images.
pub struct Grid<'a> {
    /// What is said under the title.
    pub subtitle: &'a str,
    /// Side of an image, in pixels.
    pub side: usize,
    /// Images in a row.
    pub columns: usize,
    /// Name and pixels of every row.
    pub rows: &'a [(String, Vec<Image>)],
}

/// RGB pixels of one square image, row by row.
pub type Image = Vec<u8>;

/// From planes (`[C, side, side]`, one or three channels) to RGB pixels.
pub fn image(planes: &[u8], channels: usize, side: usize) -> Image {
    let plane = side * side;
    (0..plane).flat_map(|i| [0, 1, 2].map(|c| planes[c.min(channels - 1) * plane + i])).collect()
}

/// `image - other` around grey, amplified by a whole factor that makes all but the largest differences fit: the factor
/// and the images.
pub fn differences(images: &[Image], others: &[Image]) -> (u32, Vec<Image>) {
    let pairs = || images.iter().flatten().zip(others.iter().flatten());
    let mut sizes: Vec<u8> = pairs().map(|(a, b)| a.abs_diff(*b)).collect();
    sizes.sort_unstable();
    let large = sizes.get(sizes.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
    let factor = (127 / u32::from(large.max(1))).clamp(1, MOST_AMPLIFIED);
    let shade = |(&a, &b): (&u8, &u8)| (128 + (i32::from(a) - i32::from(b)) * factor as i32).clamp(0, 255) as u8;
    let subtract = |(image, other): (&Image, &Image)| image.iter().zip(other).map(shade).collect();
    (factor, images.iter().zip(others).map(subtract).collect())
}

/// Differences of one step in 256 stay faint.
const MOST_AMPLIFIED: u32 = 32;
const GAP: usize = 1;
const LEFT: i32 = 180;
const TOP: i32 = 62;
/// How wide an image is drawn.
const SHOWN: usize = 64;

/// The bare grid at the images' own resolution: width, height, RGB.
pub fn pixels(grid: &Grid) -> (u32, u32, Vec<u8>) {
    let cell = grid.side + GAP;
    let (width, height) = (grid.columns * cell - GAP, grid.rows.len() * cell - GAP);
    let mut rgb = vec![255u8; width * height * 3];
    for (row, (_, images)) in grid.rows.iter().enumerate() {
        for (column, image) in images.iter().take(grid.columns).enumerate() {
            for y in 0..grid.side {
                let to = ((row * cell + y) * width + column * cell) * 3;
                rgb[to..to + grid.side * 3].copy_from_slice(&image[y * grid.side * 3..(y + 1) * grid.side * 3]);
            }
        }
    }
    (width as u32, height as u32, rgb)
}

/// The bare grid enlarged by a whole factor without smoothing: width, height, RGB.
pub fn enlarged(grid: &Grid) -> (u32, u32, Vec<u8>) {
    let (width, height, rgb) = pixels(grid);
    let factor = factor(grid);
    enlarge((width, height), &rgb, (factor, factor))
}

/// Pixels of the figure per pixel of an image.
fn factor(grid: &Grid) -> u32 {
    SHOWN.div_ceil(grid.side).max(1) as u32
}

/// The grid with its labels.
pub fn draw(grid: &Grid) -> Result<String, Failure> {
    let factor = factor(grid);
    let (width, height, rgb) = pixels(grid);
    let size = (width * factor + LEFT as u32 + 16, height * factor + TOP as u32 + 14);
    let names: Vec<&str> = grid.rows.iter().map(|(name, _)| name.as_str()).collect();
    let description = format!("Samples from the same initial noise: {}", names.join(", "));
    svg(size, &description, |root| {
        headline(root, "Samples (a column = the same initial noise)", grid.subtitle)?;
        for (row, name) in names.iter().enumerate() {
            let y = TOP + ((row * (grid.side + GAP)) as u32 * factor + grid.side as u32 * factor / 2) as i32;
            write(root, name, (LEFT - 10, y), LABEL, INK, (HPos::Right, VPos::Center))?;
        }
        Ok(vec![Bitmap { place: (LEFT, TOP), factor: (factor, factor), size: (width, height), rgb }])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_amplified_around_grey() {
        let (factor, images) = differences(&[vec![10, 20, 30, 40]], &[vec![10, 10, 50, 40]]);
        assert_eq!((factor, images), (12, vec![vec![128, 248, 0, 128]]));
        assert_eq!(differences(&[vec![0, 255]], &[vec![255, 0]]), (1, vec![vec![0, 255]]));
        assert_eq!(differences(&[vec![7; 3]], &[vec![7; 3]]), (32, vec![vec![128; 3]]));
    }

    #[test]
    fn planes_become_pixels_and_keep_their_place_in_the_grid() {
        assert_eq!(
            image(&[1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24], 3, 2),
            [1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24]
        );
        assert_eq!(image(&[7, 8, 9, 10], 1, 2)[..6], [7, 7, 7, 8, 8, 8]);
        let rows =
            [("a".to_string(), vec![vec![1; 12], vec![2; 12]]), ("b".to_string(), vec![vec![3; 12], vec![4; 12]])];
        let grid = Grid { subtitle: "", side: 2, columns: 2, rows: &rows };
        let (width, height, rgb) = pixels(&grid);
        assert_eq!((width, height), (5, 5));
        let at = |x: usize, y: usize| rgb[(y * 5 + x) * 3];
        assert_eq!([at(0, 0), at(1, 1), at(3, 0), at(4, 4), at(0, 3), at(2, 0)], [1, 1, 2, 4, 3, 255]);
        let (wide, tall, big) = enlarged(&grid);
        assert_eq!((wide, tall), (5 * 32, 5 * 32));
        assert_eq!(big[(31 * 160 + 63) * 3], 1);
        assert_eq!(big[(31 * 160 + 64) * 3], 255);
    }
}
