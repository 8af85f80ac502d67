//! What the trunk is conditioned on: timestep and label embeddings, and every block's modulation made from their sum.
//!
//! `t_emb = W2 silu(W0 features(t) + b0) + b2`, `c = t_emb + table[label]`, `modulations = A silu(c) + a` for all blocks
//! at once. Samples that share timestep and label share a row, so that sampling computes each row once per step.

use pulp::Simd;
use rayon::prelude::*;

use crate::matrix::{Matrix, MatrixMut, add_product, linear, product};
use crate::parameters::{Offsets, Parameters};
use crate::shape::Shape;
use crate::vector::{Kernel, add, sigmoid, vectorize};

/// The library sums the product of a single row in another order: rows are padded to as many, so that a row's bits do not
/// depend on how many are computed together.
const LEAST_ROWS: usize = 2;

/// Samples of one task of the backward pass.
const BACKWARD_ROWS: usize = 4;

/// Embeddings and modulations of `R` rows, over buffers that are kept between steps.
#[derive(Clone, Debug)]
pub struct Condition {
    shape: Shape,
    rows: usize,
    padded: usize,
    labels: Vec<u32>,
    frequencies: Vec<f32>,
    features: Vec<f32>,
    hidden: Vec<f32>,
    hidden_active: Vec<f32>,
    t_emb: Vec<f32>,
    label: Vec<f32>,
    c: Vec<f32>,
    active: Vec<f32>,
    /// Block after block `[padded, 6 D]`, then the final layer's `[padded, 2 D]`.
    modulations: Vec<f32>,
}

/// Gradients that reach the embeddings from outside the trunk (a gate that reads them), each `[R, D]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutsideGradients<'a> {
    /// Of the timestep embedding.
    pub t_emb: Option<&'a [f32]>,
    /// Of the label embedding.
    pub label: Option<&'a [f32]>,
}

/// The one exponent (number 12 of 128) whose exponential the reference rounds up in single precision, where the nearest number lies
/// below (by 0.48 of the last bit); at `t = 999` that bit moves the network's output by 1e-5. Networks were trained with it.
const ROUNDED_UP: f32 = -0.863_469_4;

/// Sinusoidal features of a timestep: 128 cosines, then 128 sines, of `t e^(-ln(10000) i / 128)`; an odd last one is 0.
///
/// Frequencies and angles are rounded to `f32` as the reference rounds them.
pub fn timestep_features(t: f32, features: &mut [f32]) {
    waves(t, &timestep_frequencies(features.len() / 2), features);
}

/// The frequencies `10000^(-i / half)` as the reference's `f32` arithmetic has them: the exponent is rounded after each
/// operation, for a frequency that is one bit off moves `cos(999 f)` by up to 6e-5.
pub fn timestep_frequencies(half: usize) -> Vec<f32> {
    let frequency = |i: usize| {
        let exponent = -(10_000_f64.ln() as f32) * i as f32 / half as f32;
        let nearest = f64::from(exponent).exp() as f32;
        if exponent == ROUNDED_UP { nearest.next_up() } else { nearest }
    };
    (0..half).map(frequency).collect()
}

/// Cosines and sines of `t` times each frequency.
fn waves(t: f32, frequencies: &[f32], features: &mut [f32]) {
    let half = frequencies.len();
    for (i, frequency) in frequencies.iter().enumerate() {
        let (sin, cos) = f64::from(t * frequency).sin_cos();
        (features[i], features[half + i]) = (cos as f32, sin as f32);
    }
    features[2 * half..].fill(0.0);
}

/// `out [rows, outputs] = x [rows, inputs] W^T + bias`.
fn layer(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], rows: usize) {
    let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
    let x = Matrix::new(x, rows, inputs);
    linear(MatrixMut::new(out, rows, outputs), x, Matrix::new(weight, outputs, inputs).t(), bias);
}

/// `d_weight = dy^T x`, `d_bias = column sums of dy`.
fn linear_backward(dy: &[f32], x: &[f32], rows: usize, d_weight: &mut [f32], d_bias: &mut [f32]) {
    let (outputs, inputs) = (d_bias.len(), d_weight.len() / d_bias.len());
    let into = MatrixMut::new(d_weight, outputs, inputs);
    product(into, Matrix::new(dy, rows, outputs).t(), Matrix::new(x, rows, inputs));
    d_bias.fill(0.0);
    for row in dy[..rows * outputs].chunks_exact(outputs) {
        add(d_bias, row);
    }
}

/// `out = x sigmoid(x)`.
struct Silu<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Silu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (x, out) in self.x.iter().zip(self.out) {
            *out = x * sigmoid(*x);
        }
    }
}

