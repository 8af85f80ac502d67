//! A folder of photographs, read in the order of their paths.

use std::path::{Path, PathBuf};

use image::{ImageReader, Limits};
use manifest::content;
use rayon::prelude::*;

use crate::crop::{Photo, centre_crop};
use crate::{Error, Images, Result};

/// Extensions taken for images, in any case.
const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// Largest width or height that is decoded, in pixels.
const MAX_SIDE: u32 = 1 << 14;

/// Largest allocation of a decoder, in bytes.
const MAX_BYTES: u64 = 1 << 29;

/// Largest ratio of the sides: a narrower strip would have to be enlarged beyond measure.
const MAX_RATIO: usize = 64;

/// A folder in memory.
#[derive(Clone, Debug)]
pub struct Folder {
    /// The images, RGB, in the order of `names`.
    pub images: Images,
    /// Path of each image, relative to the folder.
    pub names: Vec<PathBuf>,
    /// Number of files passed over: those whose extension is not an image's. Hidden files are not counted.
    pub ignored: usize,
}

/// Reads all images below `folder`, sorted by path, resized and centre-cropped to `side`; hidden files and folders
/// (`.DS_Store`) are skipped. Grey images become RGB, transparency is dropped.
///
/// # Errors
/// A folder that is missing, unreadable or without images; the first image (in order) that cannot be decoded, is
/// larger than 16,384 pixels a side, or is narrower than 1:64.
pub fn load(folder: &Path, side: usize) -> Result<Folder> {
    let (names, ignored) = list(folder)?;
    if names.is_empty() {
        return Err(Error::NoImages { path: folder.to_owned(), ignored });
    }
    let size = 3 * side * side;
    let mut pixels = vec![0; names.len() * size];
    let failed = names
        .par_iter()
        .zip(pixels.par_chunks_exact_mut(size))
        .find_map_first(|(name, out)| decode(&folder.join(name)).map(|photo| centre_crop(photo, side, out)).err());
    match failed {
        Some(error) => Err(error),
        None => {
            Ok(Folder { images: Images { channels: 3, side, pixels, labels: None, factors: None }, names, ignored })
        }
    }
}

/// Relative paths of the images below `folder`, sorted, and the number of other files.
fn list(folder: &Path) -> Result<(Vec<PathBuf>, usize)> {
    if !folder.metadata().map_err(|e| Error::io(folder, e))?.is_dir() {
        return Err(Error::NotAFolder { path: folder.to_owned() });
    }
    let files = content::files(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let is_image = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
        extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
    };
    let (names, others): (Vec<_>, Vec<_>) = files.into_iter().partition(is_image);
    Ok((names, others.len()))
}

