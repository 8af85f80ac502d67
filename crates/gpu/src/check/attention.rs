//! Attention, there and back.

use kernels::oracle;

use super::Bench;
use crate::arguments::Attention;
use crate::launch::HEAD_WIDTHS;
use crate::machine::{Address, Error, Machine};

/// Lengths of sequences: short of a strip, one more than some, the tiny network's, and the longest.
const LENGTHS: [usize; 4] = [36, 65, 256, 320];

pub(super) fn check<M: Machine>(bench: &mut Bench<M>) -> Result<(), Error> {
    for width in HEAD_WIDTHS {
        for tokens in LENGTHS {
            // one head of one sample is enough where it is long
            let (batch, heads) = if tokens < 100 { (2, 3) } else { (1, 1) };
            attention(bench, batch, tokens, heads, width)?;
        }
    }
    Ok(())
}

fn attention<M: Machine>(
    bench: &mut Bench<M>,
    batch: usize,
    tokens: usize,
    heads: usize,
    width: usize,
) -> Result<(), Error> {
    let (values, l) = (tokens * heads * width, bench.launcher);
    let (qkv, d_out) = (bench.numbers(batch * 3 * values, 1.2), bench.numbers(batch * values, 1.0));
    let (on_qkv, on_d, out, d_qkv) =
        (bench.put(&qkv)?, bench.put(&d_out)?, bench.room(batch * values)?, bench.room(batch * 3 * values)?);
    let softmax = bench.room_wide(2 * batch * heads * tokens)?;
    let there = Attention {
        qkv: on_qkv.start(),
        out: out.start(),
        softmax: softmax.start(),
        d_out: Address::NULL,
        d_qkv: Address::NULL,
        tokens: tokens as i32,
        heads: heads as i32,
    };
    // SAFETY: all arrays are as large as the sizes say.
    unsafe {
        l.attention(&there, batch, width, false)?;
        l.attention(&Attention { d_out: on_d.start(), d_qkv: d_qkv.start(), ..there }, batch, width, true)?;
    }
    let samples = qkv.chunks_exact(3 * values).zip(d_out.chunks_exact(values));
    let want: Vec<[Vec<f32>; 2]> =
        samples.map(|(qkv, d_out)| oracle::attention(tokens, heads, width, qkv, d_out)).collect();
    let part = |i: usize| want.iter().flat_map(|two| two[i].clone()).collect::<Vec<f32>>();
    bench.compare(&format!("attention_forward, {tokens} tokens, heads {width} wide"), &out, &part(0))?;
    bench.compare(&format!("attention_backward, {tokens} tokens, heads {width} wide"), &d_qkv, &part(1))
}
