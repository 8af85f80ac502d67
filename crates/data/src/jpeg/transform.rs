//! The inverse cosine transform of a block in integers (Loeffler, Ligtenberg & Moschytz 1989), rounded as libjpeg's `islow`.

/// Bits behind the point of the constants.
const BITS: u32 = 13;
/// More bits that are kept between columns and rows.
const BETWEEN: u32 = 2;

/// Eight numbers: input in order of frequency, output in order of place, scaled by `sqrt 8` and `2^13`.
fn line(x: [i64; 8]) -> [i64; 8] {
    let z = (x[2] + x[6]) * 4433;
    let (t2, t3) = (z - x[6] * 15137, z + x[2] * 6270);
    let (t0, t1) = ((x[0] + x[4]) << BITS, (x[0] - x[4]) << BITS);
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];

    let [z1, z2, z3, z4] = [x[7] + x[1], x[5] + x[3], x[7] + x[3], x[5] + x[1]];
    let z5 = (z3 + z4) * 9633;
    let (z1, z2, z3, z4) = (-z1 * 7373, -z2 * 20995, z5 - z3 * 16069, z5 - z4 * 3196);
    let odd = [x[1] * 12299 + z1 + z4, x[3] * 25172 + z2 + z3, x[5] * 16819 + z2 + z4, x[7] * 2446 + z1 + z3];
    std::array::from_fn(|i| if i < 4 { even[i] + odd[i] } else { even[7 - i] - odd[7 - i] })
}

fn rounded(value: i64, bits: u32) -> i64 {
    (value + (1 << (bits - 1))) >> bits
}

/// Coefficients in rows, times their steps, to samples: columns first.
pub(super) fn inverse(coefficients: &[i16], steps: &[u16; 64]) -> [u8; 64] {
    let mut middle = [0; 64];
    for column in 0..8 {
        let at = |row: usize| 8 * row + column;
        let input = std::array::from_fn(|row| i64::from(coefficients[at(row)]) * i64::from(steps[at(row)]));
        for (row, value) in line(input).into_iter().enumerate() {
            middle[at(row)] = rounded(value, BITS - BETWEEN);
        }
    }
    let mut samples = [0; 64];
    for (row, out) in middle.as_chunks::<8>().0.iter().zip(samples.as_chunks_mut::<8>().0) {
        *out = line(*row).map(|value| (rounded(value, BITS + BETWEEN + 3) + 128).clamp(0, 255) as u8);
    }
    samples
}
