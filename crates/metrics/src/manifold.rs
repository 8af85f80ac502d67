//! Improved precision and recall (Kynkaanniemi et al. 2019).
//!
//! The manifold of a set of features is the union of a ball around each of them, which reaches to its `k`-th neighbour
//! in the set. Precision is the share of generated features inside the manifold of the reference, recall the share of
//! reference features inside the manifold of the generated.

use rayon::prelude::*;

use crate::FeatureError;
use crate::points::Points;

/// Features and the radius around each of them.
#[derive(Clone, Debug)]
pub struct Manifold<'a> {
    points: Points<'a>,
    squared_radii: Vec<f64>,
}

impl<'a> Manifold<'a> {
    /// Of row-major `features` `[n, dimensions]`; the radii reach to the `neighbours`-th nearest of the other rows (the
    /// published figures': 3).
    ///
    /// All pairs are compared in tiles, by bounds in `f32`, and summed in `f64` only where those do not tell: the radii
    /// are those of `f64`, whatever the number of threads. Memory beside the features: some MiB a thread.
    ///
    /// # Errors
    /// The values make no whole rows, are not finite, or are no more rows than `neighbours`; `neighbours` is 0.
    pub fn new(features: &'a [f32], dimensions: usize, neighbours: usize) -> Result<Self, FeatureError> {
        let points = Points::new(features, dimensions)?;
        let samples = points.len();
        if neighbours == 0 || neighbours >= samples {
            return Err(FeatureError::Neighbours { samples, neighbours });
        }
        let centre = points.centre();
        let radii_of = |rows: std::ops::Range<usize>| {
            let ours = points.tile(rows.clone(), &centre);
            let mut nearest = vec![Nearest::new(neighbours); rows.len()];
            for others in points.tiles() {
                ours.visit_bounds(&points.tile(others, &centre), |i, j, low, _| {
                    let nearest = &mut nearest[i - rows.start];
                    if i != j && low <= nearest.radius() && nearest.radius() > 0.0 {
                        nearest.insert(points.squared_distance(i, &points, j));
                    }
                });
            }
            nearest.into_iter().map(|nearest| nearest.radius()).collect::<Vec<f64>>()
        };
        let squared_radii = points.tiles().into_par_iter().flat_map_iter(radii_of).collect();
        Ok(Self { points, squared_radii })
    }

    /// Squares of the radii, `[n]`.
    pub fn squared_radii(&self) -> &[f64] {
        &self.squared_radii
    }
}

/// The smallest distances seen, rising.
#[derive(Clone)]
struct Nearest {
    distances: Vec<f64>,
}

impl Nearest {
    fn new(count: usize) -> Self {
        Self { distances: vec![f64::INFINITY; count] }
    }

    /// The largest of them.
    fn radius(&self) -> f64 {
        self.distances[self.distances.len() - 1]
    }

    fn insert(&mut self, distance: f64) {
        let place = self.distances.partition_point(|&d| d <= distance);
        if place < self.distances.len() {
            self.distances[place..].rotate_right(1);
            self.distances[place] = distance;
        }
    }
}

/// Which features lie inside the other set's manifold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// For each generated feature, whether it lies inside any ball of the reference.
    pub generated: Vec<bool>,
    /// For each reference feature, whether it lies inside any ball of the generated.
    pub reference: Vec<bool>,
}