/// `dy = dy silu'(x)` in place.
struct SiluBackward<'a> {
    x: &'a [f32],
    dy: &'a mut [f32],
}

impl Kernel for SiluBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (x, dy) in self.x.iter().zip(self.dy) {
            let s = sigmoid(*x);
            *dy *= s * (1.0 + x * (1.0 - s));
        }
    }
}

impl Condition {
    /// Buffers for `rows` rows.
    ///
    /// # Panics
    /// If `rows` is 0.
    pub fn new(shape: Shape, rows: usize) -> Self {
        assert!(rows > 0, "a condition has at least one row");
        let padded = rows.max(LEAST_ROWS);
        let wide = || vec![0.0; padded * shape.hidden];
        Self {
            shape,
            rows,
            padded,
            labels: vec![0; rows],
            frequencies: timestep_frequencies(Shape::TIMESTEP_FEATURES / 2),
            features: vec![0.0; padded * Shape::TIMESTEP_FEATURES],
            hidden: wide(),
            hidden_active: wide(),
            t_emb: wide(),
            label: wide(),
            c: wide(),
            active: wide(),
            modulations: vec![0.0; padded * shape.modulations()],
        }
    }

    /// Computes everything from timesteps (on the scale 0..1000 of training) and label indices, both `[R]`.
    ///
    /// # Panics
    /// If a length is not `R`, a label lies outside the table, or the weights are those of another shape.
    pub fn compute(&mut self, parameters: &Parameters, t: &[f32], labels: &[u32]) {
        assert_eq!(parameters.shape(), &self.shape, "the weights of another network");
        assert_eq!((t.len(), labels.len()), (self.rows, self.rows), "timesteps and labels of every row");
        let (d, rows) = (self.shape.hidden, self.padded);
        let (at, values) = (Offsets::new(&self.shape), parameters.values());
        let (features, frequencies) = (self.features.par_chunks_mut(Shape::TIMESTEP_FEATURES), &self.frequencies);
        t.par_iter().zip(features).for_each(|(t, features)| waves(*t, frequencies, features));
        let weights = (&values[at.time0.clone()], &values[at.time0_bias.clone()]);
        layer(&mut self.hidden, &self.features, weights.0, weights.1, rows);
        vectorize(Silu { x: &self.hidden, out: &mut self.hidden_active });
        let weights = (&values[at.time2.clone()], &values[at.time2_bias.clone()]);
        layer(&mut self.t_emb, &self.hidden_active, weights.0, weights.1, rows);

        self.labels.copy_from_slice(labels);
        let table = &values[at.label.clone()];
        for (label, row) in labels.iter().zip(self.label.chunks_exact_mut(d)) {
            let label = *label as usize;
            assert!(label < self.shape.label_rows, "label {label} of {} rows", self.shape.label_rows);
            row.copy_from_slice(&table[label * d..(label + 1) * d]);
        }
        for ((c, t_emb), label) in self.c.iter_mut().zip(&self.t_emb).zip(&self.label) {
            *c = t_emb + label;
        }
        vectorize(Silu { x: &self.c, out: &mut self.active });

        let weights = values[at.adaln.clone()].par_chunks(6 * d * d);
        let biases = values[at.adaln_bias.clone()].par_chunks(6 * d);
        let active = &self.active;
        let pieces = self.modulations.par_chunks_mut(rows * 6 * d);
        pieces.zip(weights).zip(biases).with_max_len(1).for_each(|((out, weight), bias)| {
            layer(out, active, weight, bias, rows);
        });
    }

    /// The network that it conditions.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The number of rows `R`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Timestep embeddings `[R, D]`.
    pub fn t_emb(&self) -> &[f32] {
        &self.t_emb[..self.rows * self.shape.hidden]
    }

    /// Label embeddings `[R, D]`.
    pub fn label(&self) -> &[f32] {
        &self.label[..self.rows * self.shape.hidden]
    }

    /// `c = t_emb + label`, `[R, D]`.
    pub fn c(&self) -> &[f32] {
        &self.c[..self.rows * self.shape.hidden]
    }

    /// Shift, scale and gate of the attention branch, then of the MLP branch, each `D` wide; at `level == L` the final
    /// layer's shift and scale.
    #[inline(always)]
    pub(crate) fn modulation(&self, level: usize, row: usize) -> &[f32] {
        let d = self.shape.hidden;
        let width = if level == self.shape.depth { 2 * d } else { 6 * d };
        &self.modulations[level * self.padded * 6 * d + row * width..][..width]
    }

