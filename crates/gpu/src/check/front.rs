//! The passes along the residual stream where prompts come in front of the image's tokens, stand there, and are dropped.

use kernels::oracle;

use super::{Bench, rows};
use crate::arguments::{Entry, NormBackward, ResidualNorm};
use crate::machine::{Address, Error, Machine};

/// Prompts in front.
const FRONT: usize = 2;

/// Samples, tokens of the image, width.
const SIZES: [(usize, usize, usize); 2] = [(3, 5, 200), (1, 4, 1152)];

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    for (batch, tokens, d) in SIZES {
        coming(bench, batch, tokens, d)?;
        dropped(bench, batch, tokens, d)?;
        back(bench, batch, tokens, d)?;
    }
    Ok(())
}

/// Columns of the modulations: a gate, a shift and a scale, which all samples share.
fn columns(d: usize) -> ResidualNorm {
    let d = d as i32;
    ResidualNorm { width: d, stride: 3 * d, gate: 0, shift: d, scale: 2 * d, ..ResidualNorm::default() }
}

/// Before the first block: prompts, then patches at their positions.
fn coming<M: Machine>(bench: &mut Bench<M>, batch: usize, tokens: usize, d: usize) -> Result<(), Error> {
    let (longer, l) = (FRONT + tokens, bench.launcher);
    let (positions, branch, bias) =
        (bench.numbers(tokens * d, 1.0), bench.numbers(batch * tokens * d, 1.0), bench.numbers(d, 1.0));
    let (modulations, weights, prompts) =
        (bench.numbers(3 * d, 0.5), bench.numbers(FRONT, 1.0), bench.numbers(FRONT * d, 1.0));
    let on = [bench.put(&positions)?, bench.put(&branch)?, bench.put(&bias)?, bench.put(&modulations)?];
    let (on_weights, on_prompts) = (bench.put_wide(&weights)?, bench.put_wide(&prompts)?);
    let rows = bench.put_numbers(&vec![0; batch])?;
    let count = batch * longer;
    let (x, statistics, normed) = (bench.room(count * d)?, bench.room_wide(2 * count)?, bench.room(count * d)?);
    let entry = Entry {
        weights: on_weights.start(),
        values: on_prompts.start(),
        per_row: 0,
        per_token: 1,
        places: FRONT as i32,
        replaces: 1,
    };
    let arguments = ResidualNorm {
        base: on[0].start(),
        branch: on[1].start(),
        bias: on[2].start(),
        modulations: on[3].start(),
        rows: rows.start(),
        entry,
        x: x.start(),
        statistics: statistics.start(),
        normed: normed.start(),
        batch: batch as i32,
        tokens: longer as i32,
        before: tokens as i32,
        gate: -1,
        ..columns(d)
    };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.residual_norm(&arguments)? };
    let (ones, zeros, [shift, scale]) = (vec![1.0; d], vec![0.0; d], [&modulations[d..2 * d], &modulations[2 * d..]]);
    let want = |number: usize| match (number % longer).checked_sub(FRONT) {
        Some(token) => {
            let branch = &branch[(number / longer * tokens + token) * d..][..d];
            oracle::residual_norm(&positions[token * d..][..d], [&ones, branch, &bias, shift, scale])
        }
        None => {
            let token = number % longer;
            let prompt: Vec<f32> = prompts[token * d..][..d].iter().map(|v| weights[token] * v).collect();
            oracle::residual_norm(&prompt, [&ones, &zeros, &zeros, shift, scale])
        }
    };
    let want: Vec<[Vec<f32>; 2]> = (0..count).map(want).collect();
    let part = |i: usize| want.iter().flat_map(|two| two[i].clone()).collect::<Vec<f32>>();
    bench.compare(&format!("residual_norm, prompts coming: stream, width {d}"), &x, &part(0))?;
    bench.compare(&format!("residual_norm, prompts coming: normed, width {d}"), &normed, &part(1))
}

