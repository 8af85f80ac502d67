//! Photographs on disk, decoded when they are asked for: all of them into memory, or one after the other, ahead of whoever
//! consumes them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use rayon::prelude::*;

use crate::crop::centre_crop;
use crate::{Error, Images, Result, decode};

/// Decoded images that wait in a chunk, per thread. Two chunks wait at most, and one is being decoded.
const CHUNK_PER_THREAD: usize = 4;

/// Where an encoded image lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file of its own.
    File(PathBuf),
    /// In a tar archive.
    Member {
        shard: Arc<Path>,
        /// Its name in the archive.
        name: String,
        /// Its first byte.
        start: u64,
        /// Its length; the archive is known to hold it.
        bytes: u64,
    },
}

impl Place {
    /// What messages call it: a path, or `shard.tar:name`.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Member { shard, name, .. } => PathBuf::from(format!("{}:{name}", shard.display())),
        }
    }

    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => decode::read(path),
            Self::Member { shard, start, bytes, .. } => read_range(shard, *start, *bytes),
        }
    }
}

/// Bytes `start..start + count` of a file, which must be there.
pub(crate) fn read_range(path: &Path, start: u64, count: u64) -> Result<Vec<u8>> {
    let read = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; count as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| Error::io(path, e))
}

/// Photographs on disk, in the order of their names, with what is known about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Photographs {
    pub(crate) side: usize,
    pub(crate) places: Vec<Place>,
    /// Class of each, `[n]`.
    pub labels: Option<Vec<u32>>,
    /// Names of the classes, by label; empty where there are none.
    pub classes: Vec<String>,
    /// Caption of each, `[n]`.
    pub captions: Option<Vec<String>>,
    /// Number of files beside them that are no images. Hidden files are not counted.
    pub ignored: usize,
}

impl Photographs {
    /// Photographs at `places` without labels and captions.
    pub(crate) fn plain(side: usize, places: Vec<Place>, ignored: usize) -> Self {
        Self { side, places, labels: None, classes: Vec::new(), captions: None, ignored }
    }

    /// The first `count` of them.
    ///
    /// # Errors
    /// There are fewer; `path` is what the message calls them.
    pub fn head(mut self, count: usize, path: &Path) -> Result<Self> {
        if count > self.len() {
            let reason = format!("holds {} images, fewer than the first {count} that are asked for", self.len());
            return Err(Error::request(path, format!("{reason}; lower `count`")));
        }
        self.places.truncate(count);
        self.labels.iter_mut().for_each(|labels| labels.truncate(count));
        self.captions.iter_mut().for_each(|captions| captions.truncate(count));
        Ok(self)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The path of photograph `i`, or `shard.tar:name`.
    pub fn path(&self, i: usize) -> PathBuf {
        self.places[i].path()
    }

    /// Side in pixels after resizing and centre crop.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Numbers in one image.
    fn elements(&self) -> usize {
        3 * self.side * self.side
    }

    /// Decodes photograph `i` to RGB, resized and centre-cropped; `out` is planar `[3, side, side]`.
    ///
    /// # Errors
    /// It cannot be read or decoded.
    pub fn decode(&self, i: usize, out: &mut [u8]) -> Result<()> {
        let place = &self.places[i];
        let bytes = place.read()?;
        let _turn = decode::turn(&bytes);
        let photo = decode::decode(&place.path(), &bytes)?;
        centre_crop(photo, self.side, out);
        Ok(())
    }

    /// Decodes all of them into memory, on all threads.
    ///
    /// # Errors
    /// The first (in order) that cannot be read or decoded; more bytes than there is memory.
    pub fn load(self) -> Result<Images> {
        let bytes = self.elements().saturating_mul(self.len());
        let mut pixels = Vec::new();
        if pixels.try_reserve_exact(bytes).is_err() {
            return Err(Error::Memory { images: self.len(), side: self.side, bytes });
        }
        pixels.resize(bytes, 0);
        let decoded = pixels.par_chunks_exact_mut(self.elements()).enumerate();
        match decoded.find_map_first(|(i, out)| self.decode(i, out).err()) {
            Some(error) => Err(error),
            None => {
                let Self { side, labels, captions, .. } = self;
                Ok(Images { channels: 3, side, pixels, labels, factors: None, captions })
            }
        }
    }

    /// Hands the photographs `order` to `consume`, in that order, decoded on all threads ahead of it. However many there
    /// are, no more than 12 decoded images per thread are in memory.
    ///
    /// # Errors
    /// Those of `consume`, which ends the matter.
    pub fn each<E>(
        &self,
        order: impl Iterator<Item = usize> + Send,
        mut consume: impl FnMut(usize, Result<Vec<u8>>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let threads = rayon::current_num_threads();
        // The calling thread may be the only one of its pool: the decoding has threads of its own.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let (sender, receiver) = sync_channel(1);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut order = order.peekable();
                while order.peek().is_some() {
                    let chunk: Vec<usize> = order.by_ref().take(CHUNK_PER_THREAD * threads).collect();
                    let decoded = |&i: &usize| {
                        let mut out = vec![0; self.elements()];
                        (i, self.decode(i, &mut out).map(|()| out))
                    };
                    let decode = || chunk.par_iter().map(decoded).collect::<Vec<_>>();
                    let decoded = pool.as_ref().map_or_else(|_| decode(), |pool| pool.install(decode));
                    // A consumer that has had enough is no error.
                    if sender.send(decoded).is_err() {
                        return;
                    }
                }
            });
            receiver.into_iter().flatten().try_for_each(|(i, image)| consume(i, image))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder;
    use image::{Rgb, RgbImage};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn folder_of(count: u8) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..count {
            RgbImage::from_pixel(5, 4, Rgb([i, 2 * i, 255 - i]))
                .save(folder.path().join(format!("{i:03}.png")))
                .unwrap();
        }
        folder
    }

