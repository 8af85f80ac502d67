//! The latent cache: moments of images' latents on disk, in shards, and the examples that training makes of them.
//!
//! Beside the file that counts them, shard `k` holds `mean` and `log_variance` f32 `[n, orientations, C, side, side]` of
//! images `k SHARD..`: as they are, and mirrored where that was asked for. So any number of images is written and read
//! in bounded memory, and a shard that is there is whole.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use data::Examples;
use random::Draws;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::artifact;
use crate::mapped::{Mapped, floats};

/// The file that counts the shards: `shape` u64 `[images, orientations, C, side]` and `labels` u32 `[images]` where they
/// have some.
pub const LATENTS: &str = "latents.safetensors";

/// Images of a shard: what a killed stage loses at most.
pub const SHARD: usize = 256;

/// Tensors of a shard.
const MOMENTS: [&str; 2] = ["mean", "log_variance"];

/// Hash over both of them.
const HASH: &str = "sha256";

/// How many latents there are, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Images.
    pub images: usize,
    /// 1, or 2 with mirrored images.
    pub orientations: usize,
    /// Channels of a latent.
    pub channels: usize,
    /// Side of a latent.
    pub side: usize,
}

impl Shape {
    /// Numbers in one latent.
    pub fn elements(self) -> usize {
        self.channels * self.side * self.side
    }

    /// Number of shards.
    pub fn shards(self) -> usize {
        self.images.div_ceil(SHARD)
    }

    /// Images of a shard.
    pub fn of_shard(self, shard: usize) -> Range<usize> {
        shard * SHARD..((shard + 1) * SHARD).min(self.images)
    }

    fn tensor(self, shard: usize) -> Vec<usize> {
        vec![self.of_shard(shard).len(), self.orientations, self.channels, self.side, self.side]
    }
}

/// Name of a shard's file.
pub fn shard_name(shard: usize) -> String {
    format!("latents-{shard:05}.safetensors")
}

/// Writes a shard: means and logarithms of variances of its images. It is there whole or not at all.
///
/// # Errors
/// The disk's, with the path.
pub fn write_shard(directory: &Path, shape: Shape, shard: usize, moments: &[Vec<f32>; 2]) -> Result<()> {
    let [mean, log_variance] =
        moments.each_ref().map(|values| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    let hash = hash(&mean, &log_variance);
    let of = |bytes| (Dtype::F32, shape.tensor(shard), bytes);
    let [mean, log_variance] = [of(mean), of(log_variance)];
    let tensors = [
        (MOMENTS[0], mean.0, mean.1, mean.2),
        (MOMENTS[1], log_variance.0, log_variance.1, log_variance.2),
        (HASH, Dtype::U8, vec![hash.len()], hash),
    ];
    artifact::write(&directory.join(shard_name(shard)), &tensors)
}

/// Whether a shard was written, of this shape, and is as it was.
pub fn has_shard(directory: &Path, shape: Shape, shard: usize) -> bool {
    let read = || -> Result<bool> {
        let file = Mapped::open(&directory.join(shard_name(shard)))?;
        let (mean, log_variance) = places(&file, shape, shard)?;
        let (_, kept) = file.place(HASH, Dtype::U8)?;
        Ok(file.bytes(kept) == hash(file.bytes(mean), file.bytes(log_variance)))
    };
    read().unwrap_or(false)
}

fn hash(mean: &[u8], log_variance: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(mean).chain_update(log_variance).finalize().to_vec()
}

/// Where a shard's file has both tensors.
fn places(file: &Mapped, shape: Shape, shard: usize) -> Result<(Range<usize>, Range<usize>)> {
    let [mean, log_variance] = MOMENTS.map(|name| -> Result<Range<usize>> {
        let (found, place) = file.place(name, Dtype::F32)?;
        let expected = shape.tensor(shard);
        ensure!(found == expected, "shard {shard} of the latents has {name} of shape {found:?}, not {expected:?}");
        Ok(place)
    });
    Ok((mean?, log_variance?))
}

/// Writes the file that counts the shards.
///
/// # Errors
/// The disk's, with the path.
pub fn write_index(directory: &Path, shape: Shape, labels: Option<&[u32]>) -> Result<()> {
    let Shape { images, orientations, channels, side } = shape;
    let sizes: Vec<u8> =
        [images, orientations, channels, side].iter().flat_map(|&n| (n as u64).to_le_bytes()).collect();
    let mut tensors = vec![("shape", Dtype::U64, vec![4], sizes)];
    tensors.extend(labels.map(|labels| {
        ("labels", Dtype::U32, vec![labels.len()], labels.iter().flat_map(|label| label.to_le_bytes()).collect())
    }));
    artifact::write(&directory.join(LATENTS), &tensors)
}

/// A shard that is open.
struct Shard {
    file: Mapped,
    mean: Range<usize>,
    log_variance: Range<usize>,
}

/// Latents as a network sees them: `scale (mean + exp(log_variance / 2) noise)`, drawn anew each time.
pub struct Latents {
    shape: Shape,
    labels: Option<Vec<u32>>,
    shards: Vec<Shard>,
    scale: f32,
}

impl Latents {
    /// Opens the latents that `index` counts. No number is read.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn open(index: &Path, scale_factor: f64) -> Result<Self> {
        let (sizes, labels) = read_index(index)?;
        let &[images, orientations, channels, side] = sizes.as_slice() else {
            bail!("{}: `shape` has {} numbers, not 4", index.display(), sizes.len())
        };
        let shape = Shape { images, orientations, channels, side };
        let open = |shard: usize| -> Result<Shard> {
            let path: PathBuf = index.with_file_name(shard_name(shard));
            let file = Mapped::open(&path)?;
            let (mean, log_variance) = places(&file, shape, shard).with_context(|| path.display().to_string())?;
            Ok(Shard { file, mean, log_variance })
        };
        let shards = (0..shape.shards()).map(open).collect::<Result<_>>()?;
        Ok(Self { shape, labels, shards, scale: scale_factor as f32 })
    }

    /// How many there are, and how large.
    pub fn shape(&self) -> Shape {
        self.shape
    }
}

