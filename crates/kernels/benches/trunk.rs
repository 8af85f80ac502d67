//! Step times of the trunk beside the floor that the machine's own matrix products set.
//!
//! `cargo bench -p kernels` prints, for a nano DiT and DiT-S/2: milliseconds, GFLOP/s, and the share of the GEMM peak
//! measured beside it on the same number of threads. `KERNELS_BENCH=nano` (or `small`) runs one shape only.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::{Duration, Instant};

use kernels::{
    AdamW, Condition, Contribution, Group, Inputs, Learn, OutsideGradients, Parameters, Peak, Plan, Shape, Workspace,
};

const NANO: Shape =
    Shape { image_size: 16, channels: 1, patch: 2, hidden: 64, depth: 4, heads: 4, label_rows: 1, out_channels: 2 };
const SMALL: Shape = Shape {
    image_size: 32,
    channels: 4,
    patch: 2,
    hidden: 384,
    depth: 12,
    heads: 6,
    label_rows: 1001,
    out_channels: 8,
};

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(work: &mut impl FnMut()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

/// Times `work` for about three seconds, alternating with the peak, and prints medians.
fn report(what: &str, flops: f64, peak: &mut Peak<f32>, mut work: impl FnMut()) -> f64 {
    work();
    peak.measure();
    let (mut times, mut peaks, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    while times.len() < 5 || start.elapsed() < Duration::from_secs(3) {
        let before = peak.measure();
        let time = seconds(&mut work);
        let around = 0.5 * (before + peak.measure());
        times.push(time);
        peaks.push(around);
        shares.push(flops / time / 1e9 / around);
    }
    let (time, peak, share) = (middle(times), middle(peaks), middle(shares));
    let (ms, floor, speed) = (time * 1e3, flops / peak / 1e6, flops / time / 1e9);
    println!(
        "  {what:<22} {ms:9.2} ms   floor {floor:8.2} ms   {speed:6.1} GFLOP/s   {:5.1}% of peak {peak:.0}",
        100.0 * share
    );
    time
}

fn bench(name: &str, shape: Shape, batch: usize) {
    println!("{name}: depth {}, width {}, {} tokens, batch {batch}", shape.depth, shape.hidden, shape.tokens());
    let mut parameters = Parameters::zeros(shape).expect("a sound shape");
    for (i, value) in parameters.values_mut().iter_mut().enumerate() {
        *value = ((i * 7919) % 2003) as f32 / 2003.0 * 0.1 - 0.05;
    }
    let (t, d) = (shape.tokens(), shape.hidden);
    let images: Vec<f32> = (0..batch * shape.image()).map(|i| ((i * 31) % 101) as f32 / 50.0 - 1.0).collect();
    let (weights, prompts) = (vec![1.0 / t as f32; batch * t], vec![0.01; t * d]);
    let prompted = vec![Contribution::Weighted { weights: &weights, prompts: &prompts }; shape.depth];
    let rows: Vec<u32> = (0..batch as u32).collect();
    let times: Vec<f32> = (0..batch).map(|i| i as f32 * 10.0).collect();
    let labels = vec![0; batch];
    let mut condition = Condition::new(shape, batch);
    let mut output = vec![0.0; batch * shape.output()];
    let d_output: Vec<f32> = (0..batch * shape.output()).map(|i| ((i * 17) % 23) as f32 / 1e3 - 0.01).collect();

    let mut peak = Peak::new();
    let forward = shape.forward_flops() * batch as f64;

    let mut workspace = Workspace::new(Plan::sampling(shape, batch, 0));
    let row = vec![0; batch];
    let mut shared = Condition::new(shape, 1);
    let one = vec![Contribution::Weighted { weights: &weights[..t], prompts: &prompts }; shape.depth];
    let step = report("sampling forward", forward, &mut peak, || {
        shared.compute(&parameters, &[500.0], &[0]);
        let inputs = Inputs { parameters: &parameters, condition: &shared, rows: &row, contributions: &one };
        workspace.forward(&inputs, &images, &mut output);
    });
    println!("  50 steps, per image    {:9.2} ms", 50e3 * step / batch as f64);

    let learn = Learn::Contributions { from: 0 };
    let plan = Plan { learn, ..Plan::sampling(shape, batch, 0) };
    let mut workspace = Workspace::new(plan);
    let frozen = forward + shape.backward_flops() * batch as f64;
    report("frozen step (prompts)", frozen, &mut peak, || {
        condition.compute(&parameters, &times, &labels);
        let inputs = Inputs { parameters: &parameters, condition: &condition, rows: &rows, contributions: &prompted };
        workspace.forward(&inputs, &images, &mut output);
        workspace.backward(&inputs, &d_output);
    });

    let mut workspace = Workspace::new(Plan { learn: Learn::Everything, ..plan });
    let weights = shape.weight_gradient_flops() * batch as f64;
    let none = vec![Contribution::None; shape.depth];
    let mut adamw = AdamW::new(parameters.values().len());
    let groups = [Group { range: 0..parameters.values().len(), learning_rate: 0.0, weight_decay: 0.0 }];
    report("full step with AdamW", frozen + weights, &mut peak, || {
        condition.compute(&parameters, &times, &labels);
        let inputs = Inputs { parameters: &parameters, condition: &condition, rows: &rows, contributions: &none };
        workspace.forward(&inputs, &images, &mut output);
        workspace.backward(&inputs, &d_output);
        workspace.condition_backward(&inputs, OutsideGradients::default());
        let gradient = workspace.gradients().parameters.as_ref().expect("everything learns");
        adamw.step(parameters.values_mut(), gradient.values(), &groups);
    });
}

fn main() {
    let only = std::env::var("KERNELS_BENCH").unwrap_or_default();
    if only != "small" {
        bench("nano", NANO, 64);
    }
    if only != "nano" {
        bench("DiT-S/2", SMALL, 4);
    }
}