/// Decodes one file, whatever its extension says it is, within the limits.
fn decode(path: &Path) -> Result<Photo> {
    let mut reader =
        ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| Error::io(path, e))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let rgb = reader.decode().map_err(|source| Error::Decode { path: path.to_owned(), source })?.into_rgb8();
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    if width.max(height) > MAX_RATIO * width.min(height) {
        let reason = format!("is {width} x {height} pixels: too narrow to crop a square from");
        return Err(Error::format(path, reason));
    }
    Ok(Photo { width, height, rgb: rgb.into_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, Luma, Rgb, RgbImage, Rgba};
    use std::fs;

    /// A square of one colour, 8 pixels a side.
    fn square(value: u8) -> DynamicImage {
        RgbImage::from_pixel(8, 8, Rgb([value, 2 * value, 3 * value])).into()
    }

    /// Values of the middle pixel of image `i`.
    fn middle(images: &Images, i: usize) -> [u8; 3] {
        let plane = images.side * images.side;
        std::array::from_fn(|c| images.image(i)[c * plane + plane / 2])
    }

    fn message(folder: &Path) -> String {
        load(folder, 4).unwrap_err().to_string()
    }

    #[test]
    fn images_come_in_the_order_of_their_paths_whatever_the_format_and_the_threads() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/.cache")).unwrap();
        let names = ["a.PNG", "b/1.bmp", "b/2.webp", "b/3.png", "c.jpeg", "d.jpg"];
        for (i, name) in names.iter().enumerate() {
            square(10 * (i as u8 + 1)).save(folder.path().join(name)).unwrap();
        }
        for stray in [".DS_Store", "readme.txt", "noextension", "b/.cache/9.png", "b/weights.safetensors"] {
            fs::write(folder.path().join(stray), "stray").unwrap();
        }
        let with_threads = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| load(folder.path(), 4).unwrap())
        };
        let found = with_threads(4);
        assert_eq!(found.images, with_threads(1).images);
        assert!(found.names.iter().map(|n| n.to_str().unwrap()).eq(names));
        assert_eq!(found.ignored, 3);
        assert_eq!((found.images.len(), found.images.channels, found.images.side), (6, 3, 4));
        for (i, name) in names.iter().enumerate() {
            let v = 10 * (i as u8 + 1);
            let close = middle(&found.images, i).iter().zip([v, 2 * v, 3 * v]).all(|(a, b)| a.abs_diff(b) <= 3);
            assert!(close, "{name}: {:?}", middle(&found.images, i));
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_read_through_a_link_is_in_the_hash() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        square(10).save(folder.path().join("a.png")).unwrap();
        square(20).save(elsewhere.path().join("1.png")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("b")).unwrap();
        let hash = || content::digest(folder.path(), &manifest::digest::Digest::of_file).unwrap();
        let (images, before) = (load(folder.path(), 4).unwrap().images, hash());
        assert_eq!(images.len(), 2);
        square(30).save(elsewhere.path().join("1.png")).unwrap();
        assert_ne!(load(folder.path(), 4).unwrap().images, images);
        assert_ne!(hash(), before);
    }

    #[test]
    fn grey_deep_and_transparent_images_become_rgb() {
        let folder = tempfile::tempdir().unwrap();
        let save = |name, image: DynamicImage| image.save(folder.path().join(name)).unwrap();
        save("a.png", image::GrayImage::from_pixel(5, 9, Luma([77])).into());
        save("b.png", image::RgbaImage::from_pixel(5, 5, Rgba([9, 8, 7, 100])).into());
        save("c.png", DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(1, 1, Rgb([65535, 257 * 5, 0]))));
        let images = load(folder.path(), 4).unwrap().images;
        assert_eq!([middle(&images, 0), middle(&images, 1), middle(&images, 2)], [[77; 3], [9, 8, 7], [255, 5, 0]]);
    }

    #[test]
    fn the_extension_does_not_decide_the_format() {
        let folder = tempfile::tempdir().unwrap();
        square(40).save_with_format(folder.path().join("a.jpg"), image::ImageFormat::Png).unwrap();
        assert_eq!(middle(&load(folder.path(), 4).unwrap().images, 0), [40, 80, 120]);
    }

    #[test]
    fn missing_empty_and_wrong_folders_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = message(&folder.path().join("missing"));
        assert!(
            missing.contains("missing") && missing.contains("not found") && missing.contains("DMP_DATA"),
            "{missing}"
        );
        let file = folder.path().join("notes.txt");
        fs::write(&file, "no folder").unwrap();
        assert!(message(&file).contains("not a folder"));
        let empty = message(folder.path());
        assert!(empty.contains("no image") && empty.contains("1 other"), "{empty}");
    }

    #[test]
    fn the_first_broken_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        square(1).save(folder.path().join("a.png")).unwrap();
        let whole = fs::read(folder.path().join("a.png")).unwrap();
        fs::write(folder.path().join("b.png"), &whole[..whole.len() / 2]).unwrap();
        fs::write(folder.path().join("c.png"), "no image at all").unwrap();
        fs::write(folder.path().join("d.png"), "").unwrap();
        for name in ["b.png", "c.png", "d.png"] {
            let message = message(folder.path());
            assert!(message.contains(name) && message.contains("cannot decode"), "{message}");
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        assert_eq!(load(folder.path(), 4).unwrap().images.len(), 1);
    }

    #[test]
    fn a_header_that_promises_a_huge_image_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge.bmp");
        square(1).save(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[18..22].copy_from_slice(&20_000_u32.to_le_bytes());
        bytes[22..26].copy_from_slice(&20_000_u32.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let message = message(folder.path());
        assert!(message.contains("huge.bmp") && message.to_lowercase().contains("limit"), "{message}");
    }

    #[test]
    fn a_strip_has_no_square_in_it() {
        let folder = tempfile::tempdir().unwrap();
        RgbImage::new(200, 2).save(folder.path().join("strip.png")).unwrap();
        let message = message(folder.path());
        assert!(message.contains("strip.png") && message.contains("200 x 2"), "{message}");
    }
}
