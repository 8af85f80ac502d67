//! Squared distances between rows of features: bounds for all pairs at the speed of a matrix product, exact where one
//! asks.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use crate::FeatureError;
use crate::gaussian::{finite, whole_rows};

/// Rows of a tile: what lies between two tiles is all that is ever held of the distances.
const TILE: usize = 512;

/// Features `[n, dimensions]`, finite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Points<'a> {
    values: &'a [f32],
    dimensions: usize,
}

/// Some rows less a centre, with their lengths.
pub(crate) struct Tile {
    start: usize,
    values: Vec<f32>,
    lengths: Vec<f64>,
}

impl<'a> Points<'a> {
    pub(crate) fn new(values: &'a [f32], dimensions: usize) -> Result<Self, FeatureError> {
        whole_rows(values.len(), dimensions)?;
        finite("feature", values.iter().map(|&v| f64::from(v)), dimensions)?;
        Ok(Self { values, dimensions })
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.dimensions
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.dimensions..][..self.dimensions]
    }

    /// The squared distance of row `i` to row `j` of `other`, summed in `f64` in one order: the same bits either way
    /// round, and 0 for equal rows.
    pub(crate) fn squared_distance(&self, i: usize, other: &Points<'_>, j: usize) -> f64 {
        const LANES: usize = 8;
        let (a, b) = (self.row(i).as_chunks::<LANES>(), other.row(j).as_chunks::<LANES>());
        let square = |a: f32, b: f32| (f64::from(a) - f64::from(b)).powi(2);
        let mut sums = [0.0; LANES];
        for (a, b) in a.0.iter().zip(b.0) {
            for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *sum += square(a, b);
            }
        }
        let rest: f64 = a.1.iter().zip(b.1).map(|(&a, &b)| square(a, b)).sum();
        sums.iter().sum::<f64>() + rest
    }

    /// The mean row. Distances do not change when it is taken off, but their rounding does.
    pub(crate) fn centre(&self) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.dimensions];
        for row in self.values.chunks_exact(self.dimensions) {
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
        }
        sums.iter().map(|sum| (sum / self.len() as f64) as f32).collect()
    }

    /// The rows of every tile.
    pub(crate) fn tiles(&self) -> Vec<Range<usize>> {
        (0..self.len()).step_by(TILE).map(|start| start..self.len().min(start + TILE)).collect()
    }

    pub(crate) fn tile(&self, rows: Range<usize>, centre: &[f32]) -> Tile {
        let centred = |i| self.row(i).iter().zip(centre).map(|(&v, &c)| (f64::from(v) - f64::from(c)) as f32);
        let values: Vec<f32> = rows.clone().flat_map(centred).collect();
        let squares = |row: &[f32]| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let lengths = values.chunks_exact(self.dimensions).map(|row| squares(row).sqrt()).collect();
        Tile { start: rows.start, values, lengths }
    }
}

impl Tile {
    /// Calls `visit(i, j, low, high)` for every row `i` of `self` and `j` of `other`, in order, with bounds of their squared
    /// distance; both tiles are less the same centre.
    ///
    /// In `f32`, with unit roundoff `u`, lengths `x`, `y` and `D` features: the product of two rows is off by at most
    /// `D u x y` (to first order in `D u`, in whatever order it is summed), and taking off the centre moves a distance by
    /// at most `u (x + y)`. `|x|^2 + |y|^2 - 2 x.y` is then off by less than `(D / 2 + 4) u (x + y)^2`; twice that is
    /// allowed, and what falls below the smallest `f32`. Where a product overflows, nothing is known.
    pub(crate) fn visit_bounds(&self, other: &Tile, mut visit: impl FnMut(usize, usize, f64, f64)) {
        let (rows, columns) = (self.lengths.len(), other.lengths.len());
        let dimensions = self.values.len() / rows;
        let ours = MatRef::from_row_major_slice(&self.values, rows, dimensions);
        let theirs = MatRef::from_row_major_slice(&other.values, columns, dimensions);
        let mut products = Mat::<f32>::zeros(columns, rows);
        matmul(products.as_mut(), Accum::Replace, theirs, ours.transpose(), 1.0, Par::Seq);
        let share = (dimensions as f64 + 8.0) * 0.5 * f64::from(f32::EPSILON);
        let least = dimensions as f64 * f64::from(f32::MIN_POSITIVE);
        for (i, &x) in self.lengths.iter().enumerate() {
            for (j, (&y, &product)) in other.lengths.iter().zip(products.col_as_slice(i)).enumerate() {
                let about = x * x + y * y - 2.0 * f64::from(product);
                let slack = share * (x + y) * (x + y) + least;
                let (low, high) =
                    if about.is_finite() { (about - slack, about + slack) } else { (f64::NEG_INFINITY, f64::INFINITY) };
                visit(self.start + i, other.start + j, low, high);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use random::{Draws, Stream};

    use super::*;

    /// Offsets, scales and extremes that rounding suffers from: the exact distance lies between the bounds.
    #[test]
    fn the_bounds_hold() {
        let (n, d) = (70, 33);
        for (offset, scale) in [(0.0, 1.0), (1e3, 1e-2), (-5.0, 1e4), (0.0, 1e-22), (0.0, 1e19), (3e30, 1e26)] {
            let mut values = vec![0.0; n * d];
            Draws::new(3, Stream::Factors, 0).fill_normal(0, &mut values);
            values.iter_mut().for_each(|v| *v = offset + scale * *v);
            values.copy_within(0..d, d);
            let points = Points::new(&values, d).unwrap();
            for centre in [points.centre(), vec![0.0; d]] {
                let tile = |rows| points.tile(rows, &centre);
                let mut pairs = 0;
                tile(0..40).visit_bounds(&tile(10..n), |i, j, low, high| {
                    let exact = points.squared_distance(i, &points, j);
                    assert!(low <= exact && exact <= high, "{offset} {scale}: {low} {exact} {high} at {i}, {j}");
                    assert_eq!(exact.to_bits(), points.squared_distance(j, &points, i).to_bits());
                    pairs += 1;
                });
                assert_eq!(pairs, 40 * (n - 10));
            }
            assert_eq!(points.squared_distance(0, &points, 1), 0.0);
        }
    }

    /// What the bounds are for: they tell nearly all distances from a threshold.
    #[test]
    fn the_bounds_are_narrow() {
        let (n, d) = (50, 2048);
        let mut values = vec![0.0; n * d];
        Draws::new(4, Stream::Factors, 0).fill_normal(0, &mut values);
        values.iter_mut().for_each(|v| *v += 10.0);
        let points = Points::new(&values, d).unwrap();
        let tile = points.tile(0..n, &points.centre());
        tile.visit_bounds(&tile, |i, j, low, high| {
            assert!(i == j || high - low < 4e-3 * points.squared_distance(i, &points, j), "{i} {j}: {low} {high}");
        });
    }
}
