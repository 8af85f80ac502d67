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

/// A pass over a stream that was as long as `before`. Of the modulations, which all samples share, it reads a gate, a shift and a scale.
fn pass(read: [Address; 5], written: [Address; 3], sizes: [usize; 3], before: usize) -> ResidualNorm {
    let (d, before) = (sizes[2] as i32, before as i32);
    ResidualNorm { before, stride: 3 * d, shift: d, scale: 2 * d, ..rows::residual_norm_of(read, written, sizes) }
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
    let shared = bench.put_numbers(&vec![0; batch])?;
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
    let read = [on[0].start(), on[1].start(), on[2].start(), on[3].start(), shared.start()];
    let written = [x.start(), statistics.start(), normed.start()];
    let arguments = ResidualNorm { entry, gate: -1, ..pass(read, written, [batch, longer, d], tokens) };
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
    let shared = bench.put_numbers(&vec![0; batch])?;
    let (x, statistics, normed) = (bench.room(count * d)?, bench.room_wide(2 * count)?, bench.room(count * d)?);
    let read = [on[0].start(), on[1].start(), on[2].start(), on[3].start(), shared.start()];
    let written = [x.start(), statistics.start(), normed.start()];
    let arguments = pass(read, written, [batch, tokens, d], longer);
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
    let (on_modulations, shared) = (bench.put(&modulations)?, bench.put_numbers(&vec![0; batch])?);
    for (what, inside) in [("dropped", tokens), ("replaced", longer)] {
        let (count, all) = (batch * inside, batch * longer);
        let (x, dn, dx) = (bench.numbers(count * d, 2.0), bench.numbers(count * d, 1.0), bench.numbers(all * d, 1.0));
        let statistics: Vec<f32> = x.chunks_exact(d).flat_map(rows::statistics).collect();
        let (on_x, on_dn, statistics) = (bench.put(&x)?, bench.put(&dn)?, bench.put_wide(&statistics)?);
        let fresh = inside == tokens;
        let (stream, branch) = (if fresh { bench.room(all * d)? } else { bench.put(&dx)? }, bench.room(all * d)?);
        let width = d as i32;
        let arguments = NormBackward {
            x: on_x.start(),
            statistics: statistics.start(),
            dn: on_dn.start(),
            modulations: on_modulations.start(),
            rows: shared.start(),
            dx: stream.start(),
            d_branch: branch.start(),
            again: Address::NULL,
            batch: batch as i32,
            tokens: inside as i32,
            width,
            stride: 3 * width,
            before: longer as i32,
            replaced: if fresh { 0 } else { FRONT as i32 },
            gate: 0,
            shift: width,
            scale: 2 * width,
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
