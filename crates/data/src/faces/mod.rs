//! Small colour faces drawn by the project: deterministic per index, unlimited, with known continuous factors.
//!
//! `factors` draws what a face is like, `face` turns that into places and colours, `draw` paints its parts with the
//! antialiased shapes of `ink`. Only `+ - * /` and `sqrt` on `f32`: the same bytes on every machine.

mod captions;
mod draw;
mod face;
mod factors;
mod ink;

pub use factors::{FACTORS, MIRRORED};

use rayon::prelude::*;

use crate::Images;
use face::Face;
use factors::Factors;

/// Faces `first..first + count` as RGB images of `side` x `side` pixels, with their [`FACTORS`] in [-1, 1]. Labels: 1 with
/// glasses, 2 with a beard, 3 with both, 0 with neither, a quarter of the faces each. Captions: those of [`captions`].
///
/// Face `i` is the same picture at every side, whatever the range it is drawn in.
pub fn faces(side: usize, first: u64, count: usize) -> Images {
    let mut pixels = vec![0; count * 3 * side * side];
    let mut values = vec![0.0; count * FACTORS.len()];
    let images = pixels.par_chunks_exact_mut(3 * side * side);
    let rows = values.par_chunks_exact_mut(FACTORS.len());
    images.zip(rows).enumerate().for_each(|(i, (image, row))| {
        let factors = Factors::draw(first.wrapping_add(i as u64));
        row.copy_from_slice(&factors.known);
        Face::new(&factors).draw(side, image);
    });
    let has = |factors: &[f32], i: usize| u32::from(factors[i] > -1.0);
    let label = |factors: &[f32]| has(factors, factors::GLASSES) + 2 * has(factors, factors::BEARD);
    let labels = values.chunks_exact(FACTORS.len()).map(label).collect();
    let captions = Some(captions(first, count));
    Images { labels: Some(labels), factors: Some(values), captions, ..Images::new(3, side, pixels) }
}

