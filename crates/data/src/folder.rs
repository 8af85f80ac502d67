//! A folder of photographs, read in the order of their paths.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use manifest::content;

use crate::photographs::{Photographs, Place};
use crate::{Error, Result, shards};

/// Extensions taken for images, in any case.
const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// Whether a name has the extension of an image.
pub(crate) fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// All images below `folder`, or in the tar archive of one, sorted by path; hidden files and folders (`.DS_Store`) are
/// skipped.
///
/// # Errors
/// A folder that is missing, unreadable or without images; an archive that is damaged or leads out of itself.
pub fn open(folder: &Path, side: usize) -> Result<Photographs> {
    if folder.is_file() && shards::is_tar(folder) {
        return shards::open_images(folder, side);
    }
    let (names, ignored) = list(folder)?;
    Ok(Photographs::plain(side, places(folder, &names), ignored))
}

/// The same with a folder for each class (ImageNet): the label of an image is the place of its folder among all folders,
/// sorted by name.
///
/// # Errors
/// As [`open`]; an image beside the folders; a folder without images, which would shift the labels behind it if it were
/// passed over.
pub fn open_classes(folder: &Path, side: usize) -> Result<Photographs> {
    let (names, ignored) = list(folder)?;
    let classes = content::folders(folder).map_err(|e| Error::io(folder, e))?;
    let mut used = vec![false; classes.len()];
    let mut labels = Vec::with_capacity(names.len());
    for name in &names {
        let top = name.iter().next().unwrap_or_default();
        let Ok(label) = classes.binary_search_by(|class| class.as_os_str().cmp(top)) else {
            let reason = "lies beside the folders of the classes; move it into one, or read it all as `image_folder`";
            return Err(Error::request(&folder.join(name), reason));
        };
        used[label] = true;
        labels.push(label as u32);
    }
    if let Some(empty) = used.iter().position(|used| !used) {
        let reason = "is a class without an image; remove the folder, or put its images there";
        return Err(Error::request(&folder.join(&classes[empty]), reason));
    }
    let classes = classes.iter().map(|class| class.to_string_lossy().into_owned()).collect();
    Ok(Photographs { labels: Some(labels), classes, ..Photographs::plain(side, places(folder, &names), ignored) })
}

fn places(folder: &Path, names: &[PathBuf]) -> Vec<Place> {
    names.iter().map(|name| Place::File(folder.join(name))).collect()
}

