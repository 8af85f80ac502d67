//! The state of a training run on disk: values, moments, average, iteration and curve, in one file that is replaced whole.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::artifact;
use crate::job::CurvePoint;
use crate::losses::{Losses, Running};

/// File name of the checkpoint in a stage's working directory.
const FILE: &str = "checkpoint.safetensors";

/// Tensors of the file besides its hash.
const PARTS: [(&str, Dtype); 6] = [
    ("counts", Dtype::U64),
    ("curve", Dtype::F64),
    ("values", Dtype::F32),
    ("first_moment", Dtype::F32),
    ("second_moment", Dtype::F32),
    ("average", Dtype::F32),
];

/// Numbers that are written at once.
const CHUNK: usize = 1 << 20;

fn bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(values)];
    bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
    bytes
}

/// Where a training run stands. Random draws are pure functions of the iteration, so it is all the state there is.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Iterations done.
    pub iteration: usize,
    /// Trained values.
    pub values: Vec<f32>,
    /// AdamW's first moment.
    pub first_moment: Vec<f32>,
    /// AdamW's second moment.
    pub second_moment: Vec<f32>,
    /// Exponential moving average of the values; empty where none is kept.
    pub average: Vec<f32>,
    /// The curve so far.
    pub curve: Vec<CurvePoint>,
    /// Sums of the losses since the curve's last point, by name, and how many iterations they hold.
    pub running: Running,
}

impl Checkpoint {
    /// The state before the first iteration.
    pub fn start(values: Vec<f32>, keep_average: bool) -> Self {
        let zeros = vec![0.0; values.len()];
        let average = if keep_average { values.clone() } else { Vec::new() };
        Self {
            iteration: 0,
            first_moment: zeros.clone(),
            second_moment: zeros,
            average,
            values,
            curve: Vec::new(),
            running: Running::default(),
        }
    }

    /// Writes the checkpoint of `directory` anew. The old one stays until the new one is whole.
    ///
    /// # Errors
    /// The disk's, with the path.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let mut curve: Vec<f64> = self.running.sums.to_vec();
        for point in &self.curve {
            curve.extend([point.iteration as f64, point.learning_rate]);
            curve.extend(point.losses.values());
        }
        let counts = [self.iteration as u64, self.running.iterations].map(u64::to_le_bytes).concat();
        let curve: Vec<u8> = curve.into_iter().flat_map(f64::to_le_bytes).collect();
        let floats = [&self.values, &self.first_moment, &self.second_moment, &self.average];
        // Of a large network a second copy of all this would be a good part of the memory.
        let chunks = || floats.into_iter().map(|buffer| buffer.chunks(CHUNK).map(bytes));

        let mut digest = Sha256::new();
        for part in [&counts, &curve] {
            hash(&mut digest, part.len(), [part]);
        }
        for (buffer, chunks) in floats.into_iter().zip(chunks()) {
            hash(&mut digest, size_of_val(&buffer[..]), chunks);
        }
        let digest = digest.finalize().to_vec();

        let lengths = [counts.len() / 8, curve.len() / 8].into_iter().chain(floats.map(Vec::len));
        let mut tensors: Vec<_> =
            PARTS.into_iter().zip(lengths).map(|((name, dtype), length)| (name, dtype, vec![length])).collect();
        tensors.push(("sha256", Dtype::U8, vec![digest.len()]));
        let parts = [counts, curve].into_iter().chain(chunks().flatten()).chain([digest]);
        artifact::write_parts(&directory.join(FILE), &tensors, parts.map(Ok))
    }

    /// The checkpoint of `directory`, if there is one.
    ///
    /// # Errors
    /// It is damaged (its hash is off), or of another shape than `len` values.
    pub fn load(directory: &Path, len: usize) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let damaged = || format!("the checkpoint {} is damaged; delete it to start this stage anew", path.display());
        Self::parse(&bytes, len).with_context(damaged).map(Some)
    }

    fn parse(bytes: &[u8], len: usize) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes)?;
        let part = |name: &str| tensors.tensor(name).map(|t| t.data()).with_context(|| name.to_owned());
        let mut parts = [&[][..]; 6];
        for (bytes, (name, _)) in parts.iter_mut().zip(PARTS) {
            *bytes = part(name)?;
        }
        ensure!(part("sha256")? == Self::digest(parts), "its content does not match its hash");
        let [counts, curve, floats @ ..] = parts;
        let counts: Vec<u64> = counts.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        let curve: Vec<f64> = curve.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        let [values, first_moment, second_moment, average] =
            floats.map(|b| b.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>());
        ensure!(values.len() == len, "it holds {} values, not {len}", values.len());

        let (sums, points) = curve.split_first_chunk().context("no sums")?;
        let point = |&[iteration, learning_rate, ref losses @ ..]: &[f64; 7]| CurvePoint {
            iteration: iteration as u64,
            learning_rate,
            losses: Losses::from_values(*losses),
        };
        Ok(Self {
            iteration: counts[0] as usize,
            values,
            first_moment,
            second_moment,
            average,
            curve: points.as_chunks().0.iter().map(point).collect(),
            running: Running { sums: *sums, iterations: counts[1] },
        })
    }

    fn digest(parts: [&[u8]; 6]) -> Vec<u8> {
        let mut digest = Sha256::new();
        for part in parts {
            hash(&mut digest, part.len(), [part]);
        }
        digest.finalize().to_vec()
    }
}

/// Adds a part of so many bytes, which come in chunks.
fn hash(digest: &mut Sha256, length: usize, chunks: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    digest.update((length as u64).to_le_bytes());
    chunks.into_iter().for_each(|chunk| digest.update(chunk));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let mut state = Checkpoint::start(vec![0.1, -2.5, f32::MIN_POSITIVE], true);
        state.iteration = 12;
        state.first_moment[1] = 1e-30;
        state.curve.push(CurvePoint { iteration: 10, learning_rate: 1e-4, losses: Losses::default() });
        state.running.add(&Losses { mse: 0.1, vb: 1.0 / 3.0, importance: 0.0, load: 0.0, total: 0.7 });
        state
    }

    #[test]
    fn comes_back_bit_for_bit() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Checkpoint::load(directory.path(), 3).unwrap().is_none());
        example().save(directory.path()).unwrap();
        assert_eq!(Checkpoint::load(directory.path(), 3).unwrap().unwrap(), example());
        // Of more numbers than are written at once.
        let values: Vec<f32> = (0..2 * CHUNK + 3).map(|i| i as f32).collect();
        let mut long = Checkpoint::start(values.clone(), false);
        long.second_moment = values.iter().map(|value| value * 0.5).collect();
        long.save(directory.path()).unwrap();
        assert_eq!(Checkpoint::load(directory.path(), values.len()).unwrap().unwrap(), long);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        example().save(directory.path()).unwrap();
        let path = directory.path().join(FILE);
        let sound = std::fs::read(&path).unwrap();
        for place in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[place] ^= 0x01;
            if let Ok(read) = Checkpoint::parse(&bytes, 3) {
                assert_eq!(read, example(), "byte {place}"); // padding of the header carries nothing
            }
            assert!(Checkpoint::parse(&sound[..place], 3).is_err(), "cut at {place}");
        }
        std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
        let error = format!("{:#}", Checkpoint::load(directory.path(), 3).unwrap_err());
        assert!(error.contains("delete it to start this stage anew"), "{error}");
    }

    #[test]
    fn another_shape_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        example().save(directory.path()).unwrap();
        let error = format!("{:#}", Checkpoint::load(directory.path(), 4).unwrap_err());
        assert!(error.contains("holds 3 values, not 4"), "{error}");
    }
}
