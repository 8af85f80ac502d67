//! A stage's images: the one place where a manifest's `Source` becomes images, all in memory or one part after the other.

use std::ops::Range;

use data::{Images, Photographs};
use manifest::dataset::{Faces, Source};

use crate::archive::Archive;
use crate::job::{EngineError, Job};

/// Images that are known, and not necessarily decoded.
pub enum Reader {
    /// Small ones, in memory.
    Memory(Images),
    /// Photographs on disk.
    Disk(Photographs),
    /// Images in one file of numpy's.
    Archive(Archive),
}

impl Reader {
    /// Opens the images of `source`; its files are inputs of the job.
    ///
    /// # Errors
    /// A file is missing or not what it claims to be; there are fewer images than are asked for.
    pub fn open(job: &Job, source: &Source) -> Result<Self, EngineError> {
        let folder = || job.input("folder");
        let head =
            |photographs: data::Result<Photographs>, count: &Option<usize>| -> Result<Photographs, EngineError> {
                let photographs = photographs.map_err(failed)?;
                match count {
                    Some(count) => photographs.head(*count, folder()?).map_err(failed),
                    None => Ok(photographs),
                }
            };
        let photographs = match source {
            Source::Faces(Faces { image_size, first, count }) => {
                return Ok(Self::Memory(data::faces::faces(*image_size, *first, *count)));
            }
            Source::Idx { image_size, first, count } => {
                let images = data::idx::load(job.input("images")?, job.input("labels")?, *image_size, *first, *count);
                return Ok(Self::Memory(images.map_err(failed)?));
            }
            Source::ImageFolder { image_size, count } => head(data::folder::open(folder()?, *image_size), count)?,
            Source::ClassFolders { image_size, count } => {
                head(data::folder::open_classes(folder()?, *image_size), count)?
            }
            Source::Captions { image_size } => {
                data::captions::open(job.input("captions")?, folder()?, *image_size).map_err(failed)?
            }
            Source::WebDataset { image_size } => {
                data::shards::open(job.input("shards")?, *image_size).map_err(failed)?
            }
            Source::Npz { image_size } => {
                return Ok(Self::Archive(Archive::open(job.input("archive")?, *image_size)?));
            }
        };
        Ok(Self::Disk(photographs))
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(images) => images.len(),
            Self::Disk(photographs) => photographs.len(),
            Self::Archive(archive) => archive.len(),
        }
    }

    /// Their side in pixels.
    pub fn side(&self) -> usize {
        match self {
            Self::Memory(images) => images.side,
            Self::Disk(photographs) => photographs.side(),
            Self::Archive(archive) => archive.side(),
        }
    }

    /// Class of each, where they have one.
    pub fn labels(&self) -> Option<&[u32]> {
        match self {
            Self::Memory(images) => images.labels.as_deref(),
            Self::Disk(photographs) => photographs.labels.as_deref(),
            Self::Archive(_) => None,
        }
    }

    /// All of them in memory.
    ///
    /// # Errors
    /// One of them cannot be decoded; more bytes than there is memory.
    pub fn load(self) -> Result<Images, EngineError> {
        match self {
            Self::Memory(images) => Ok(images),
            Self::Disk(photographs) => photographs.load().map_err(failed),
            Self::Archive(archive) => {
                let mut all = Images::new(3, archive.side(), Vec::new());
                archive.each(0..archive.len(), archive.len(), |_, images| -> Result<(), EngineError> {
                    all = images;
                    Ok(())
                })?;
                Ok(all)
            }
        }
    }

    /// Hands images `range` to `consume` in their order, `most` at a time, with the number of the first; photographs are
    /// decoded ahead of it, no more than it takes to keep it busy.
    ///
    /// # Errors
    /// One of them cannot be decoded; those of `consume`, which end the matter.
    pub fn each(
        &self,
        range: Range<usize>,
        most: usize,
        mut consume: impl FnMut(usize, Images) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let photographs = match self {
            Self::Memory(images) => {
                let mut parts = range.clone().step_by(most);
                return parts.try_for_each(|first| consume(first, images.slice(first..(first + most).min(range.end))));
            }
            Self::Disk(photographs) => photographs,
            Self::Archive(archive) => return archive.each(range, most, consume),
        };
        let (mut first, mut pixels) = (range.start, Vec::new());
        photographs.each(range.clone(), |i, image| {
            pixels.extend(image.map_err(failed)?);
            let next = i + 1;
            if next - first < most && next < range.end {
                return Ok(());
            }
            let side = photographs.side();
            consume(std::mem::replace(&mut first, next), Images::new(3, side, std::mem::take(&mut pixels)))
        })
    }
}

fn failed(error: data::Error) -> EngineError {
    EngineError::Failed(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many at a time, and whether they are on disk: the same images in the same order.
    #[test]
    fn parts_are_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let faces = data::faces::faces(8, 0, 11);
        for i in 0..faces.len() {
            let path = folder.path().join(format!("{i:02}.png"));
            data::grid_png(&faces.slice(i..i + 1), 1, 1, &path).unwrap();
        }
        let disk = Reader::Disk(data::folder::open(folder.path(), 8).unwrap());
        for reader in [disk, Reader::Memory(faces.clone())] {
            for (most, range) in [(1, 0..11), (4, 0..11), (4, 3..10), (20, 0..11), (4, 5..5)] {
                let mut seen = Vec::new();
                reader
                    .each(range.clone(), most, |first, images| {
                        assert_eq!(first * 3 * 64, range.start * 3 * 64 + seen.len());
                        assert!(images.len() == most || first + images.len() == range.end);
                        seen.extend(images.pixels);
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(seen, faces.slice(range).pixels, "{most} at a time");
            }
            let mut parts = 0;
            let stopped = reader.each(0..11, 4, |_, _| {
                parts += 1;
                Err(EngineError::Interrupted)
            });
            assert!(matches!(stopped, Err(EngineError::Interrupted)) && parts == 1);
            assert_eq!(reader.load().unwrap().pixels, faces.pixels);
        }
    }
}
