//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

/// Ten rounds of Philox on `N` 128-bit counters under a 64-bit key: `words[w][i]` is word `w` of counter `i`.
#[inline(always)]
pub(crate) fn philox4x32<const N: usize>(mut words: [[u32; N]; 4], mut key: [u32; 2]) -> [[u32; N]; 4] {
    for _ in 0..10 {
        let [w0, w1, w2, w3] = &mut words;
        for (((w0, w1), w2), w3) in w0.iter_mut().zip(w1).zip(w2).zip(w3) {
            let a = u64::from(*w0) * 0xD251_1F53;
            let b = u64::from(*w2) * 0xCD9E_8D57;
            (*w0, *w1) = ((b >> 32) as u32 ^ *w1 ^ key[0], b as u32);
            (*w2, *w3) = ((a >> 32) as u32 ^ *w3 ^ key[1], a as u32);
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::philox4x32;

    /// The known-answer vectors of the authors' Random123 library (kat_vectors, philox4x32 10).
    #[test]
    fn published_vectors() {
        let one = |counter: [u32; 4], key| philox4x32(counter.map(|word| [word]), key).map(|[word]| word);
        assert_eq!(one([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(one([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = one([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }
}
