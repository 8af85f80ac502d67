//! Sums over tokens and samples.

use kernels::oracle;

use super::{Bench, rows};
use crate::arguments::{EntryGradient, GateGradient, ModulationGradient};
use crate::launch::column_parts;
use crate::machine::{Address, Error, Machine};

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    column_sum(bench, 300, 24)?;
    column_sum(bench, 129, 270)?;
    modulations(bench, 3, 11, 72)?;
    entries(bench, 3, 11, 72)?;
    entries(bench, 5, 3, 1152)
}

/// Sums in double precision of the products that `terms` gives for each of `count` places.
fn sums(count: usize, terms: impl Fn(usize) -> Vec<(f32, f32)>) -> Vec<f32> {
    let sum = |place| terms(place).into_iter().map(|(a, b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32;
    (0..count).map(sum).collect()
}

fn column_sum<M: Machine>(bench: &mut Bench<M>, count: usize, width: usize) -> Result<(), Error> {
    let l = bench.launcher;
    let values = bench.numbers(count * width, 1.0);
    let (on, parts, sum) =
        (bench.put(&values)?, bench.room_wide(column_parts(count) * width)?, bench.room_wide(width)?);
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.column_sum(on.start(), count, width, parts.start(), sum.start())? };
    let want = sums(width, |column| (0..count).map(|row| (values[row * width + column], 1.0)).collect());
    bench.compare(&format!("column_sum, width {width}"), &sum, &want)
}

fn modulations<M: Machine>(bench: &mut Bench<M>, batch: usize, tokens: usize, d: usize) -> Result<(), Error> {
    let (count, stride, l) = (batch * tokens, 3 * d, bench.launcher);
    let (x, dn, dx) = (bench.numbers(count * d, 2.0), bench.numbers(count * d, 1.0), bench.numbers(count * d, 1.0));
    let (branch, bias) = (bench.numbers(count * d, 1.0), bench.numbers(d, 1.0));
    let statistics: Vec<f32> = x.chunks_exact(d).flat_map(rows::statistics).collect();
    let on = [bench.put(&x)?, bench.put(&dn)?, bench.put(&dx)?, bench.put(&branch)?, bench.put(&bias)?];
    let (statistics, out) = (bench.put_wide(&statistics)?, bench.room(batch * stride)?);
    let (tokens_, width, step) = (tokens as i32, d as i32, stride as i32);
    // SAFETY: all arrays are as large as the sizes say.
    unsafe {
        let gradient = ModulationGradient {
            x: on[0].start(),
            statistics: statistics.start(),
            dn: on[1].start(),
            d_modulations: out.start(),
            tokens: tokens_,
            width,
            stride: step,
            shift: 0,
            scale: width,
        };
        l.modulation_gradient(&gradient, batch)?;
        let gradient = GateGradient {
            dx: on[2].start(),
            branch: on[3].start(),
            bias: on[4].start(),
            d_modulations: out.start(),
            tokens: tokens_,
            width,
            stride: step,
            gate: 2 * width,
        };
        l.gate_gradient(&gradient, batch)?;
    }
    let mut want = vec![0.0; batch * stride];
    for number in 0..count {
        let (at, out) = (number * d, &mut want[number / tokens * stride..][..stride]);
        let back = oracle::norm_backward(&x[at..at + d], &vec![0.0; d], &dn[at..at + d]);
        for i in 0..d {
            out[i] += back.d_shift[i];
            out[d + i] += back.d_scale[i];
            out[2 * d + i] += dx[at + i] * (branch[at + i] + bias[i]);
        }
    }
    bench.compare("modulation_gradient and gate_gradient", &out, &want)
}

fn entries<M: Machine>(bench: &mut Bench<M>, batch: usize, tokens: usize, d: usize) -> Result<(), Error> {
    let l = bench.launcher;
    let dx = bench.numbers(batch * tokens * d, 1.0);
    let (weights, prompts) = (bench.numbers((batch + 1) * tokens, 1.0), bench.numbers(tokens * d, 1.0));
    let rows: Vec<u32> = (1..=batch as u32).collect();
    let (on_dx, on_rows, on_weights, on_prompts) =
        (bench.put(&dx)?, bench.put_numbers(&rows)?, bench.put_wide(&weights)?, bench.put_wide(&prompts)?);
    let (d_weights, d_prompts, d_vectors) =
        (bench.room_wide(batch * tokens)?, bench.room_wide(tokens * d)?, bench.room_wide(batch * d)?);
    let arguments = EntryGradient {
        dx: on_dx.start(),
        rows: on_rows.start(),
        weights: on_weights.start(),
        prompts: on_prompts.start(),
        d_weights: d_weights.start(),
        d_values: d_prompts.start(),
        batch: batch as i32,
        tokens: tokens as i32,
        width: d as i32,
        places: tokens as i32,
        replaces: 0,
    };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe {
        l.entry_weight_gradient(&arguments)?;
        l.prompt_gradient(&arguments)?;
        let arguments =
            EntryGradient { d_values: d_vectors.start(), weights: Address::NULL, prompts: Address::NULL, ..arguments };
        l.vector_gradient(&arguments)?;
    }
    let at = |sample: usize, token: usize, i: usize| dx[(sample * tokens + token) * d + i];
    let want = sums(batch * tokens, |place| {
        let (sample, token) = (place / tokens, place % tokens);
        (0..d).map(|i| (at(sample, token, i), prompts[token * d + i])).collect()
    });
    bench.compare(&format!("entry_weight_gradient, width {d}"), &d_weights, &want)?;
    let want = sums(tokens * d, |place| {
        let (token, i) = (place / d, place % d);
        (0..batch).map(|b| (at(b, token, i), weights[rows[b] as usize * tokens + token])).collect()
    });
    bench.compare(&format!("prompt_gradient, width {d}"), &d_prompts, &want)?;
    let want = sums(batch * d, |place| (0..tokens).map(|t| (at(place / d, t, place % d), 1.0)).collect());
    bench.compare(&format!("vector_gradient, width {d}"), &d_vectors, &want)
}
