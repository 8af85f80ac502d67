//! Image files as people have them to RGB bytes, within limits.
//!
//! Grey becomes RGB, CMYK is converted without a colour profile, 16 bits are rounded to 8, transparency is dropped, of
//! an animation the first frame counts, rotations of EXIF are not applied: as Pillow's `convert("RGB")`.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::{ImageFormat, ImageReader, Limits};

use crate::resample::Raster;
use crate::{Error, Result, jpeg};

/// Largest width or height that is decoded, in pixels.
pub(crate) const MAX_SIDE: u32 = 1 << 14;

/// Largest image that is decoded, in pixels: 134 million.
pub(crate) const MAX_PIXELS: u64 = 1 << 27;

/// Largest allocation of a decoder in bytes: the largest image with transparency. Its copy in RGB comes on top.
const MAX_BYTES: u64 = 4 * MAX_PIXELS;

/// Largest image that is decoded beside others, in pixels.
const LARGE: u64 = 1 << 24;

/// Largest file, in bytes.
pub(crate) const MAX_FILE: u64 = 1 << 28;

/// Largest ratio of the sides: a narrower strip would have to be enlarged beyond measure.
const MAX_RATIO: usize = 64;

/// Reads a file.
///
/// # Errors
/// It is missing, or larger than [`MAX_FILE`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::format(path, format!("is larger than {} MB: no photograph", MAX_FILE >> 20)));
    }
    Ok(bytes)
}

/// Waits until this image may be decoded, by its header: those of more than 16 million pixels are, one at a time in the process,
/// for as long as what is returned lives. By the sizes of its buffers, beside the files themselves, the largest takes 2 GB (a progressive
/// CMYK JPEG; most 1 GB) on however many threads, and each of the others 0.25 GB.
pub(crate) fn turn(bytes: &[u8]) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    // It guards no data that a panic could have spoiled.
    (pixels(bytes)? > LARGE).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Pixels that the header claims.
fn pixels(bytes: &[u8]) -> Option<u64> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    reader.into_dimensions().ok().map(|(width, height)| u64::from(width) * u64::from(height))
}

/// Decodes the file that `path` calls, whatever its extension says it is.
///
/// # Errors
/// The file is damaged, cut short or of a format that is not read; larger than 16,384 pixels a side or 134 million in all (said by
/// its header, before anything is allocated); narrower than 1:64.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Raster<u8>> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| Error::io(path, e))?;
    // The decoder fills what is missing of a JPEG with grey.
    if reader.format() == Some(ImageFormat::Jpeg) && !ends(bytes) {
        return Err(Error::format(path, "the JPEG is truncated: it has no end marker"));
    }
    if let Some(claimed) = pixels(bytes).filter(|&claimed| claimed > MAX_PIXELS) {
        let [claimed, most] = [claimed, MAX_PIXELS].map(|pixels| pixels / 1_000_000);
        return Err(Error::format(path, format!("claims {claimed} million pixels, over the limit of {most} million")));
    }
    let exact = (reader.format() == Some(ImageFormat::Jpeg)).then(|| jpeg::decode(bytes)).flatten();
    let raster = match exact {
        Some(raster) => raster,
        None => by_kind(path, reader)?,
    };
    let Raster { width, height, .. } = raster;
    if width.min(height) == 0 || width.max(height) > MAX_RATIO * width.min(height) {
        let reason = format!("is {width} x {height} pixels: too narrow to crop a square from");
        return Err(Error::format(path, reason));
    }
    Ok(raster)
}

/// Decodes what the library knows, within limits.
fn by_kind(path: &Path, mut reader: ImageReader<Cursor<&[u8]>>) -> Result<Raster<u8>> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let rgb = reader.decode().map_err(|source| Error::Decode { path: path.to_owned(), source })?.into_rgb8();
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Ok(Raster { width, height, channels: 3, values: rgb.into_raw() })
}