    #[test]
    fn images_come_in_the_order_that_was_asked_for_whatever_the_threads() {
        let folder = folder_of(50);
        let photographs = folder::open(folder.path(), 4).unwrap();
        let order: Vec<usize> = (0..200).map(|i| i * 7 % 50).collect();
        let images = photographs.clone().load().unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut seen = Vec::new();
            pool.install(|| {
                photographs.each(order.iter().copied(), |i, image| {
                    assert_eq!(image?, images.image(i));
                    seen.push(i);
                    Ok::<_, Error>(())
                })
            })
            .unwrap();
            assert_eq!(seen, order, "{threads} threads");
        }
    }

    #[test]
    fn no_more_is_decoded_than_the_window_and_the_consumer_may_stop() {
        let folder = folder_of(10);
        let photographs = folder::open(folder.path(), 4).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let taken = AtomicUsize::new(0);
        let order = (0..100_000).map(|i| {
            taken.fetch_add(1, Ordering::Relaxed);
            i % 10
        });
        let mut consumed = 0;
        let stopped = pool.install(|| {
            photographs.each(order, |_, image| {
                image.unwrap();
                consumed += 1;
                // One more may be looked at than is decoded.
                let ahead = taken.load(Ordering::Relaxed) - consumed;
                assert!(ahead <= 4 * CHUNK_PER_THREAD + 1, "{ahead} ahead of {consumed}");
                if consumed == 60 { Err("enough") } else { Ok(()) }
            })
        });
        assert_eq!((stopped, consumed), (Err("enough"), 60));
    }

    #[test]
    fn a_broken_image_comes_in_its_place() {
        let folder = folder_of(3);
        std::fs::write(folder.path().join("001.png"), "broken").unwrap();
        let photographs = folder::open(folder.path(), 4).unwrap();
        let mut broken = Vec::new();
        photographs
            .each(0..3, |i, image| {
                if let Err(error) = image {
                    broken.push((i, error.to_string()));
                }
                Ok::<_, Error>(())
            })
            .unwrap();
        assert!(broken.len() == 1 && broken[0].0 == 1 && broken[0].1.contains("001.png"), "{broken:?}");
    }
}
