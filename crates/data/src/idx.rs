//! IDX files (MNIST, Fashion-MNIST), plain or gzip.
//!
//! An IDX file is a big-endian header (two zero bytes, the type, the number of dimensions, each dimension as 32 bits)
//! and the values. Nothing is allocated on the header's word: values are taken as they come, and both too few and too
//! many are errors. A gzip file is read to its end, so that its checksum is verified.

use std::io::{self, Read};
use std::path::Path;

use crate::gzip::{self, broken};
use crate::{Error, Images, Result};

/// The only type in use: unsigned bytes.
const UNSIGNED_BYTE: u8 = 8;

/// Reads images `first..first + count` and their labels; each image is centred on black to `side` x `side`.
///
/// # Errors
/// A file that is missing, not an IDX file of unsigned bytes, truncated, followed by other bytes, or damaged under
/// gzip; a header whose sizes are not those of the bytes; another number of labels than of images; images larger
/// than `side`; fewer images than asked for.
pub fn load(images: &Path, labels: &Path, side: usize, first: u64, count: usize) -> Result<Images> {
    let mut file = IdxFile::<3>::open(images)?;
    let [total, height, width] = file.dims;
    if height == 0 || width == 0 {
        return Err(Error::format(images, format!("the header says that images are {width} x {height}")));
    }
    if height.max(width) > side as u64 {
        let reason = format!("its images are {width} x {height}; set image_size to at least {}", height.max(width));
        return Err(Error::request(images, reason));
    }
    if first.checked_add(count as u64).is_none_or(|end| end > total) {
        let reason = format!("holds {total} images; asked for {count} from number {first} on: lower first or count");
        return Err(Error::request(images, reason));
    }
    let mut label_file = IdxFile::<1>::open(labels)?;
    let [label_total] = label_file.dims;
    if label_total != total {
        let reason = format!("holds {label_total} labels, but {} holds {total} images", images.display());
        return Err(Error::format(labels, reason));
    }
    let size = height * width; // both at most `side`
    let raw = file.values(first * size, count as u64 * size)?;
    let classes = label_file.values(first, count as u64)?;
    let pixels = padded(&raw, height as usize, width as usize, side)?;
    Ok(Images { labels: Some(classes.into_iter().map(u32::from).collect()), ..Images::new(1, side, pixels) })
}

/// Centres each `height` x `width` image on zeros; an odd margin is larger at the right and the bottom.
fn padded(raw: &[u8], height: usize, width: usize, side: usize) -> Result<Vec<u8>> {
    let (top, left) = ((side - height) / 2, (side - width) / 2);
    let images = raw.len() / (height * width);
    let bytes = side.saturating_mul(side).saturating_mul(images);
    let mut pixels = Vec::new();
    // A large side makes much of few bytes.
    pixels.try_reserve_exact(bytes).map_err(|_| Error::Memory { images, side, bytes })?;
    pixels.resize(bytes, 0);
    for (from, to) in raw.chunks_exact(height * width).zip(pixels.chunks_exact_mut(side * side)) {
        for (row, out) in from.chunks_exact(width).zip(to.chunks_exact_mut(side).skip(top)) {
            out[left..left + width].copy_from_slice(row);
        }
    }
    Ok(pixels)
}

/// An IDX file of `N` dimensions, its header read and checked.
struct IdxFile<'a, const N: usize> {
    path: &'a Path,
    dims: [u64; N],
    /// Number of values, the product of `dims`.
    len: u64,
    values: Box<dyn Read>,
}

impl<'a, const N: usize> IdxFile<'a, N> {
    fn open(path: &'a Path) -> Result<Self> {
        let mut values = gzip::open(path)?;
        let mut magic = [0; 4];
        read_exact(path, &mut values, &mut magic)?;
        if magic != [0, 0, UNSIGNED_BYTE, N as u8] {
            let expected = [0, 0, UNSIGNED_BYTE, N as u8];
            let reason = format!("begins with {magic:02x?}; an IDX file of {N}-dimensional bytes with {expected:02x?}");
            return Err(Error::format(path, reason));
        }
        let mut dims = [0; N];
        for dim in &mut dims {
            let mut word = [0; 4];
            read_exact(path, &mut values, &mut word)?;
            *dim = u64::from(u32::from_be_bytes(word));
        }
        let len = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        let len = len.ok_or_else(|| Error::format(path, format!("the header says {dims:?}: more than any file")))?;
        Ok(Self { path, dims, len, values })
    }