/// After the last block: the image's tokens alone.
fn dropped<M: Machine>(bench: &mut Bench<M>, batch: usize, tokens: usize, d: usize) -> Result<(), Error> {
    let (longer, count, l) = (FRONT + tokens, batch * tokens, bench.launcher);
    let (base, branch, bias) =
        (bench.numbers(batch * longer * d, 1.0), bench.numbers(batch * longer * d, 1.0), bench.numbers(d, 1.0));
    let modulations = bench.numbers(3 * d, 0.5);
    let on = [bench.put(&base)?, bench.put(&branch)?, bench.put(&bias)?, bench.put(&modulations)?];
    let rows = bench.put_numbers(&vec![0; batch])?;
    let (x, statistics, normed) = (bench.room(count * d)?, bench.room_wide(2 * count)?, bench.room(count * d)?);
    let arguments = ResidualNorm {
        base: on[0].start(),
        branch: on[1].start(),
        bias: on[2].start(),
        modulations: on[3].start(),
        rows: rows.start(),
        x: x.start(),
        statistics: statistics.start(),
        normed: normed.start(),
        batch: batch as i32,
        tokens: tokens as i32,
        before: longer as i32,
        ..columns(d)
    };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe { l.residual_norm(&arguments)? };
    let want = |number: usize| {
        let from = (number / tokens * longer + FRONT + number % tokens) * d;
        let part = |place: usize| &modulations[place * d..][..d];
        oracle::residual_norm(&base[from..][..d], [part(0), &branch[from..][..d], &bias, part(1), part(2)])
    };
    let want: Vec<[Vec<f32>; 2]> = (0..count).map(want).collect();
    let part = |i: usize| want.iter().flat_map(|two| two[i].clone()).collect::<Vec<f32>>();
    bench.compare(&format!("residual_norm, prompts dropped: stream, width {d}"), &x, &part(0))?;
    bench.compare(&format!("residual_norm, prompts dropped: normed, width {d}"), &normed, &part(1))
}

/// Back from where they were dropped, and from where they replaced what a branch left.
fn back<M: Machine>(bench: &mut Bench<M>, batch: usize, tokens: usize, d: usize) -> Result<(), Error> {
    let (longer, l) = (FRONT + tokens, bench.launcher);
    let modulations = bench.numbers(3 * d, 0.5);
    let (on_modulations, rows_) = (bench.put(&modulations)?, bench.put_numbers(&vec![0; batch])?);
    for (what, inside) in [("dropped", tokens), ("replaced", longer)] {
        let (count, all) = (batch * inside, batch * longer);
        let (x, dn, dx) = (bench.numbers(count * d, 2.0), bench.numbers(count * d, 1.0), bench.numbers(all * d, 1.0));
        let statistics: Vec<f32> = x.chunks_exact(d).flat_map(rows::statistics).collect();
        let (on_x, on_dn, statistics) = (bench.put(&x)?, bench.put(&dn)?, bench.put_wide(&statistics)?);
        let fresh = inside == tokens;
        let (stream, branch) = (if fresh { bench.room(all * d)? } else { bench.put(&dx)? }, bench.room(all * d)?);
        let ResidualNorm { width, stride, gate, shift, scale, .. } = columns(d);
        let arguments = NormBackward {
            x: on_x.start(),
            statistics: statistics.start(),
            dn: on_dn.start(),
            modulations: on_modulations.start(),
            rows: rows_.start(),
            dx: stream.start(),
            d_branch: branch.start(),
            again: Address::NULL,
            batch: batch as i32,
            tokens: inside as i32,
            width,
            stride,
            before: longer as i32,
            replaced: if fresh { 0 } else { FRONT as i32 },
            gate,
            shift,
            scale,
            fresh: i32::from(fresh),
        };
        // SAFETY: all arrays are as large as the sizes say.
        unsafe { l.norm_backward(&arguments)? };
        let (mut want, mut want_branch) = (Vec::new(), Vec::new());
        for number in 0..all {
            let (sample, token) = (number / longer, number % longer);
            let mut sum = vec![0.0; d];
            if let Some(place) = (token + inside).checked_sub(longer) {
                let at = (sample * inside + place) * d;
                sum = oracle::norm_backward(&x[at..][..d], &modulations[2 * d..], &dn[at..][..d]).dx;
            }
            if !fresh {
                sum.iter_mut().zip(&dx[number * d..]).for_each(|(sum, dx)| *sum += dx);
            }
            let passes = if token < FRONT { 0.0 } else { 1.0 };
            want_branch.extend(sum.iter().zip(&modulations[..d]).map(|(dx, gate)| passes * dx * gate));
            want.extend(sum);
        }
        bench.compare(&format!("norm_backward, prompts {what}: stream, width {d}"), &stream, &want)?;
        bench.compare(&format!("norm_backward, prompts {what}: branch, width {d}"), &branch, &want_branch)?;
    }
    Ok(())
}
