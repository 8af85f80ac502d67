//! The passes along the residual stream.

use kernels::oracle;

use super::Bench;
use crate::arguments::{Entry, NormBackward, ResidualNorm};
use crate::machine::{Address, Error, Machine};

/// Samples and tokens that fill no block; widths that fill no warp, and the widest.
const SIZES: [(usize, usize, usize); 4] = [(3, 7, 64), (2, 5, 200), (1, 9, 1152), (1, 2, 1280)];

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    for (batch, tokens, d) in SIZES {
        residual_norm(bench, batch, tokens, d)?;
        embedding(bench, batch, tokens, d)?;
        norm_backward(bench, batch, tokens, d)?;
    }
    Ok(())
}

/// Samples read the modulations' rows backwards, of which there is one more than samples.
fn rows_of(batch: usize) -> Vec<u32> {
    (0..batch as u32).rev().collect()
}

/// What is read, what is written, and the sizes; nothing enters, and no place in the modulations is chosen.
pub(super) fn residual_norm_of(
    [base, branch, bias, modulations, rows]: [Address; 5],
    [x, statistics, normed]: [Address; 3],
    sizes: [usize; 3],
) -> ResidualNorm {
    let [batch, tokens, width] = sizes.map(|size| size as i32);
    let read = ResidualNorm { base, branch, bias, modulations, rows, before: tokens, ..ResidualNorm::default() };
    ResidualNorm { x, statistics, normed, batch, tokens, width, ..read }
}

fn residual_norm<M: Machine>(bench: &mut Bench<M>, batch: usize, tokens: usize, d: usize) -> Result<(), Error> {
    let (count, stride, l) = (batch * tokens, 4 * d, bench.launcher);
    let (base, branch, bias) = (bench.numbers(count * d, 1.0), bench.numbers(count * d, 1.0), bench.numbers(d, 1.0));
    let modulations = bench.numbers((batch + 1) * stride, 0.5);
    let (weights, prompts) = (bench.numbers((batch + 1) * tokens, 1.0), bench.numbers(tokens * d, 1.0));
    let vectors = bench.numbers((batch + 1) * d, 1.0);
    let rows = rows_of(batch);
    let on = [bench.put(&base)?, bench.put(&branch)?, bench.put(&bias)?, bench.put(&modulations)?];
    let wide = [bench.put_wide(&weights)?, bench.put_wide(&prompts)?, bench.put_wide(&vectors)?];
    let numbers = bench.put_numbers(&rows)?;
    let all = Entry { places: tokens as i32, ..Entry::default() };
    let entries = [
        ("", Entry::default()),
        (" + prompts", Entry { weights: wide[0].start(), values: wide[1].start(), per_token: 1, ..all }),
        (" + vectors", Entry { values: wide[2].start(), per_row: 1, ..all }),
    ];
    for (name, entry) in entries {
        let (x, statistics, normed) = (bench.room(count * d)?, bench.room_wide(2 * count)?, bench.room(count * d)?);
        let read = [on[0].start(), on[1].start(), on[2].start(), on[3].start(), numbers.start()];
        let arguments = ResidualNorm {
            entry,
            stride: stride as i32,
            gate: d as i32,
            shift: 2 * d as i32,
            scale: 3 * d as i32,
            ..residual_norm_of(read, [x.start(), statistics.start(), normed.start()], [batch, tokens, d])
        };
        // SAFETY: all arrays are as large as the sizes say.
        unsafe { l.residual_norm(&arguments)? };
        let (mut want_x, mut want_normed) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (row, token) = (rows[number / tokens] as usize, number % tokens);
            let part = |place: usize| &modulations[row * stride + place * d..][..d];
            let mut base = base[number * d..][..d].to_vec();
            for (i, v) in base.iter_mut().enumerate() {
                *v += match name {
                    "" => 0.0,
                    " + prompts" => weights[row * tokens + token] * prompts[token * d + i],
                    _ => vectors[row * d + i],
                };
            }
            let [x, normed] =
                oracle::residual_norm(&base, [part(1), &branch[number * d..][..d], &bias, part(2), part(3)]);
            want_x.extend(x);
            want_normed.extend(normed);
        }
        bench.compare(&format!("residual_norm{name}: stream, width {d}"), &x, &want_x)?;
        bench.compare(&format!("residual_norm{name}: normed, width {d}"), &normed, &want_normed)?;
    }
    Ok(())
}