/// Sizes and labels.
fn read_index(path: &Path) -> Result<(Vec<usize>, Option<Vec<u32>>)> {
    let file = Mapped::open(path)?;
    let (_, place) = file.place("shape", Dtype::U64)?;
    let sizes = file.bytes(place).as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as usize).collect();
    if !file.has("labels") {
        return Ok((sizes, None));
    }
    let (_, place) = file.place("labels", Dtype::U32)?;
    Ok((sizes, Some(file.bytes(place).as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())))
}

impl Examples for Latents {
    fn count(&self) -> usize {
        self.shape.images
    }

    fn elements(&self) -> usize {
        self.shape.elements()
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// Panics if mirrored latents were not made.
    fn example(&self, index: usize, flip: bool, noise: &Draws, first: u64, out: &mut [f32]) {
        noise.fill_normal(first, out);
        for (z, (mean, log_variance)) in out.iter_mut().zip(self.stored(index, flip)) {
            *z = self.scale * (mean + (0.5 * log_variance).exp() * *z);
        }
    }

    fn scale(&self) -> Option<f32> {
        Some(self.scale)
    }

    /// Panics if mirrored latents were not made.
    fn moments(&self, index: usize, flip: bool, mean: &mut [f32], deviation: &mut [f32]) {
        for ((mean, deviation), (stored, log_variance)) in mean.iter_mut().zip(deviation).zip(self.stored(index, flip))
        {
            (*mean, *deviation) = (stored, (0.5 * log_variance).exp());
        }
    }
}

impl Latents {
    /// Means and logarithms of variances of latent `index`.
    fn stored(&self, index: usize, flip: bool) -> impl Iterator<Item = (f32, f32)> {
        let Shape { orientations, .. } = self.shape;
        assert!(!flip || orientations == 2, "mirrored latents were not made");
        let Shard { file, mean, log_variance } = &self.shards[index / SHARD];
        let bytes = self.shape.elements() * size_of::<f32>();
        let skipped = (index % SHARD * orientations + usize::from(flip)) * bytes;
        let values = |tensor: &Range<usize>| floats(file.bytes(tensor.start + skipped..tensor.start + skipped + bytes));
        values(mean).zip(values(log_variance))
    }
}

#[cfg(test)]
mod tests {
    use random::Stream;

    use super::*;

    /// Shards of some images whose every number is its own.
    fn written(directory: &Path, images: usize) -> Shape {
        let shape = Shape { images, orientations: 2, channels: 2, side: 2 };
        for shard in 0..shape.shards() {
            let Range { start, end } = shape.of_shard(shard);
            let number = |i: usize| (start * 16 + i) as f32;
            let mean: Vec<f32> = (0..(end - start) * 16).map(number).collect();
            let log_variance = mean.iter().map(|v| -v / 1000.0).collect();
            write_shard(directory, shape, shard, &[mean, log_variance]).unwrap();
        }
        let labels: Vec<u32> = (0..images as u32).map(|i| i % 7).collect();
        write_index(directory, shape, Some(&labels)).unwrap();
        shape
    }

    #[test]
    fn an_example_is_its_own_moments_scaled_with_the_noise_of_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let shape = written(folder.path(), SHARD + 3);
        assert_eq!(shape.shards(), 2);
        let latents = Latents::open(&folder.path().join(LATENTS), 0.5).unwrap();
        assert_eq!((latents.shape(), latents.labels().unwrap()[10]), (shape, 3));
        let noise = Draws::new(3, Stream::LatentNoise, 7);
        let mut z = [0.0; 8];
        for (index, flip) in [(0, false), (5, true), (SHARD - 1, true), (SHARD, false), (SHARD + 2, true)] {
            latents.example(index, flip, &noise, 24, &mut z);
            for (e, z) in z.iter().enumerate() {
                let mean = (index * 16 + usize::from(flip) * 8 + e) as f32;
                let expected = 0.5 * (mean + (-mean / 2000.0).exp() * noise.normal(24 + e as u64));
                assert!((z - expected).abs() <= 1e-6 * expected.abs(), "{index} {flip} {e}: {z}, not {expected}");
            }
        }
    }

    #[test]
    fn a_shard_that_is_damaged_cut_or_of_another_shape_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let shape = written(folder.path(), 4);
        let path = folder.path().join(shard_name(0));
        assert!(has_shard(folder.path(), shape, 0) && !has_shard(folder.path(), shape, 1));
        assert!(!has_shard(folder.path(), Shape { orientations: 1, ..shape }, 0));
        let sound = std::fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for bytes in [&flipped[..], &sound[..sound.len() - 1], &[]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(!has_shard(folder.path(), shape, 0));
        }
        let error = format!("{:#}", Latents::open(&folder.path().join(LATENTS), 1.0).err().unwrap());
        assert!(error.contains("latents-00000.safetensors"), "{error}");
    }
}
