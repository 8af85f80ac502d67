//! The kernels that steps spend their time in, each on its own: `cargo bench -p kernels --bench single`, or with a filter, `-- attention`.
//!
//! Shapes are those of a chunk of 256 tokens (a frozen step takes 128) of the nano DiT (width 64, heads of 16) and of DiT-S/2 (width 384, heads of 64).
//! One thread: kernels are called by lanes that run side by side. Products count operations, passes over rows the bytes that
//! they read and write; `peak` is what the machine's own products reach. Whole steps: `runner bench`.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use kernels::single::{Attention, Linear, Rows};
use kernels::{AdamW, Group, Peak};

/// Widths of the two networks.
const WIDTHS: [usize; 2] = [64, 384];

/// Tokens that are worked on together.
const TOKENS: usize = 256;

fn main() {
    divan::main();
}

/// Tokens, heads and width of a head.
const HEADS: [(usize, usize, usize); 2] = [(64, 4, 16), (256, 6, 64)];

#[divan::bench(args = HEADS)]
fn attention(bencher: Bencher, (tokens, heads, width): (usize, usize, usize)) {
    let mut sample = Attention::new(tokens, heads, width);
    bencher.counter(ItemsCount::new(sample.forward_flops())).bench_local(|| sample.forward());
}

#[divan::bench(args = HEADS)]
fn attention_backward(bencher: Bencher, (tokens, heads, width): (usize, usize, usize)) {
    let mut sample = Attention::new(tokens, heads, width);
    bencher.counter(ItemsCount::new(2 * sample.forward_flops())).bench_local(|| sample.backward());
}

/// Bytes of `buffers` buffers of rows.
fn bytes(width: usize, buffers: usize) -> BytesCount {
    BytesCount::of_many::<f32>(TOKENS * width * buffers)
}

#[divan::bench(args = WIDTHS)]
fn layer_norm_modulate(bencher: Bencher, width: usize) {
    let mut rows = Rows::new(TOKENS, width);
    bencher.counter(bytes(width, 2)).bench_local(|| rows.norm());
}

#[divan::bench(args = WIDTHS)]
fn layer_norm_modulate_backward(bencher: Bencher, width: usize) {
    let mut rows = Rows::new(TOKENS, width);
    bencher.counter(bytes(width, 4)).bench_local(|| rows.norm_backward());
}

#[divan::bench(args = WIDTHS)]
fn residual_layer_norm_modulate(bencher: Bencher, width: usize) {
    let mut rows = Rows::new(TOKENS, width);
    bencher.counter(bytes(width, 4)).bench_local(|| rows.residual());
}

#[divan::bench(args = WIDTHS)]
fn gelu(bencher: Bencher, width: usize) {
    let mut rows = Rows::new(TOKENS, 4 * width);
    bencher.counter(bytes(4 * width, 2)).bench_local(|| rows.gelu());
}

#[divan::bench(args = WIDTHS)]
fn gelu_backward(bencher: Bencher, width: usize) {
    let mut rows = Rows::new(TOKENS, 4 * width);
    bencher.counter(bytes(4 * width, 3)).bench_local(|| rows.gelu_backward());
}

/// The layers of a block: qkv, projection, both of the MLP.
const LAYERS: [(usize, usize); 8] =
    [(64, 192), (64, 64), (64, 256), (256, 64), (384, 1152), (384, 384), (384, 1536), (1536, 384)];

/// A layer's weight is transposed beforehand in the nano DiT, panel by panel in DiT-S/2.
fn layer((inputs, outputs): (usize, usize)) -> Linear {
    Linear::new(TOKENS, inputs, outputs, inputs.min(outputs) == WIDTHS[0])
}

#[divan::bench(args = LAYERS)]
fn linear(bencher: Bencher, shape: (usize, usize)) {
    let mut layer = layer(shape);
    bencher.counter(ItemsCount::new(layer.flops())).bench_local(|| layer.forward());
}

#[divan::bench(args = LAYERS)]
fn linear_weight_gradient(bencher: Bencher, shape: (usize, usize)) {
    let mut layer = layer(shape);
    bencher.counter(ItemsCount::new(layer.flops())).bench_local(|| layer.weight_gradient());
}

/// AdamW over as many values as the two networks have; all threads.
#[divan::bench(args = [230_000, 33_000_000])]
fn adamw(bencher: Bencher, values: usize) {
    let (mut parameters, gradient) = (vec![0.1; values], vec![0.01; values]);
    let groups = [Group { range: 0..values, learning_rate: 1e-4, weight_decay: 0.0 }];
    let mut adamw = AdamW::new(values);
    // four buffers are read, three written
    let bytes = BytesCount::of_many::<f32>(7 * values);
    bencher.counter(bytes).bench_local(|| adamw.step(&mut parameters, &gradient, &groups));
}

/// The machine's products on one thread.
#[divan::bench]
fn peak(bencher: Bencher) {
    let mut peak = Peak::<f32>::of(1);
    bencher.counter(ItemsCount::new(Peak::<f32>::FLOPS)).bench_local(|| peak.measure());
}