/// Without a gate: positions that all samples share.
fn embedding<M: Machine>(bench: &mut Bench<M>, batch: usize, tokens: usize, d: usize) -> Result<(), Error> {
    let (count, l) = (batch * tokens, bench.launcher);
    let (positions, branch, bias) =
        (bench.numbers(tokens * d, 1.0), bench.numbers(count * d, 1.0), bench.numbers(d, 1.0));
    let modulations = bench.numbers(2 * d, 0.5);
    let on = [bench.put(&positions)?, bench.put(&branch)?, bench.put(&bias)?, bench.put(&modulations)?];
    let rows = bench.put_numbers(&vec![0; batch])?;
    let (x, statistics, normed) = (bench.room(count * d)?, bench.room_wide(2 * count)?, bench.room(count * d)?);
    let read = [on[0].start(), on[1].start(), on[2].start(), on[3].start(), rows.start()];
    let arguments = ResidualNorm {
        stride: 2 * d as i32,
        gate: -1,
        scale: d as i32,
        ..residual_norm_of(read, [x.start(), statistics.start(), normed.start()], [batch, tokens, d])
    };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.residual_norm(&arguments)? };
    let ones = vec![1.0; d];
    let want = |number: usize| {
        let (base, branch) = (&positions[number % tokens * d..][..d], &branch[number * d..][..d]);
        oracle::residual_norm(base, [&ones, branch, &bias, &modulations[..d], &modulations[d..]])
    };
    let want: Vec<[Vec<f32>; 2]> = (0..count).map(want).collect();
    let part = |i: usize| want.iter().flat_map(|two| two[i].clone()).collect::<Vec<f32>>();
    bench.compare(&format!("residual_norm of positions: stream, width {d}"), &x, &part(0))?;
    bench.compare(&format!("residual_norm of positions: normed, width {d}"), &normed, &part(1))
}

fn norm_backward<M: Machine>(bench: &mut Bench<M>, batch: usize, tokens: usize, d: usize) -> Result<(), Error> {
    let (count, stride, l) = (batch * tokens, 3 * d, bench.launcher);
    let (x, dn, dx) = (bench.numbers(count * d, 2.0), bench.numbers(count * d, 1.0), bench.numbers(count * d, 1.0));
    let modulations = bench.numbers((batch + 1) * stride, 0.5);
    let rows = rows_of(batch);
    let statistics: Vec<f32> = x.chunks_exact(d).flat_map(statistics).collect();
    let on = [bench.put(&x)?, bench.put(&dn)?, bench.put(&modulations)?];
    let (statistics, numbers) = (bench.put_wide(&statistics)?, bench.put_numbers(&rows)?);
    for fresh in [false, true] {
        let stream = if fresh { bench.room(count * d)? } else { bench.put(&dx)? };
        let (d_branch, again) = (bench.room(count * d)?, bench.room(count * d)?);
        let arguments = NormBackward {
            x: on[0].start(),
            statistics: statistics.start(),
            dn: on[1].start(),
            modulations: on[2].start(),
            rows: numbers.start(),
            dx: stream.start(),
            d_branch: if fresh { Address::NULL } else { d_branch.start() },
            again: if fresh { Address::NULL } else { again.start() },
            batch: batch as i32,
            tokens: tokens as i32,
            width: d as i32,
            stride: stride as i32,
            before: tokens as i32,
            replaced: 0,
            gate: 0,
            shift: d as i32,
            scale: 2 * d as i32,
            fresh: i32::from(fresh),
        };
        // SAFETY: all arrays are as large as the sizes say.
        unsafe { l.norm_backward(&arguments)? };
        let (mut want, mut want_branch, mut want_again) = (Vec::new(), Vec::new(), Vec::new());
        let zeros = vec![0.0; d];
        for number in 0..count {
            let part = |place: usize| &modulations[rows[number / tokens] as usize * stride + place * d..][..d];
            let at = number * d..(number + 1) * d;
            let back = oracle::norm_backward(&x[at.clone()], part(2), &dn[at.clone()]);
            let sum: Vec<f32> =
                back.dx.iter().zip(&dx[at.clone()]).map(|(a, b)| if fresh { *a } else { a + b }).collect();
            want_branch.extend(sum.iter().zip(part(0)).map(|(dx, gate)| dx * gate));
            want.extend(sum);
            want_again.extend(
                oracle::residual_norm(&x[at], [&zeros, &zeros, &zeros, part(1), part(2)])
                    .into_iter()
                    .nth(1)
                    .expect("two"),
            );
        }
        bench.compare(&format!("norm_backward: stream, width {d}, fresh {fresh}"), &stream, &want)?;
        if !fresh {
            bench.compare(&format!("norm_backward: branch, width {d}"), &d_branch, &want_branch)?;
            bench.compare(&format!("norm_backward: again, width {d}"), &again, &want_again)?;
        }
    }
    Ok(())
}

/// Mean and reciprocal deviation.
pub(super) fn statistics(row: &[f32]) -> [f32; 2] {
    let count = row.len() as f64;
    let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    [mean as f32, (1.0 / (variance + 1e-6).sqrt()) as f32]
}
