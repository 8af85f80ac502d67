//! The trunk's linear weights as the right factors of its forward products `x W^T`.
//!
//! A narrow trunk's are kept transposed, so that products read them along their rows: made again only when the weights
//! have changed, once per run where they are frozen, once per step where they learn. Of a wide trunk such a copy would
//! take as much memory as the weights: its products transpose panel by panel ([`crate::matrix`]), as often as a chunk
//! comes by.

use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use crate::matrix::Matrix;
use crate::parameters::{Offsets, Parameters};
use crate::shape::Shape;
use crate::tile;
use crate::vector::{Kernel, vectorize};

/// Most values of all blocks that are kept transposed: 4 MB.
const KEPT: usize = 1 << 20;

/// Where the transposed weights of one block lie, in units of `D^2`: `qkv`, `proj`, `fc1`, `fc2`.
const PLACES: [Range<usize>; 4] = [0..3, 3..4, 4..8, 8..12];

/// `W^T` of the patch embedding, of the four layers of every block of a narrow trunk, and of the final layer.
pub(crate) struct Transposed {
    version: Option<u64>,
    embed: Vec<f32>,
    blocks: Vec<f32>,
    last: Vec<f32>,
}

/// One block's right factors.
#[derive(Clone, Copy)]
pub(crate) struct BlockTransposed<'a> {
    /// `[D, 3 D]`
    pub(crate) qkv: Matrix<'a>,
    /// `[D, D]`
    pub(crate) proj: Matrix<'a>,
    /// `[D, 4 D]`
    pub(crate) fc1: Matrix<'a>,
    /// `[4 D, D]`
    pub(crate) fc2: Matrix<'a>,
}

/// `out = matrix^T`.
struct Transpose<'a> {
    matrix: Matrix<'a>,
    out: &'a mut [f32],
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        tile::transpose(simd, self.matrix, self.out);
    }
}

/// `out [columns, rows]` of `matrix [rows, columns]`.
fn transpose(matrix: &[f32], columns: usize, out: &mut [f32]) {
    let matrix = Matrix::new(matrix, matrix.len() / columns, columns);
    vectorize(Transpose { matrix, out });
}

impl Transposed {
    /// Room for the weights of `shape`.
    pub(crate) fn new(shape: &Shape) -> Self {
        let d = shape.hidden;
        let blocks = shape.depth * 12 * d * d;
        Self {
            version: None,
            embed: vec![0.0; shape.patch_in() * d],
            blocks: vec![0.0; if blocks <= KEPT { blocks } else { 0 }],
            last: vec![0.0; d * shape.patch_out()],
        }
    }

    /// Transposes `parameters`, unless that was the latest thing done.
    pub(crate) fn update(&mut self, parameters: &Parameters) {
        if self.version == Some(parameters.version()) {
            return;
        }
        self.version = Some(parameters.version());
        let s = parameters.shape();
        let (at, values, d) = (Offsets::new(s), parameters.values(), s.hidden);
        transpose(&values[at.embed.clone()], s.patch_in(), &mut self.embed);
        transpose(&values[at.last.clone()], d, &mut self.last);
        self.blocks.par_chunks_mut(12 * d * d).enumerate().for_each(|(level, out)| {
            let weights = parameters.block(level);
            let [qkv, proj, fc1, fc2] = PLACES;
            let part = |place: Range<usize>| place.start * d * d..place.end * d * d;
            transpose(weights.qkv, d, &mut out[part(qkv)]);
            transpose(weights.proj, d, &mut out[part(proj)]);
            transpose(weights.fc1, d, &mut out[part(fc1)]);
            transpose(weights.fc2, 4 * d, &mut out[part(fc2)]);
        });
    }

    /// `[C P P, D]`
    pub(crate) fn embed(&self) -> &[f32] {
        &self.embed
    }

    /// `[D, P P O]`
    pub(crate) fn last(&self) -> &[f32] {
        &self.last
    }

    /// Those of block `level` of `parameters`, the ones that were transposed last.
    pub(crate) fn block<'a>(&'a self, parameters: &'a Parameters, level: usize) -> BlockTransposed<'a> {
        let d = parameters.shape().hidden;
        let weights = parameters.block(level);
        let part = |kept: Range<usize>, weight: &'a [f32], columns: usize| {
            let rows = weight.len() / columns;
            match self.blocks.get(level * 12 * d * d..(level + 1) * 12 * d * d) {
                Some(block) => Matrix::new(&block[kept.start * d * d..kept.end * d * d], columns, rows),
                None => Matrix::new(weight, rows, columns).t(),
            }
        };
        let [qkv, proj, fc1, fc2] = PLACES;
        BlockTransposed {
            qkv: part(qkv, weights.qkv, d),
            proj: part(proj, weights.proj, d),
            fc1: part(fc1, weights.fc1, d),
            fc2: part(fc2, weights.fc2, 4 * d),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        [&self.embed, &self.blocks, &self.last].map(|buffer| size_of_val(&buffer[..])).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { image_size: 6, channels: 3, patch: 2, hidden: 24, depth: 2, heads: 2, label_rows: 1, out_channels: 3 };

    /// A block of this width alone is more than is kept.
    const WIDE: Shape = Shape { hidden: 300, ..SHAPE };

    #[test]
    fn factors_follow_the_weights_when_they_change() {
        for (shape, kept) in [(SHAPE, true), (WIDE, false)] {
            let mut parameters = Parameters::zeros(shape).unwrap();
            let mut transposed = Transposed::new(&shape);
            assert_eq!(transposed.blocks.is_empty(), !kept);
            transposed.update(&parameters);
            for (i, value) in parameters.values_mut().iter_mut().enumerate() {
                *value = i as f32;
            }
            transposed.update(&parameters);
            let d = shape.hidden;
            let (ours, theirs) = (transposed.block(&parameters, 1), parameters.block(1));
            let last = Matrix::new(transposed.last(), d, shape.patch_out());
            let embed = Matrix::new(transposed.embed(), shape.patch_in(), d);
            for (ours, theirs) in [
                (ours.qkv, theirs.qkv),
                (ours.proj, theirs.proj),
                (ours.fc1, theirs.fc1),
                (ours.fc2, theirs.fc2),
                (last, parameters.tensor("final_layer.linear.weight").unwrap()),
                (embed, parameters.tensor("x_embedder.proj.weight").unwrap()),
            ] {
                assert_eq!(ours.rows * ours.columns, theirs.len());
                let at = |i: usize, j: usize| ours.data[i * ours.row_stride + j * ours.column_stride];
                assert!((0..theirs.len()).all(|place| at(place % ours.rows, place / ours.rows) == theirs[place]));
            }
        }
    }
}
