//! Counter-based random numbers: every draw is a pure function of (seed, stream, step, index).
//!
//! No generator has a state, so sample `i` is the same whatever the batch, the thread count or the point of resumption.

mod normal;
mod philox;

use philox::philox4x32;

/// Blocks of four numbers that are computed side by side.
const LANES: usize = 16;

/// What a draw is for. Two streams never share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial values of trainable tensors; step = number of the tensor.
    Init = 1,
    /// Order of the training images; step = epoch.
    Order = 2,
    /// Timesteps of training; step = iteration, index = place in the batch.
    Timestep = 3,
    /// Noise of training; step = iteration.
    TrainNoise = 4,
    /// Horizontal flips; step = iteration.
    Flip = 5,
    /// Noise on the gate's logits; step = iteration.
    GateNoise = 6,
    /// Label dropout; step = iteration.
    LabelDropout = 7,
    /// Initial noise of samples; index runs over (sample, element).
    InitialNoise = 8,
    /// Noise of sampling steps; step = sampling step, index runs over (sample, element).
    SampleNoise = 9,
    /// Factors of procedural images; step = image.
    Factors = 10,
    /// Subsets of samples; step = subset.
    Subset = 11,
    /// Noise on prompts (positive control); step = number of the tensor.
    PromptNoise = 12,
    /// Labels of samples; index = sample.
    SampleLabel = 13,
    /// Noise between a latent's mean and the latent; step = iteration, index runs over (place, element).
    LatentNoise = 14,
}

/// All draws of one (seed, stream, step), by index.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    key: [u32; 2],
    stream: u32,
    step: u32,
}

impl Draws {
    /// Draws of `step` in `stream`. Panics if `step` needs more than 32 bits.
    pub fn new(seed: u64, stream: Stream, step: u64) -> Self {
        let step = u32::try_from(step).expect("a step fits 32 bits");
        Self { key: [seed as u32, (seed >> 32) as u32], stream: stream as u32, step }
    }

    /// Words of the `N` blocks from `first`: `[w][i]` is word `w` of block `first + i`.
    #[inline(always)]
    fn blocks<const N: usize>(&self, first: u64) -> [[u32; N]; 4] {
        let number = |i: usize| first + i as u64;
        let low = std::array::from_fn(|i| number(i) as u32);
        let high = std::array::from_fn(|i| (number(i) >> 32) as u32);
        philox4x32([low, high, [self.step; N], [self.stream; N]], self.key)
    }

    /// The `4 N` normals of `N` blocks, in order.
    #[inline(always)]
    fn normals<const N: usize>(&self, first: u64) -> [[f32; 4]; N] {
        let words = self.blocks::<N>(first);
        let mut normals = [[0.0; N]; 4];
        for i in 0..N {
            (normals[0][i], normals[1][i]) = normal::box_muller(words[0][i], words[1][i]);
        }
        for i in 0..N {
            (normals[2][i], normals[3][i]) = normal::box_muller(words[2][i], words[3][i]);
        }
        std::array::from_fn(|i| normals.map(|word| word[i]))
    }

    /// 32 uniform bits.
    pub fn bits(&self, index: u64) -> u32 {
        let [word] = self.blocks(index / 4)[(index % 4) as usize];
        word
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub fn uniform(&self, index: u64) -> f32 {
        normal::unit(self.bits(index))
    }

    /// Uniform integer in `0..n` (multiply-shift; the bias is below `n / 2^32`).
    pub fn below(&self, index: u64, n: u32) -> u32 {
        ((u64::from(self.bits(index)) * u64::from(n)) >> 32) as u32
    }

    /// Standard normal.
    pub fn normal(&self, index: u64) -> f32 {
        let [four] = self.normals(index / 4);
        four[(index % 4) as usize]
    }

    /// Fills `out` with the normals `first, first + 1, ..`: the same numbers as [`Draws::normal`], many at a time.
    pub fn fill_normal(&self, first: u64, out: &mut [f32]) {
        let ragged = ((4 - first % 4) % 4).min(out.len() as u64) as usize;
        let (head, rest) = out.split_at_mut(ragged);
        for (i, v) in head.iter_mut().enumerate() {
            *v = self.normal(first + i as u64);
        }
        let start = (first + ragged as u64) / 4;
        let whole = rest.len() / 4;
        let (blocks, tail) = rest.split_at_mut(4 * whole);
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || self.fill_blocks(start, blocks.as_chunks_mut().0),
        );
        if !tail.is_empty() {
            let [four] = self.normals(start + whole as u64);
            tail.copy_from_slice(&four[..tail.len()]);
        }
    }

    /// Additions and multiplications alone, never fused: every width of vector gives the same bits.
    #[inline(always)]
    fn fill_blocks(&self, start: u64, out: &mut [[f32; 4]]) {
        let (chunks, rest) = out.as_chunks_mut::<LANES>();
        let mut block = start;
        for chunk in chunks {
            *chunk = self.normals(block);
            block += LANES as u64;
        }
        for four in rest {
            [*four] = self.normals(block);
            block += 1;
        }
    }

    /// A permutation of `0..n` (Fisher-Yates).
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let n = u32::try_from(n).expect("at most 2^32 items");
        let mut order: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.below(u64::from(i), i + 1);
            order.swap(i as usize, j as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_from_anywhere_gives_the_same_numbers() {
        let draws = Draws::new(7, Stream::TrainNoise, 3);
        let mut all = [0.0; 10 * LANES];
        draws.fill_normal(0, &mut all);
        for (i, &value) in all.iter().enumerate() {
            assert_eq!(value.to_bits(), draws.normal(i as u64).to_bits());
        }
        for first in 0..9 {
            for len in (0..20).chain([4 * LANES, 4 * LANES + 1, 8 * LANES + 7]) {
                let mut part = vec![0.0; len];
                draws.fill_normal(first as u64, &mut part);
                assert_eq!(part, all[first..first + len]);
            }
        }
    }

    #[test]
    fn streams_steps_and_seeds_do_not_share_numbers() {
        let first = |seed, stream, step| Draws::new(seed, stream, step).bits(0);
        let base = first(1, Stream::Init, 0);
        assert_ne!(base, first(1, Stream::Order, 0));
        assert_ne!(base, first(1, Stream::Init, 1));
        assert_ne!(base, first(2, Stream::Init, 0));
        assert_ne!(base, first(1 << 32 | 1, Stream::Init, 0));
    }

    #[test]
    fn normals_have_the_moments_of_the_normal() {
        let mut values = vec![0.0; 1 << 20];
        Draws::new(3, Stream::InitialNoise, 0).fill_normal(0, &mut values);
        let moment = |p| values.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / values.len() as f64;
        for (p, expected, error) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let four_sigma = 4.0 * f64::sqrt(error / values.len() as f64);
            assert!((moment(p) - expected).abs() < four_sigma, "moment {p}: {}", moment(p));
        }
    }

    #[test]
    fn a_permutation_holds_every_item_once() {
        let mut order = Draws::new(5, Stream::Order, 0).permutation(1000);
        assert_ne!(order[..10], (0..10).collect::<Vec<_>>()[..]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i == v as usize));
    }
}
