//! numpy's archives as others publish them: images, and statistics of features.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use data::Images;
use manifest::extractor::FeatureNetwork;
use manifest::stage::FeatureKind;
use metrics::Gaussian;
use metrics::npz::{self, Dtype, Statistics};

use crate::features;

/// The array of images, as ADM's evaluator reads it.
pub const IMAGES: &str = "arr_0";

/// Channels of its images.
const CHANNELS: usize = 3;

/// Images in an archive: `arr_0`, unsigned bytes `[n, side, side, 3]`. They are read one part after the other.
pub struct Archive {
    path: PathBuf,
    count: usize,
    side: usize,
}

impl Archive {
    /// # Errors
    /// The file is missing or damaged, or its array is none of such images.
    pub fn open(path: &Path, side: usize) -> Result<Self> {
        let count = || -> Result<usize> {
            let mut archive = npz::Archive::open(path)?;
            let array = archive.array(IMAGES)?;
            let (dtype, shape) = (array.dtype(), array.shape());
            ensure!(dtype == Dtype::U8, "array `{IMAGES}` holds {dtype}, and images are unsigned bytes (|u1)");
            ensure!(!array.is_fortran(), "array `{IMAGES}` is in Fortran order: save a copy in C order");
            let expected = [side as u64, side as u64, CHANNELS as u64];
            match shape {
                [count, image @ ..] if *image == expected && *count > 0 => Ok(usize::try_from(*count)?),
                _ => bail!("array `{IMAGES}` has shape {shape:?}, expected [n, {side}, {side}, {CHANNELS}]"),
            }
        };
        let count = count().with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), count, side })
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "an empty one is refused")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Their side in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Hands images `range` to `consume` in their order, `most` at a time, with the number of the first.
    ///
    /// # Errors
    /// The file is damaged; those of `consume`, which end the matter.
    pub fn each<E: From<anyhow::Error>>(
        &self,
        range: Range<usize>,
        most: usize,
        mut consume: impl FnMut(usize, Images) -> Result<(), E>,
    ) -> Result<(), E> {
        let named = |error: npz::NpzError| anyhow::Error::from(error).context(self.path.display().to_string());
        let mut archive = npz::Archive::<BufReader<File>>::open(&self.path).map_err(named)?;
        let mut array = archive.array(IMAGES).map_err(named)?;
        let elements = CHANNELS * self.side * self.side;
        let mut interleaved = vec![0_u8; elements];
        for _ in 0..range.start {
            array.fill(&mut interleaved).map_err(named)?;
        }
        for first in range.clone().step_by(most) {
            let mut pixels = Vec::new();
            for _ in first..(first + most).min(range.end) {
                array.fill(&mut interleaved).map_err(named)?;
                pixels.extend((0..CHANNELS).flat_map(|c| interleaved[c..].iter().step_by(CHANNELS)));
            }
            consume(first, Images::new(CHANNELS, self.side, pixels))?;
        }
        Ok(())
    }
}

/// The arrays of an archive that hold the statistics of some features.
pub(crate) fn arrays(of: FeatureKind) -> Statistics {
    match of {
        FeatureKind::Pooled => Statistics::Pooled,
        FeatureKind::Spatial => Statistics::Spatial,
    }
}

/// An archive whose statistics are of as many features as `network` has. No number is read.
///
/// # Errors
/// The file is missing or damaged, lacks the arrays, or has them in other shapes.
pub(crate) fn open_statistics(
    path: &Path,
    of: FeatureKind,
    network: &FeatureNetwork,
) -> Result<npz::Archive<BufReader<File>>> {
    let open = || -> Result<_> {
        let mut archive = npz::Archive::open(path)?;
        let found = arrays(of).dimensions(&mut archive)?;
        let (mean, expected) = (arrays(of).names().0, features::width(network, of));
        ensure!(
            found == expected,
            "array `{mean}` is of {found} features, but the extractor has {expected}: take statistics of its features"
        );
        Ok(archive)
    };
    open().with_context(|| path.display().to_string())
}

/// Statistics of `network`'s features that others have made.
///
/// # Errors
/// As [`open_statistics`]; numbers that are not finite.
pub(crate) fn read_statistics(path: &Path, of: FeatureKind, network: &FeatureNetwork) -> Result<Gaussian> {
    let mut archive = open_statistics(path, of, network)?;
    arrays(of).read(&mut archive).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use metrics::npz::{Storage, Writer};

    use super::*;

    fn write<T: npz::Element>(path: &Path, shape: &[usize], values: &[T]) {
        let mut writer = Writer::new(File::create(path).unwrap(), Storage::Deflated);
        writer.array(IMAGES, shape, values).unwrap();
        writer.finish().unwrap();
    }

    #[test]
    fn images_are_read_in_parts_with_their_channels_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let interleaved: Vec<u8> = (0..5 * 2 * 2 * 3).collect();
        write(&path, &[5, 2, 2, 3], &interleaved);
        let archive = Archive::open(&path, 2).unwrap();
        assert_eq!(archive.len(), 5);
        for (range, most) in [(0..5, 2), (0..5, 9), (3..5, 1), (1..4, 2), (2..2, 1)] {
            let mut seen = Vec::new();
            let consume = |first: usize, images: Images| {
                assert_eq!(first, range.start + seen.len() / 12);
                assert!(images.len() == most || first + images.len() == range.end);
                seen.extend(images.pixels);
                anyhow::Ok(())
            };
            archive.each(range.clone(), most, consume).unwrap();
            // Image 1 begins at 12: its red pixels are 12, 15, 18 and 21.
            let planar = |image: usize| (0..3).flat_map(move |c| (0..4).map(move |p| (image * 12 + p * 3 + c) as u8));
            assert_eq!(seen, range.flat_map(planar).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn what_is_no_array_of_such_images_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let refused = || Archive::open(&path, 2).err().map(|error| format!("{error:#}")).unwrap();
        assert!(refused().starts_with(&path.display().to_string()), "{}", refused());
        write(&path, &[2, 2, 2, 3], &[0_f32; 24]);
        assert!(refused().contains("holds <f4"), "{}", refused());
        for shape in [&[0, 2, 2, 3][..], &[2, 3, 2, 2], &[8, 3], &[24]] {
            write(&path, shape, &vec![0_u8; shape.iter().product()]);
            assert!(refused().contains("expected [n, 2, 2, 3]"), "{shape:?}: {}", refused());
        }
        write(&path, &[2, 4, 4, 3], &[0_u8; 96]);
        assert!(refused().contains("has shape [2, 4, 4, 3], expected [n, 2, 2, 3]"), "{}", refused());
        std::fs::write(&path, b"no archive").unwrap();
        assert!(refused().contains("no sound .npz"), "{}", refused());
    }
}