/// Whether the segments of a JPEG lead to its end marker.
fn ends(bytes: &[u8]) -> bool {
    const END: u8 = 0xd9;
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        // Within coded data, 0xff is followed by 0 or by a restart marker; before a marker it may be repeated.
        let marker = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7));
        let Some(at) = marker else { return false };
        if rest[at + 1] == END {
            return true;
        }
        let length = rest.get(at + 2..at + 4).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
        match rest.get(at + 2 + length.max(2)..) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use manifest::digest::Digest;

    use super::*;

    const COLOURS: [[u8; 3]; 4] = [[200, 30, 40], [20, 180, 60], [30, 60, 220], [240, 240, 30]];

    fn file(name: &str) -> Vec<u8> {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(name)).unwrap()
    }

    /// Colours in the middle of the quadrants.
    fn quadrants(name: &str, bytes: &[u8]) -> [[u8; 3]; 4] {
        let photo = decode(Path::new(name), bytes).unwrap();
        assert_eq!((photo.width, photo.height, photo.channels), (32, 32, 3), "{name}");
        std::array::from_fn(|i| {
            let at = ((8 + i / 2 * 16) * 32 + 8 + i % 2 * 16) * 3;
            photo.values[at..at + 3].try_into().unwrap()
        })
    }

    /// What Pillow decodes (`tests/images/make.py` prints it), up to the rounding of the decoders.
    #[test]
    fn every_kind_of_image_has_the_colours_that_pillow_sees() {
        let grey = |values: [u8; 4]| values.map(|v| [v; 3]);
        let cmyk = [[225, 49, 66], [27, 195, 80], [41, 88, 235], [245, 245, 34]];
        for (name, expected, tolerance) in [
            ("plain.jpg", COLOURS, 2),
            ("progressive.jpg", COLOURS, 2),
            ("cmyk.jpg", cmyk, 3),
            ("grey.jpg", grey([82, 118, 69, 216]), 1),
            ("lossy.webp", COLOURS, 3),
            ("alpha.webp", COLOURS, 0),
            ("animated.webp", COLOURS, 0),
            ("animated.png", COLOURS, 0),
            ("palette.png", COLOURS, 0),
            ("grey-alpha.png", grey([10, 90, 170, 250]), 0),
            ("grey-16.png", grey([10, 90, 170, 250]), 0),
            ("plain.bmp", COLOURS, 0),
        ] {
            let found = quadrants(name, &file(name));
            let close =
                found.as_flattened().iter().zip(expected.as_flattened()).all(|(a, b)| a.abs_diff(*b) <= tolerance);
            assert!(close, "{name}: {found:?} for {expected:?}");
        }
    }

    /// The SHA-256 of what Pillow decodes (`tests/images/make.py` prints them): every sampling and coding, to the bit.
    #[test]
    fn jpegs_are_decoded_to_the_bytes_that_pillow_sees() {
        for (name, expected) in [
            ("411", "a1933534a8b99797d87b00b6d9225fa790ac20e3bc40e9d0e6ecf53d1f9665b7"),
            ("420", "51e0d5fdd56eb94cc077605efd3f7b4c4bf654b84153ab67fa0b0aa5863d8abb"),
            ("420-narrow", "fbe758c110d35131c96138f680efb1340d33f98ad70e6548cdf413747ed786ea"),
            ("420-progressive", "aabb12cdeb71b7b11f6105d1ee160d696fd11f856eb8aba9f308497e127383b1"),
            ("422", "14ad7768e312ee29a5c5be74da39700196301d5851b842d5671919709fb221bd"),
            ("444-progressive", "fb4c709656a83db38d01299575578365fb339ae52fef0e990b62fe5994f8d5a4"),
            ("grey-progressive", "a29f8e621f36184c57ebb5883c26504eb0f88205f625c62ef63b69100cdc25cb"),
            ("restarts", "88132375db524c5e77cdb3c414c53e17c22bc4f088e08b55463b338a677e5bce"),
            ("rgb", "39a38031990fd181fcd672201c1e805bea7708593d9da5aaebffe8e90acec81e"),
        ] {
            let bytes = file(&format!("jpeg/{name}.jpg"));
            let photo = decode(Path::new(name), &bytes).unwrap();
            assert_eq!(Digest::of(&photo.values).to_string(), expected, "{name}");
        }
    }

    /// Whatever is changed of it, a JPEG is decoded or it is not: no panic, and no more memory than its size asks for.
    #[test]
    fn no_changed_byte_of_a_jpeg_is_a_panic() {
        for name in ["411", "420-progressive", "444-progressive", "grey-progressive", "restarts"] {
            let bytes = file(&format!("jpeg/{name}.jpg"));
            for place in 0..bytes.len() {
                for flip in [0x01, 0x10, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[place] ^= flip;
                    jpeg::decode(&changed);
                }
            }
            for cut in 0..bytes.len() {
                assert!(jpeg::decode(&bytes[..cut]).is_none(), "{name} cut at {cut}");
            }
        }
    }

    /// A JPEG's sides are two bytes each, behind the frame's marker, its length and its precision.
    fn claiming(bytes: &[u8], height: u16, width: u16) -> Vec<u8> {
        let frame = bytes.windows(2).position(|pair| matches!(pair, [0xff, 0xc0 | 0xc2])).unwrap();
        let mut changed = bytes.to_vec();
        changed[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        changed[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
        changed
    }

    #[test]
    fn a_jpeg_claims_no_more_than_its_bytes_can_code() {
        // Of a progressive file, a few bytes end all blocks' bands.
        let bytes = file("jpeg/grey-progressive.jpg");
        assert!(jpeg::decode(&claiming(&bytes, 512, 512)).is_none(), "its data ends before");
        assert!(jpeg::decode(&claiming(&bytes, 16_000, 16_000)).is_none());
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        assert!(jpeg::decode(&[&bytes[..frame], &[0xff, 0xd9]].concat()).is_none(), "no scan at all");
        let error = decode(Path::new("a.jpg"), &claiming(&bytes, 12_000, 12_000)).unwrap_err().to_string();
        assert!(error.contains("a.jpg: claims 144 million pixels, over the limit of 134 million"), "{error}");
    }

    #[test]
    fn large_images_take_turns_and_others_do_not_wait() {
        let small = file("plain.jpg");
        let large = claiming(&small, 5_000, 4_000);
        let held = turn(&large);
        assert!(held.is_some() && turn(&small).is_none());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(turn(&large).is_some()).unwrap());
            assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "it does not wait");
            drop(held);
            assert!(receiver.recv().unwrap());
        });
    }

    #[test]
    fn truncated_images_are_errors_and_no_cut_is_a_panic() {
        for name in [
            "plain.jpg",
            "progressive.jpg",
            "cmyk.jpg",
            "grey.jpg",
            "lossy.webp",
            "alpha.webp",
            "palette.png",
            "grey-16.png",
            "grey-alpha.png",
            "plain.bmp",
        ] {
            let bytes = file(name);
            for cut in 0..bytes.len() {
                let found = decode(Path::new(name), &bytes[..cut]);
                // The last bytes of a PNG and of a lossy WebP carry no pixels.
                let spared = if name.ends_with("jpg") { 0 } else { 16 };
                assert!(found.is_err() || cut + spared >= bytes.len(), "{name} cut at {cut} of {}", bytes.len());
            }
            let message = decode(Path::new(name), &bytes[..bytes.len() / 2]).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        // Of an animation, the first frame is enough.
        for name in ["animated.png", "animated.webp"] {
            let bytes = file(name);
            let whole = decode(Path::new(name), &bytes).unwrap();
            for cut in 0..bytes.len() {
                if let Ok(found) = decode(Path::new(name), &bytes[..cut]) {
                    assert!(found.values == whole.values, "{name} cut at {cut}");
                }
            }
            assert!(decode(Path::new(name), &bytes[..bytes.len() / 4]).is_err(), "{name}");
        }
    }

    #[test]
    fn no_changed_byte_is_a_panic() {
        for name in ["plain.jpg", "lossy.webp", "animated.webp", "animated.png", "palette.png", "grey-16.png"] {
            let bytes = file(name);
            for place in 0..bytes.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[place] ^= flip;
                    // Any answer is right but a panic.
                    decode(Path::new(name), &changed).ok();
                }
            }
        }
    }
}