impl Coverage {
    /// Compares all pairs of two sets; a point at a ball's very radius is inside. As exact as [`Manifold::new`].
    ///
    /// # Errors
    /// The sets have features of different dimensions.
    pub fn of(reference: &Manifold<'_>, generated: &Manifold<'_>) -> Result<Self, FeatureError> {
        let (real, made) = (reference.points, generated.points);
        let (ours, theirs) = (real.dimensions(), made.dimensions());
        if ours != theirs {
            return Err(FeatureError::Dimensions { ours, theirs });
        }
        let centre = real.centre();
        let of_tile = |rows: std::ops::Range<usize>| {
            let tile = made.tile(rows.clone(), &centre);
            let (mut inside, mut covered) = (vec![false; rows.len()], vec![false; real.len()]);
            for others in real.tiles() {
                tile.visit_bounds(&real.tile(others, &centre), |i, j, low, high| {
                    let (inside, covered) = (&mut inside[i - rows.start], &mut covered[j]);
                    let (around_real, around_made) = (reference.squared_radii[j], generated.squared_radii[i]);
                    let unsure = |radius: f64| low <= radius && radius < high;
                    if (!*inside && unsure(around_real)) || (!*covered && unsure(around_made)) {
                        let exact = made.squared_distance(i, &real, j);
                        *inside |= exact <= around_real;
                        *covered |= exact <= around_made;
                    } else {
                        *inside |= high <= around_real;
                        *covered |= high <= around_made;
                    }
                });
            }
            (inside, covered)
        };
        let parts: Vec<_> = made.tiles().into_par_iter().map(of_tile).collect();
        let mut coverage = Self { generated: Vec::with_capacity(made.len()), reference: vec![false; real.len()] };
        for (inside, covered) in parts {
            coverage.generated.extend(inside);
            coverage.reference.iter_mut().zip(covered).for_each(|(all, one)| *all |= one);
        }
        Ok(coverage)
    }

    /// Share of the generated features that look real, in [0, 1]; higher is better.
    pub fn precision(&self) -> f64 {
        share(&self.generated)
    }

    /// Share of the real features that are generated, in [0, 1]; higher is better.
    pub fn recall(&self) -> f64 {
        share(&self.reference)
    }
}

fn share(inside: &[bool]) -> f64 {
    inside.iter().filter(|&&inside| inside).count() as f64 / inside.len() as f64
}

#[cfg(test)]
mod tests {
    use random::{Draws, Stream};

    use super::*;

    fn normals(step: u64, n: usize, d: usize, scale: f32, shift: f32) -> Vec<f32> {
        let mut values = vec![0.0; n * d];
        Draws::new(6, Stream::Factors, step).fill_normal(0, &mut values);
        values.iter_mut().for_each(|v| *v = scale * *v + shift);
        values
    }

    fn squared(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
    }

    const NEIGHBOURS: usize = 3;

