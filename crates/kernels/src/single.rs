//! Each kernel on its own, with buffers of its own: for `benches/single.rs`, whose clock sees no buffer being made, as it would
//! with the functions of `oracle`, and needs no results. Not part of the interface.

use pulp::Simd;

use crate::attention::{self, Heads, SoftmaxRow};
use crate::layernorm::{self, RowStatistics};
use crate::matrix::{self, Matrix, MatrixMut};
use crate::vector::{Kernel, vectorize};
use crate::{gelu, residual};

/// Numbers within [-1, 1], all different from their neighbours.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// Attention of one sample.
pub struct Attention {
    heads: Heads,
    qkv: Vec<f32>,
    out: Vec<f32>,
    rows: Vec<SoftmaxRow>,
    d_out: Vec<f32>,
    d_qkv: Vec<f32>,
    scratch: Vec<f32>,
}

impl Attention {
    /// Of `tokens` and `heads`, each `width` wide.
    pub fn new(tokens: usize, heads: usize, width: usize) -> Self {
        let values = tokens * heads * width;
        let shape = Heads { tokens, heads, width };
        let mut made = Self {
            heads: shape,
            qkv: numbers(3 * values),
            out: vec![0.0; values],
            rows: vec![SoftmaxRow::default(); heads * tokens],
            d_out: numbers(values),
            d_qkv: vec![0.0; 3 * values],
            scratch: vec![0.0; shape.scratch()],
        };
        made.forward();
        made
    }

    /// `softmax(Q K^T / sqrt(D/H)) V`.
    pub fn forward(&mut self) {
        let Self { heads, qkv, out, rows, scratch, .. } = self;
        attention::Forward { heads: *heads, qkv, out, rows, scratch }.run();
    }

    /// Gradients of queries, keys and values.
    pub fn backward(&mut self) {
        let Self { heads, qkv, out, rows, d_out, d_qkv, scratch } = self;
        attention::Backward { heads: *heads, qkv, out, rows, d_out, d_qkv, scratch }.run();
    }

    /// Operations of one forward pass; a backward pass has twice as many, and makes the scores again.
    pub fn forward_flops(&self) -> usize {
        4 * self.heads.tokens * self.heads.tokens * self.heads.heads * self.heads.width
    }
}

/// The passes over rows of `width` values that stand between the products.
pub struct Rows {
    width: usize,
    x: Vec<f32>,
    branch: Vec<f32>,
    bias: Vec<f32>,
    gate: Vec<f32>,
    middle: Vec<f32>,
    normed: Vec<f32>,
    dx: Vec<f32>,
}

impl Rows {
    /// `count` rows of `width` values.
    pub fn new(count: usize, width: usize) -> Self {
        let values = || numbers(count * width);
        let (bias, gate) = (numbers(width), numbers(width));
        let mut made =
            Self { width, x: values(), branch: values(), bias, gate, middle: values(), normed: values(), dx: values() };
        made.residual();
        made
    }

    /// LayerNorm and modulation.
    pub fn norm(&mut self) {
        let Self { width, x, bias, gate, normed, .. } = self;
        vectorize(Norm { width: *width, x, shift: bias, scale: gate, normed });
    }

    /// Back through both.
    pub fn norm_backward(&mut self) {
        let Self { width, x, branch, gate, dx, .. } = self;
        vectorize(NormBackward { width: *width, x, scale: gate, dn: branch, dx });
    }

    /// The gated residual, then LayerNorm and modulation: what stands between a block's two branches.
    pub fn residual(&mut self) {
        let Self { width, x, branch, bias, gate, middle, normed, .. } = self;
        vectorize(Residual { width: *width, x, branch, bias, gate, middle, normed });
    }

    /// `gelu(u + bias)`.
    pub fn gelu(&mut self) {
        vectorize(gelu::Forward { u: &self.x, bias: &self.bias, h: &mut self.middle });
    }

    /// Its gradient in place.
    pub fn gelu_backward(&mut self) {
        vectorize(gelu::Backward { u: &self.x, bias: &self.bias, dh: &mut self.dx });
    }
}

struct Norm<'a> {
    width: usize,
    x: &'a [f32],
    shift: &'a [f32],
    scale: &'a [f32],
    normed: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (x, normed) in self.x.chunks_exact(self.width).zip(self.normed.chunks_exact_mut(self.width)) {
            layernorm::forward(simd, x, self.shift, self.scale, normed);
        }
    }
}

struct NormBackward<'a> {
    width: usize,
    x: &'a [f32],
    scale: &'a [f32],
    dn: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for NormBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let statistics = RowStatistics { mean: 0.1, inverse_deviation: 1.7 };
        let rows = self.x.chunks_exact(self.width).zip(self.dn.chunks_exact(self.width));
        for ((x, dn), dx) in rows.zip(self.dx.chunks_exact_mut(self.width)) {
            layernorm::backward(simd, x, statistics, self.scale, dn, dx);
        }
    }
}

struct Residual<'a> {
    width: usize,
    x: &'a [f32],
    branch: &'a [f32],
    bias: &'a [f32],
    gate: &'a [f32],
    middle: &'a mut [f32],
    normed: &'a mut [f32],
}

impl Kernel for Residual<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.x.chunks_exact(self.width).zip(self.branch.chunks_exact(self.width));
        let outputs = self.middle.chunks_exact_mut(self.width).zip(self.normed.chunks_exact_mut(self.width));
        for ((x, branch), (middle, normed)) in rows.zip(outputs) {
            residual::gated(simd, x, self.gate, branch, self.bias, middle);
            layernorm::forward(simd, middle, self.bias, self.gate, normed);
        }
    }
}

/// A linear layer over the tokens of a chunk.
pub struct Linear {
    rows: usize,
    inputs: usize,
    outputs: usize,
    transposed: bool,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    y: Vec<f32>,
    d_weight: Vec<f32>,
}

impl Linear {
    /// `[rows, inputs]` to `[rows, outputs]`, the weight `transposed` beforehand, as a narrow trunk's, or panel by panel.
    pub fn new(rows: usize, inputs: usize, outputs: usize, transposed: bool) -> Self {
        let (x, weight, bias) = (numbers(rows * inputs), numbers(inputs * outputs), numbers(outputs));
        let (y, d_weight) = (vec![0.0; rows * outputs], vec![0.0; inputs * outputs]);
        Self { rows, inputs, outputs, transposed, x, weight, bias, y, d_weight }
    }

    /// `y = x W^T + b`.
    pub fn forward(&mut self) {
        let Self { rows, inputs, outputs, x, weight, bias, y, .. } = self;
        let weight = match self.transposed {
            true => Matrix::new(weight, *inputs, *outputs),
            false => Matrix::new(weight, *outputs, *inputs).t(),
        };
        matrix::linear(MatrixMut::new(y, *rows, *outputs), Matrix::new(x, *rows, *inputs), weight, bias);
    }

    /// The weight's gradient `y^T x`, for `y` in the place of its own.
    pub fn weight_gradient(&mut self) {
        let Self { rows, inputs, outputs, x, y, d_weight, .. } = self;
        let (x, y) = (Matrix::new(x, *rows, *inputs), Matrix::new(y, *rows, *outputs));
        matrix::product(MatrixMut::new(d_weight, *outputs, *inputs), y.t(), x);
    }

    /// Operations of the product.
    pub fn flops(&self) -> usize {
        2 * self.rows * self.inputs * self.outputs
    }
}
