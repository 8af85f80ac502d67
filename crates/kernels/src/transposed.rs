//! The trunk's linear weights transposed, so that a forward product `x W^T` reads them along their rows.
//!
//! Made again only when the weights have changed: once per run where they are frozen, once per step where they learn
//! (a share of `1 / tokens` of the products' work).

use std::ops::Range;

use rayon::prelude::*;

use crate::parameters::{Offsets, Parameters};
use crate::shape::Shape;

/// Side of the squares in which a matrix is transposed.
const SQUARE: usize = 16;

/// Where the transposed weights of one block lie, in units of `D^2`: `qkv`, `proj`, `fc1`, `fc2`.
const PLACES: [Range<usize>; 4] = [0..3, 3..4, 4..8, 8..12];

/// `W^T` of the patch embedding `[C P P, D]`, of every block's four layers, and of the final layer `[D, P P O]`.
pub(crate) struct Transposed {
    version: Option<u64>,
    embed: Vec<f32>,
    blocks: Vec<f32>,
    last: Vec<f32>,
}

/// One block's transposed weights.
#[derive(Clone, Copy)]
pub(crate) struct BlockTransposed<'a> {
    /// `[D, 3 D]`
    pub(crate) qkv: &'a [f32],
    /// `[D, D]`
    pub(crate) proj: &'a [f32],
    /// `[D, 4 D]`
    pub(crate) fc1: &'a [f32],
    /// `[4 D, D]`
    pub(crate) fc2: &'a [f32],
}

/// `out [columns, rows] = matrix [rows, columns]^T`.
fn transpose(matrix: &[f32], columns: usize, out: &mut [f32]) {
    let rows = matrix.len() / columns;
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for j in left..columns.min(left + SQUARE) {
                for i in top..rows.min(top + SQUARE) {
                    out[j * rows + i] = matrix[i * columns + j];
                }
            }
        }
    }
}

impl Transposed {
    /// Room for the weights of `shape`.
    pub(crate) fn new(shape: &Shape) -> Self {
        let d = shape.hidden;
        Self {
            version: None,
            embed: vec![0.0; shape.patch_in() * d],
            blocks: vec![0.0; shape.depth * 12 * d * d],
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

    pub(crate) fn block(&self, level: usize, d: usize) -> BlockTransposed<'_> {
        let all = &self.blocks[level * 12 * d * d..(level + 1) * 12 * d * d];
        let [qkv, proj, fc1, fc2] = PLACES.map(|place| &all[place.start * d * d..place.end * d * d]);
        BlockTransposed { qkv, proj, fc1, fc2 }
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

    #[test]
    fn weights_are_transposed_again_when_they_change() {
        let mut parameters = Parameters::zeros(SHAPE).unwrap();
        let mut transposed = Transposed::new(&SHAPE);
        transposed.update(&parameters);
        for (i, value) in parameters.values_mut().iter_mut().enumerate() {
            *value = i as f32;
        }
        transposed.update(&parameters);
        let d = SHAPE.hidden;
        let (ours, theirs) = (transposed.block(1, d), parameters.block(1));
        for (ours, theirs, columns) in [
            (ours.qkv, theirs.qkv, d),
            (ours.proj, theirs.proj, d),
            (ours.fc1, theirs.fc1, d),
            (ours.fc2, theirs.fc2, 4 * d),
            (transposed.last(), parameters.tensor("final_layer.linear.weight").unwrap(), d),
            (transposed.embed(), parameters.tensor("x_embedder.proj.weight").unwrap(), SHAPE.patch_in()),
        ] {
            let rows = theirs.len() / columns;
            assert!((0..theirs.len()).all(|at| ours[at % columns * rows + at / columns] == theirs[at]));
        }
    }
}