/// Captions of faces `first..first + count`, written from their factors; nothing is drawn.
pub fn captions(first: u64, count: usize) -> Vec<String> {
    let caption = |i: usize| captions::caption(&Factors::draw(first.wrapping_add(i as u64)).known);
    (0..count).into_par_iter().map(caption).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    const SIDE: usize = 24;

    fn draw(factors: &Factors) -> Vec<f64> {
        let mut image = vec![0; 3 * SIDE * SIDE];
        Face::new(factors).draw(SIDE, &mut image);
        image.into_iter().map(f64::from).collect()
    }

    #[test]
    fn the_same_bytes_whatever_the_threads_and_the_range() {
        let with_threads = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| faces(SIDE, 100, 50))
        };
        let images = with_threads(1);
        assert_eq!(images, with_threads(4));
        assert_eq!(faces(SIDE, 130, 5), images.slice(30..35));
        assert_ne!(images.image(0), images.image(1));
        // No index is too large, and the upper half of its bits counts.
        let far = faces(SIDE, u64::MAX - 1, 1);
        assert_ne!(far, faces(SIDE, u64::from(u32::MAX) - 1, 1));
    }

    #[test]
    fn labels_tell_glasses_and_beards_apart() {
        let images = faces(8, 0, 400);
        let labels = images.labels.as_deref().unwrap();
        let place = |name: &str| FACTORS.iter().position(|factor| *factor == name).unwrap();
        for (i, &label) in labels.iter().enumerate() {
            let has = |name| images.factors(i)[place(name)] > -1.0;
            assert_eq!((label & 1 == 1, label & 2 == 2), (has("glasses"), has("beard")));
        }
        for class in 0..4 {
            let share = labels.iter().filter(|label| **label == class).count() as f64 / labels.len() as f64;
            assert!((share - 0.25).abs() < 0.08, "{class}: {share}");
        }
    }

    /// Pinned: records of other machines hold for these very faces. A change here is a new dataset.
    #[test]
    fn the_same_bytes_on_every_machine() {
        let digest: String =
            Sha256::digest(&faces(SIDE, 0, 200).pixels)[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "5e7f6acdcfbaa165");
    }

    #[test]
    fn a_face_is_the_same_at_every_side() {
        let (small, large) = (faces(16, 0, 20), faces(64, 0, 20));
        assert_eq!(small.factors, large.factors);
        for i in 0..20 {
            // Means of 4 x 4 pixels of the large face.
            let mut shrunk = [0.0; 3 * 16 * 16];
            for (at, &v) in large.image(i).iter().enumerate() {
                let (row, x) = (at / 64, at % 64);
                shrunk[row / 4 * 16 + x / 4] += f64::from(v) / 16.0;
            }
            let errors = small.image(i).iter().zip(shrunk).map(|(&a, b)| (f64::from(a) - b).abs());
            let mean = errors.sum::<f64>() / 768.0;
            assert!(mean < 6.0, "face {i}: {mean}");
        }
    }

    #[test]
    fn a_mirrored_face_is_the_face_of_the_mirrored_factors() {
        for index in 0..50 {
            let factors = Factors::draw(index);
            let (plain, mirrored) = (draw(&factors), draw(&factors.mirrored()));
            for (row, other) in plain.chunks(SIDE).zip(mirrored.chunks(SIDE)) {
                assert!(row.iter().zip(other.iter().rev()).all(|(a, b)| (a - b).abs() <= 1.0), "face {index}");
            }
            assert!(plain != mirrored, "face {index}");
        }
    }

    #[test]
    fn factors_are_spread_over_their_range() {
        let n = 4000;
        let images = faces(8, 0, n);
        for (f, name) in FACTORS.iter().enumerate() {
            let values: Vec<f32> = (0..n).map(|i| images.factors(i)[f]).collect();
            assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)), "{name}");
            let absent = values.iter().filter(|&&v| v == -1.0).count();
            let share = if ["glasses", "beard"].contains(name) { n / 2 } else { 0 };
            assert!(absent.abs_diff(share) < 130, "{name}: {absent} absent");
            // The others fill ten bins evenly.
            let mut bins = [0; 10];
            values.iter().filter(|&&v| v > -1.0).for_each(|v| bins[((v + 1.0) * 4.9999) as usize] += 1);
            let expected = (n - share) as f64 / 10.0;
            assert!(bins.iter().all(|&b| (f64::from(b) - expected).abs() < 5.0 * expected.sqrt()), "{name}: {bins:?}");
        }
    }

    /// How well 24 x 24 pixels determine a factor: the change that it makes and that no combination of the other
    /// factors, known or free, can make. Under noise of 4 grey levels its best estimate has a standard deviation of
    /// `4 / |change per unit|`, here below a fortieth of the factor's range of 2.
    #[test]
    fn every_known_factor_can_be_read_off_the_pixels() {
        let step = 0.1;
        let mut deviations = vec![Vec::new(); FACTORS.len()];
        for index in 0..20 {
            let factors = Factors::draw(index);
            let moved = |i: usize, by: f32| {
                let mut f = factors.clone();
                match i.checked_sub(FACTORS.len()) {
                    None => f.known[i] += by,
                    Some(i) => f.free[i] += by,
                }
                draw(&f)
            };
            let change = |i| -> Vec<f64> {
                let (up, down) = (moved(i, step), moved(i, -step));
                up.iter().zip(&down).map(|(u, d)| (u - d) / f64::from(2.0 * step)).collect()
            };
            let all: Vec<Vec<f64>> = (0..FACTORS.len() + factors.free.len()).map(change).collect();
            for f in 0..FACTORS.len() {
                let others = all.iter().enumerate().filter(|(i, _)| *i != f).map(|(_, change)| change);
                deviations[f].push(4.0 / distance_to_span(&all[f], others));
            }
        }
        for (name, of_faces) in FACTORS.iter().zip(&mut deviations) {
            of_faces.sort_by(f64::total_cmp);
            let median = of_faces[of_faces.len() / 2];
            assert!(median < 0.05, "{name}: {median}");
        }
    }

    /// Length of what is left of `vector` when everything in the span of `others` is taken out (Gram-Schmidt).
    fn distance_to_span<'a>(vector: &[f64], others: impl Iterator<Item = &'a Vec<f64>>) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let without = |v: &[f64], basis: &[Vec<f64>]| {
            basis.iter().fold(v.to_vec(), |mut rest, unit| {
                let along = dot(&rest, unit);
                rest.iter_mut().zip(unit).for_each(|(r, u)| *r -= along * u);
                rest
            })
        };
        for other in others {
            let rest = without(other, &basis);
            let length = dot(&rest, &rest).sqrt();
            if length > 1e-6 {
                basis.push(rest.iter().map(|v| v / length).collect());
            }
        }
        let rest = without(vector, &basis);
        dot(&rest, &rest).sqrt()
    }
}