    /// Gradients of everything that [`Condition::compute`] used, written into `gradient`: adaLN of all blocks, both
    /// embedders. `d_modulations` lies as the modulations do, without padding.
    pub(crate) fn backward(
        &self,
        parameters: &Parameters,
        d_modulations: &[f32],
        outside: OutsideGradients,
        gradient: &mut Parameters,
    ) {
        assert_eq!(
            (parameters.shape(), gradient.shape()),
            (&self.shape, &self.shape),
            "the weights of another network"
        );
        let (d, rows) = (self.shape.hidden, self.rows);
        let (at, values) = (Offsets::new(&self.shape), parameters.values());
        let gradient = gradient.values_mut();

        let (head, d_bias) = gradient.split_at_mut(at.adaln_bias.start);
        let d_weights = head[at.adaln.clone()].par_chunks_mut(6 * d * d);
        let d_pieces = d_modulations.par_chunks(rows * 6 * d);
        let d_biases = d_bias.par_chunks_mut(6 * d);
        d_weights.zip(d_pieces).zip(d_biases).with_max_len(1).for_each(|((d_weight, dy), d_bias)| {
            linear_backward(dy, &self.active, rows, d_weight, d_bias);
        });

        let mut d_c = vec![0.0; rows * d];
        d_c.par_chunks_mut(BACKWARD_ROWS * d).enumerate().with_max_len(1).for_each(|(chunk, d_c)| {
            let (start, count) = (chunk * BACKWARD_ROWS, d_c.len() / d);
            let weights = values[at.adaln.clone()].chunks(6 * d * d);
            for (weight, dy) in weights.zip(d_modulations.chunks(rows * 6 * d)) {
                let width = weight.len() / d;
                let dy = Matrix::new(&dy[start * width..(start + count) * width], count, width);
                add_product(MatrixMut::new(d_c, count, d), dy, Matrix::new(weight, width, d));
            }
            vectorize(SiluBackward { x: &self.c[start * d..(start + count) * d], dy: d_c });
        });

        let with = |outside: Option<&[f32]>| {
            let mut total = d_c.clone();
            if let Some(outside) = outside {
                assert_eq!(outside.len(), total.len(), "an outside gradient is [R, D]");
                add(&mut total, outside);
            }
            total
        };
        let d_label = with(outside.label);
        gradient[at.label.clone()].fill(0.0);
        for (label, dy) in self.labels.iter().zip(d_label.chunks_exact(d)) {
            let start = at.label.start + *label as usize * d;
            add(&mut gradient[start..start + d], dy);
        }

        let d_t_emb = with(outside.t_emb);
        let split = at.time2_bias.start;
        let (weights, biases) = gradient.split_at_mut(split);
        let d_bias = &mut biases[..d];
        linear_backward(&d_t_emb, &self.hidden_active, rows, &mut weights[at.time2.clone()], d_bias);
        let mut d_hidden = vec![0.0; rows * d];
        let weight = Matrix::new(&values[at.time2.clone()], d, d);
        product(MatrixMut::new(&mut d_hidden, rows, d), Matrix::new(&d_t_emb, rows, d), weight);
        vectorize(SiluBackward { x: &self.hidden[..rows * d], dy: &mut d_hidden });
        let (weights, biases) = gradient.split_at_mut(at.time0_bias.start);
        linear_backward(&d_hidden, &self.features, rows, &mut weights[at.time0.clone()], &mut biases[..d]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        let (image_size, channels, patch, hidden) = (4, 1, 2, 16);
        let s = Shape { image_size, channels, patch, hidden, depth: 2, heads: 2, label_rows: 4, out_channels: 1 };
        let mut parameters = Parameters::zeros(s).unwrap();
        for (i, value) in parameters.values_mut().iter_mut().enumerate() {
            *value = (i as f32 * 0.71).sin() * 0.2;
        }
        parameters
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let parameters = parameters();
        let t: Vec<f32> = (0..40).map(|i| i as f32 * 25.0).collect();
        let labels: Vec<u32> = (0..40).map(|i| i % 4).collect();
        let mut all = Condition::new(*parameters.shape(), 40);
        all.compute(&parameters, &t, &labels);
        for rows in [1, 2, 7, 9, 33] {
            let mut some = Condition::new(*parameters.shape(), rows);
            some.compute(&parameters, &t[..rows], &labels[..rows]);
            assert_eq!(some.c(), &all.c()[..some.c().len()]);
            for level in 0..=2 {
                assert_eq!(some.modulation(level, rows - 1), all.modulation(level, rows - 1));
            }
        }
    }

    #[test]
    #[should_panic(expected = "label 4 of 4 rows")]
    fn a_label_outside_the_table_is_refused() {
        let parameters = parameters();
        Condition::new(*parameters.shape(), 1).compute(&parameters, &[0.0], &[4]);
    }
}
