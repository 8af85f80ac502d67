//! Subsets of samples, common to all cells: pure functions of their number and the seed.

use random::{Draws, Stream};

/// Subset `number` of `size` out of `0..samples`, without replacement, rising. Panics if `size` exceeds `samples`.
pub fn subset(samples: usize, size: usize, number: u64, seed: u64) -> Vec<u32> {
    assert!(size <= samples, "a subset of {size} from {samples} samples");
    let mut chosen = Draws::new(seed, Stream::Subset, number).permutation(samples);
    chosen.truncate(size);
    chosen.sort_unstable();
    chosen
}

/// Subsets `0..count` of half of the samples.
pub fn halves(samples: usize, count: usize, seed: u64) -> Vec<Vec<u32>> {
    (0..count as u64).map(|number| subset(samples, samples / 2, number, seed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_another_and_draws_evenly() {
        let halves = halves(101, 400, 1);
        let mut drawn = [0_u32; 101];
        for half in &halves {
            assert_eq!(half.len(), 50);
            assert!(half.windows(2).all(|pair| pair[0] < pair[1]));
            half.iter().for_each(|&i| drawn[i as usize] += 1);
        }
        // Expected 198, standard deviation 10.
        assert!(drawn.iter().all(|n| (198 - 50..=198 + 50).contains(n)), "{drawn:?}");
        assert_ne!(halves[0], halves[1]);
        assert_eq!(halves[7], subset(101, 50, 7, 1));
        assert_ne!(halves[7], subset(101, 50, 7, 2));
        assert_eq!(subset(3, 3, 0, 0), [0, 1, 2]);
    }
}