    /// The definition: sort all distances, compare all pairs. Sizes across the limit of a tile; features far from 0,
    /// where products alone would tell nothing.
    #[test]
    fn counts_are_those_of_the_definition() {
        for (n, m, d, shift) in [(700, 530, 5, 0.0), (40, 600, 3, 1000.0), (513, 20, 17, -30.0)] {
            let (real, made) = (normals(0, n, d, 1.0, shift), normals(1, m, d, 0.8, shift + 0.2));
            let reference = Manifold::new(&real, d, NEIGHBOURS).unwrap();
            let generated = Manifold::new(&made, d, NEIGHBOURS).unwrap();
            let radii = |values: &[f32]| -> Vec<f64> {
                let radius = |a: &[f32]| {
                    let mut all: Vec<f64> = values.chunks(d).map(|b| squared(a, b)).collect();
                    all.sort_by(f64::total_cmp);
                    all[NEIGHBOURS]
                };
                values.chunks(d).map(radius).collect()
            };
            for (values, manifold) in [(&real, &reference), (&made, &generated)] {
                let apart = radii(values).into_iter().zip(manifold.squared_radii()).map(|(a, b)| (a / b - 1.0).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-12);
            }
            let coverage = Coverage::of(&reference, &generated).unwrap();
            let inside = |point: &[f32], values: &[f32], manifold: &Manifold<'_>| {
                values.chunks(d).zip(manifold.squared_radii()).any(|(other, &radius)| squared(point, other) <= radius)
            };
            let expected = |points: &[f32], values: &[f32], manifold: &Manifold<'_>| -> Vec<bool> {
                points.chunks(d).map(|point| inside(point, values, manifold)).collect()
            };
            assert_eq!(coverage.generated, expected(&made, &real, &reference));
            assert_eq!(coverage.reference, expected(&real, &made, &generated));
            let both = coverage.precision() + coverage.recall();
            assert!((0.2..1.99).contains(&both), "{n} x {m}: {both}");
        }
    }

    /// On a grid all is a tie: neighbours at distance 1, and points at the very radius are inside.
    #[test]
    fn ties_are_inside() {
        let line: Vec<f32> = (0..10).map(|i| 1000.0 + i as f32).collect();
        let reference = Manifold::new(&line, 1, 2).unwrap();
        assert_eq!(reference.squared_radii(), [4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 4.0]);
        let made = [998.0, 997.9, 1011.0, 1020.0, 1022.0];
        let generated = Manifold::new(&made, 1, 1).unwrap();
        let coverage = Coverage::of(&reference, &generated).unwrap();
        assert_eq!(coverage.generated, [true, false, true, false, false]);
        assert_eq!((coverage.precision(), coverage.recall()), (0.4, 0.8), "1002 to 1009, from 1011 at radius 9");
    }

    #[test]
    fn identical_points_have_no_extent_and_cover_each_other() {
        let same = vec![0.1_f32; 600 * 7];
        let manifold = Manifold::new(&same, 7, 3).unwrap();
        assert!(manifold.squared_radii().iter().all(|&radius| radius == 0.0));
        let coverage = Coverage::of(&manifold, &Manifold::new(&same[..7 * 9], 7, 3).unwrap()).unwrap();
        assert_eq!((coverage.precision(), coverage.recall()), (1.0, 1.0));
        let other = vec![0.100_000_01_f32; 4 * 7];
        let coverage = Coverage::of(&manifold, &Manifold::new(&other, 7, 3).unwrap()).unwrap();
        assert_eq!((coverage.precision(), coverage.recall()), (0.0, 0.0), "one bit away");
        let four = Manifold::new(&[1.0, 1.0, 1.0, 5.0], 1, 3).unwrap();
        assert_eq!(four.squared_radii(), [16.0; 4]);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (real, made) = (normals(2, 1100, 24, 1.0, 0.5), normals(3, 900, 24, 0.9, 0.5));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let reference = Manifold::new(&real, 24, 3).unwrap();
                let radii: Vec<u64> = reference.squared_radii().iter().map(|r| r.to_bits()).collect();
                (radii, Coverage::of(&reference, &Manifold::new(&made, 24, 3).unwrap()).unwrap())
            })
        };
        let one = on(1);
        assert_eq!(one, on(2));
        assert_eq!(one, on(5));
    }

    #[test]
    fn unusable_features_are_refused() {
        let error = |values: &[f32], d, k| Manifold::new(values, d, k).unwrap_err();
        for (n, k) in [(1, 3), (3, 3), (0, 3), (5, 0)] {
            assert_eq!(error(&vec![0.5; n], 1, k), FeatureError::Neighbours { samples: n, neighbours: k });
        }
        let text = error(&[0.5; 3], 1, 3).to_string();
        assert!(text.contains("3 samples") && text.contains("more samples than neighbours"), "{text}");
        assert!(Manifold::new(&[0.5; 4], 1, 3).is_ok());
        assert_eq!(error(&[0.5; 7], 2, 1), FeatureError::Ragged { values: 7, dimensions: 2 });
        assert_eq!(error(&[0.5; 7], 0, 1), FeatureError::Ragged { values: 7, dimensions: 0 });
        assert!(matches!(error(&[0.5, f32::NAN, 0.1, 0.2], 2, 1), FeatureError::NotFinite { row: 0, column: 1, .. }));
        let (two, three) = ([0.5; 12], [0.5; 12]);
        let sets = (Manifold::new(&two, 2, 3).unwrap(), Manifold::new(&three, 3, 3).unwrap());
        let refused = Coverage::of(&sets.0, &sets.1).unwrap_err();
        assert_eq!(refused, FeatureError::Dimensions { ours: 2, theirs: 3 });
    }
}