    /// Values `first..first + count`; reads the rest too, to see that the header told the truth.
    fn values(&mut self, first: u64, count: u64) -> Result<Vec<u8>> {
        let broken = |e| broken(self.path, e);
        let mut kept = Vec::new();
        let mut found = io::copy(&mut (&mut self.values).take(first), &mut io::sink()).map_err(broken)?;
        found += (&mut self.values).take(count).read_to_end(&mut kept).map_err(broken)? as u64;
        // One more than the header says is enough to know that it lies.
        let rest = (self.len - found).saturating_add(1);
        found += io::copy(&mut (&mut self.values).take(rest), &mut io::sink()).map_err(broken)?;
        if found == self.len {
            return Ok(kept);
        }
        let held = if found > self.len { "more".to_owned() } else { format!("only {found}") };
        let reason = format!("the header says {:?}, that is {} bytes, but {held} follow", self.dims, self.len);
        Err(Error::format(self.path, reason))
    }
}

fn read_exact(path: &Path, values: &mut dyn Read, out: &mut [u8]) -> Result<()> {
    values.read_exact(out).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::format(path, "ends within the header"),
        _ => broken(path, e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    /// The bytes of an IDX file of unsigned bytes.
    fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, UNSIGNED_BYTE, dims.len() as u8];
        dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A folder with a file of images and one of labels.
    struct Pair(tempfile::TempDir);

    impl Pair {
        fn new(images: &[u8], labels: &[u8]) -> Self {
            let pair = Self(tempfile::tempdir().unwrap());
            fs::write(pair.images(), images).unwrap();
            fs::write(pair.labels(), labels).unwrap();
            pair
        }

        /// Three images of 2 x 3 and their labels.
        fn sound() -> (Vec<u8>, Vec<u8>) {
            (idx(&[3, 2, 3], &(1..=18).collect::<Vec<_>>()), idx(&[3], &[9, 0, 4]))
        }

        fn images(&self) -> PathBuf {
            self.0.path().join("images-idx3")
        }

        fn labels(&self) -> PathBuf {
            self.0.path().join("labels-idx1")
        }

        fn load(&self, first: u64, count: usize) -> Result<Images> {
            load(&self.images(), &self.labels(), 4, first, count)
        }

        fn message(&self, first: u64, count: usize) -> String {
            self.load(first, count).unwrap_err().to_string()
        }
    }

    #[test]
    fn images_are_centred_on_black_plain_or_gzip() {
        let (images, labels) = Pair::sound();
        let plain = Pair::new(&images, &labels).load(1, 2).unwrap();
        assert_eq!((plain.channels, plain.side, plain.len()), (1, 4, 2));
        assert_eq!(plain.image(0), [0, 0, 0, 0, 7, 8, 9, 0, 10, 11, 12, 0, 0, 0, 0, 0]);
        assert_eq!(plain.image(1)[4..12], [13, 14, 15, 0, 16, 17, 18, 0]);
        assert_eq!(plain.labels.as_deref(), Some(&[0, 4][..]));
        assert_eq!(Pair::new(&gzip(&images), &gzip(&labels)).load(1, 2).unwrap(), plain);
        // A gzip file may have several members.
        let members = [gzip(&images[..20]), gzip(&images[20..])].concat();
        assert_eq!(Pair::new(&members, &labels).load(1, 2).unwrap(), plain);
    }

    #[test]
    fn headers_that_lie_are_errors_and_cost_no_memory() {
        let (images, labels) = Pair::sound();
        // 2^32 - 1 images, as the header says; all but the last claim more than there is.
        let many = idx(&[u32::MAX, 2, 3], &images[16..]);
        let many_labels = idx(&[u32::MAX], &[9, 0, 4]);
        for (bytes, wanted) in [
            (many.clone(), "only 18"),
            (gzip(&many), "only 18"),
            (images[..images.len() - 1].to_vec(), "labels"),
            (idx(&[u32::MAX; 3], &[]), "is"),
        ] {
            let message = Pair::new(&bytes, &many_labels).message(0, 1);
            assert!(message.contains(wanted), "{message}");
        }
        let short = Pair::new(&images[..images.len() - 1], &labels).message(0, 1);
        assert!(short.contains("images-idx3") && short.contains("18 bytes, but only 17 follow"), "{short}");
        let long = Pair::new(&[&images[..], &[0]].concat(), &labels).message(0, 3);
        assert!(long.contains("but more follow"), "{long}");
        let short = Pair::new(&images, &labels[..labels.len() - 1]).message(0, 1);
        assert!(short.contains("labels-idx1") && short.contains("only 2"), "{short}");
    }

    #[test]
    fn damaged_gzip_files_are_errors() {
        let (images, labels) = Pair::sound();
        let zipped = gzip(&images);
        for cut in [zipped.len() / 2, zipped.len() - 9, zipped.len() - 1] {
            let message = Pair::new(&zipped[..cut], &labels).message(0, 1);
            assert!(message.contains("images-idx3") && message.contains("truncated"), "{cut}: {message}");
        }
        let mut flipped = zipped.clone();
        *flipped.iter_mut().rev().nth(5).unwrap() ^= 1; // in the checksum
        let message = Pair::new(&flipped, &labels).message(0, 1);
        assert!(message.contains("damaged"), "{message}");
    }

    #[test]
    fn other_files_are_named_for_what_they_are_not() {
        let (images, labels) = Pair::sound();
        let swapped = Pair::new(&labels, &images).message(0, 1);
        assert!(swapped.contains("images-idx3") && swapped.contains("begins with"), "{swapped}");
        let mut floats = images.clone();
        floats[2] = 0x0d;
        assert!(Pair::new(&floats, &labels).message(0, 1).contains("begins with"));
        for cut in [0, 2, 9] {
            assert!(Pair::new(&images[..cut], &labels).message(0, 1).contains("within the header"), "{cut}");
        }
        let flat = idx(&[3, 0, 3], &[]);
        assert!(Pair::new(&flat, &labels).message(0, 1).contains("3 x 0"));
        let fewer = Pair::new(&images, &idx(&[2], &[1, 2])).message(0, 1);
        assert!(fewer.contains("2 labels") && fewer.contains("3 images"), "{fewer}");
    }

    #[test]
    fn requests_beyond_the_file_say_what_to_change() {
        let (images, labels) = Pair::sound();
        let pair = Pair::new(&images, &labels);
        assert_eq!(pair.load(3, 0).unwrap().len(), 0);
        for (first, count) in [(0, 4), (3, 1), (u64::MAX, 1), (u64::MAX, usize::MAX)] {
            let message = pair.message(first, count);
            assert!(message.contains("holds 3 images"), "{message}");
        }
        let message = load(&pair.images(), &pair.labels(), 2, 0, 1).unwrap_err().to_string();
        assert!(message.contains("image_size to at least 3"), "{message}");
        // Within the header's limits, but not within any memory.
        let message = load(&pair.images(), &pair.labels(), 1 << 31, 0, 2).unwrap_err().to_string();
        assert!(message.contains("memory"), "{message}");
        fs::remove_file(pair.labels()).unwrap();
        let message = pair.message(0, 1);
        assert!(message.contains("labels-idx1: not found") && message.contains("DMP_DATA"), "{message}");
    }

    /// Known facts of Fashion-MNIST: 1,000 test images per class; image 0 is an ankle boot (class 9).
    #[test]
    #[ignore = "needs Fashion-MNIST: `just test-published`"]
    fn fashion_mnist_is_what_it_is_known_to_be() {
        let folder = std::env::var_os("DMP_DATA").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/datasets")),
            PathBuf::from,
        );
        let file = |name| folder.join("fashion-mnist").join(name);
        let (images, labels) = (file("t10k-images-idx3-ubyte.gz"), file("t10k-labels-idx1-ubyte.gz"));
        let all = load(&images, &labels, 32, 0, 10_000).unwrap();
        let classes = all.labels.as_ref().unwrap();
        assert!((0..10).all(|class| classes.iter().filter(|&&c| c == class).count() == 1000));
        assert_eq!(classes[0], 9);
        let border = |i: usize| (0..32 * 32).filter(move |p| !(2..30).contains(&(p % 32))).map(move |p| (i, p));
        assert!((0..10).flat_map(border).all(|(i, p)| all.image(i)[p] == 0));
        let mean = all.pixels.iter().map(|&v| f64::from(v)).sum::<f64>() / (10_000.0 * 28.0 * 28.0);
        assert!((mean - 73.1).abs() < 0.5, "{mean}");
        assert_eq!(load(&images, &labels, 32, 9_000, 10).unwrap(), all.slice(9_000..9_010));
    }
}
