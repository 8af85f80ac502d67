//! Single kernels on plain slices: what the GPU's are held against. Any numbers go in and all results come out, in buffers
//! that each call makes; `single` measures, and so keeps numbers and buffers from call to call. Not part of the interface.

use pulp::Simd;

use crate::attention::{self, Heads, SoftmaxRow};
use crate::layernorm::{self, RowStatistics};
use crate::vector::{Kernel, vectorize};
use crate::{Shape, gelu, patches, residual};

/// `x = base + gate (branch + bias)`, and `LayerNorm(x) (1 + scale) + shift`, for one row.
pub fn residual_norm(base: &[f32], [gate, branch, bias, shift, scale]: [&[f32]; 5]) -> [Vec<f32>; 2] {
    let (mut x, mut normed) = (vec![0.0; base.len()], vec![0.0; base.len()]);
    vectorize(ResidualNorm { base, gate, branch, bias, shift, scale, x: &mut x, normed: &mut normed });
    [x, normed]
}

struct ResidualNorm<'a> {
    base: &'a [f32],
    gate: &'a [f32],
    branch: &'a [f32],
    bias: &'a [f32],
    shift: &'a [f32],
    scale: &'a [f32],
    x: &'a mut [f32],
    normed: &'a mut [f32],
}

impl Kernel for ResidualNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        residual::gated(simd, self.base, self.gate, self.branch, self.bias, self.x);
        layernorm::forward(simd, self.x, self.shift, self.scale, self.normed);
    }
}

/// What [`norm_backward`] makes of a row.
#[derive(Clone, Debug)]
pub struct NormGradients {
    /// Of the row.
    pub dx: Vec<f32>,
    /// Of the shift.
    pub d_shift: Vec<f32>,
    /// Of the scale.
    pub d_scale: Vec<f32>,
}

/// Back through modulation and LayerNorm for one row `x`.
pub fn norm_backward(x: &[f32], scale: &[f32], dn: &[f32]) -> NormGradients {
    let zeros = || vec![0.0; x.len()];
    let mut gradients = NormGradients { dx: zeros(), d_shift: zeros(), d_scale: zeros() };
    vectorize(NormBackward { x, scale, dn, gradients: &mut gradients });
    gradients
}

struct NormBackward<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    dn: &'a [f32],
    gradients: &'a mut NormGradients,
}

impl Kernel for NormBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let NormGradients { dx, d_shift, d_scale } = self.gradients;
        let statistics = RowStatistics::of(simd, self.x);
        layernorm::backward(simd, self.x, statistics, self.scale, self.dn, dx);
        layernorm::modulation_backward(simd, self.x, statistics, self.dn, d_shift, d_scale);
    }
}

/// `gelu(u + bias)`, row by row.
pub fn gelu_forward(u: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut h = vec![0.0; u.len()];
    vectorize(gelu::Forward { u, bias, h: &mut h });
    h
}

/// `dh gelu'(u + bias)`, row by row.
pub fn gelu_backward(u: &[f32], bias: &[f32], dh: &[f32]) -> Vec<f32> {
    let mut du = dh.to_vec();
    vectorize(gelu::Backward { u, bias, dh: &mut du });
    du
}

/// Attention of one sample, `qkv [tokens, 3 D]`: the output, and the gradient of `qkv` for that of the output.
pub fn attention(tokens: usize, heads: usize, width: usize, qkv: &[f32], d_out: &[f32]) -> [Vec<f32>; 2] {
    let shape = Heads { tokens, heads, width };
    let (mut out, mut d_qkv) = (vec![0.0; d_out.len()], vec![0.0; qkv.len()]);
    let mut rows = vec![SoftmaxRow::default(); heads * tokens];
    let mut scratch = vec![0.0; shape.scratch()];
    attention::Forward { heads: shape, qkv, out: &mut out, rows: &mut rows, scratch: &mut scratch }.run();
    let (rows, scratch) = (&rows[..], &mut scratch[..]);
    attention::Backward { heads: shape, qkv, out: &out, rows, d_out, d_qkv: &mut d_qkv, scratch }.run();
    [out, d_qkv]
}

/// An input image as patches.
pub fn gather(shape: &Shape, image: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; image.len()];
    patches::gather(shape, image, &mut out);
    out
}

/// Output patches as an image.
pub fn unpatchify(shape: &Shape, patches: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; patches.len()];
    patches::unpatchify(shape, patches, &mut out);
    out
}