/// Relative paths of the images below `folder`, sorted, and the number of other files: those that the
/// dataset's hash is over.
fn list(folder: &Path) -> Result<(Vec<PathBuf>, usize)> {
    if !folder.metadata().map_err(|e| Error::io(folder, e))?.is_dir() {
        return Err(Error::NotAFolder { path: folder.to_owned() });
    }
    let files = content::files(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let (names, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|name| is_image(name));
    if names.is_empty() {
        return Err(Error::NoImages { path: folder.to_owned(), ignored: others.len() });
    }
    Ok((names, others.len()))
}

/// Whether a file or folder is hidden.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Images;
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

    fn load(folder: &Path) -> Result<Images> {
        open(folder, 4)?.load()
    }

    fn message(folder: &Path) -> String {
        load(folder).unwrap_err().to_string()
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
            pool.install(|| load(folder.path()).unwrap())
        };
        let images = with_threads(4);
        assert_eq!(images, with_threads(1));
        let found = open(folder.path(), 4).unwrap();
        assert!((0..found.len()).map(|i| found.path(i)).eq(names.map(|name| folder.path().join(name))));
        assert_eq!(found.ignored, 3);
        assert_eq!((images.len(), images.channels, images.side), (6, 3, 4));
        for (i, name) in names.iter().enumerate() {
            let v = 10 * (i as u8 + 1);
            let close = middle(&images, i).iter().zip([v, 2 * v, 3 * v]).all(|(a, b)| a.abs_diff(b) <= 3);
            assert!(close, "{name}: {:?}", middle(&images, i));
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
        let (pixels, before) = (load(folder.path()).unwrap().pixels, hash());
        assert_eq!(pixels.len(), 2 * 3 * 16);
        square(30).save(elsewhere.path().join("1.png")).unwrap();
        assert_ne!(load(folder.path()).unwrap().pixels, pixels);
        assert_ne!(hash(), before);
    }

    #[test]
    fn grey_deep_and_transparent_images_become_rgb() {
        let folder = tempfile::tempdir().unwrap();
        let save = |name, image: DynamicImage| image.save(folder.path().join(name)).unwrap();
        save("a.png", image::GrayImage::from_pixel(5, 9, Luma([77])).into());
        save("b.png", image::RgbaImage::from_pixel(5, 5, Rgba([9, 8, 7, 100])).into());
        save("c.png", DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(1, 1, Rgb([65535, 257 * 5, 0]))));
        let images = load(folder.path()).unwrap();
        assert_eq!([middle(&images, 0), middle(&images, 1), middle(&images, 2)], [[77; 3], [9, 8, 7], [255, 5, 0]]);
    }

    #[test]
    fn the_extension_does_not_decide_the_format() {
        let folder = tempfile::tempdir().unwrap();
        square(40).save_with_format(folder.path().join("a.jpg"), image::ImageFormat::Png).unwrap();
        assert_eq!(middle(&load(folder.path()).unwrap(), 0), [40, 80, 120]);
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
        assert_eq!(load(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn classes_are_the_sorted_folders() {
        let folder = tempfile::tempdir().unwrap();
        for (class, image, value) in
            [("n02", "a.png", 1), ("n01", "z.png", 2), ("n10", "deep/b.png", 3), ("n01", "c.png", 4)]
        {
            let path = folder.path().join(class).join(image);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            square(value).save(path).unwrap();
        }
        fs::write(folder.path().join(".DS_Store"), "stray").unwrap();
        fs::write(folder.path().join("synsets.txt"), "stray").unwrap();
        fs::create_dir(folder.path().join(".cache")).unwrap();
        let found = open_classes(folder.path(), 4).unwrap();
        assert_eq!((found.classes.as_slice(), found.ignored), (&["n01", "n02", "n10"].map(str::to_owned)[..], 1));
        let images = found.load().unwrap();
        assert_eq!(images.labels.as_deref(), Some(&[0, 0, 1, 2][..]));
        assert_eq!([0, 1, 2, 3].map(|i| middle(&images, i)[0]), [4, 2, 1, 3]);

        fs::create_dir(folder.path().join("n03")).unwrap();
        let message = open_classes(folder.path(), 4).unwrap_err().to_string();
        assert!(message.contains("n03") && message.contains("without an image"), "{message}");
        fs::remove_dir(folder.path().join("n03")).unwrap();
        square(5).save(folder.path().join("loose.png")).unwrap();
        let message = open_classes(folder.path(), 4).unwrap_err().to_string();
        assert!(message.contains("loose.png") && message.contains("beside the folders"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_bad_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(folder.path().join(to), folder.path().join(name));
        square(1).save(folder.path().join("a.png")).unwrap();
        link("a.png", "b.png").unwrap();
        assert_eq!(open(folder.path(), 4).unwrap().len(), 2);
        for (to, bad) in [(".", "again"), ("missing.png", "c.png")] {
            link(to, bad).unwrap();
            let message = message(folder.path());
            assert!(message.contains(bad), "{message}");
            fs::remove_file(folder.path().join(bad)).unwrap();
        }
    }

    #[test]
    fn a_strip_has_no_square_in_it() {
        let folder = tempfile::tempdir().unwrap();
        RgbImage::new(200, 2).save(folder.path().join("strip.png")).unwrap();
        let message = message(folder.path());
        assert!(message.contains("strip.png") && message.contains("200 x 2"), "{message}");
    }
}
