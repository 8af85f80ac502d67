//! Batches of training: which images, flipped or not, at which timesteps, with which noise.
//!
//! Everything is a pure function of (seed, iteration, place), so a resumed run sees what an undisturbed run sees, and
//! all cells of an artifact see the same.

use crate::Images;
use random::{Draws, Stream};

/// What batches are made of.
pub trait Examples: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Numbers in one example.
    fn elements(&self) -> usize;

    /// Class of each, where they have one.
    fn labels(&self) -> Option<&[u32]>;

    /// Example `index` as the network sees it, mirrored left to right if `flip`. What is random about it has the normal
    /// numbers of `noise` from `first` on, one for each of its elements.
    fn example(&self, index: usize, flip: bool, noise: &Draws, first: u64, out: &mut [f32]);

    /// What is drawn from, `scale (mean + deviation noise)`: the scale, or none where examples are not random; then they are the mean.
    fn scale(&self) -> Option<f32>;

    /// Mean and, where examples are random, deviation of example `index`.
    fn moments(&self, index: usize, flip: bool, mean: &mut [f32], deviation: &mut [f32]);
}

impl Examples for Images {
    fn count(&self) -> usize {
        self.len()
    }

    fn elements(&self) -> usize {
        self.elements()
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// Nothing about an image is random.
    fn example(&self, index: usize, flip: bool, _: &Draws, _: u64, out: &mut [f32]) {
        self.normalised(index, flip, out);
    }

    fn scale(&self) -> Option<f32> {
        None
    }

    fn moments(&self, index: usize, flip: bool, mean: &mut [f32], _: &mut [f32]) {
        self.normalised(index, flip, mean);
    }
}

/// The order of the images: the whole dataset in a new permutation per epoch, without gaps between epochs.
#[derive(Clone, Debug)]
pub struct Order {
    len: usize,
    seed: u64,
    epoch: Option<(u64, Vec<u32>)>,
}

impl Order {
    /// The order of `len` images. Panics if `len` is 0.
    pub fn new(len: usize, seed: u64) -> Self {
        assert!(len > 0, "an order needs at least one image");
        Self { len, seed, epoch: None }
    }

    /// The image at `place` of `iteration` with `batch` images per iteration: position `p = iteration * batch + place`
    /// is item `p mod len` of the permutation of epoch `p / len`. One permutation is kept, so that going on costs
    /// nothing and jumping to any iteration costs one permutation.
    pub fn index(&mut self, iteration: u64, place: usize, batch: usize) -> usize {
        let position = iteration * batch as u64 + place as u64;
        let (epoch, item) = (position / self.len as u64, (position % self.len as u64) as usize);
        let (seed, len) = (self.seed, self.len);
        let (kept, order) = self.epoch.get_or_insert_with(|| (epoch, permutation(seed, epoch, len)));
        if *kept != epoch {
            (*kept, *order) = (epoch, permutation(seed, epoch, len));
        }
        order[item] as usize
    }
}

fn permutation(seed: u64, epoch: u64, len: usize) -> Vec<u32> {
    Draws::new(seed, Stream::Order, epoch).permutation(len)
}

/// Whether the image at `place` of `iteration` is mirrored: one in two.
pub fn flip(seed: u64, iteration: u64, place: usize) -> bool {
    Draws::new(seed, Stream::Flip, iteration).bits(place as u64) & 1 == 1
}

/// The timestep of the image at `place` of `iteration`, uniform in `0..t_max`.
pub fn timestep(seed: u64, iteration: u64, place: usize, t_max: u32) -> usize {
    Draws::new(seed, Stream::Timestep, iteration).below(place as u64, t_max) as usize
}

/// One batch of `B` images; its buffers are filled anew at each iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Which images, `[B]`.
    pub indices: Vec<usize>,
    /// Which of them are mirrored, `[B]`.
    pub flipped: Vec<bool>,
    /// Images in [-1, 1], or latents, `[B, channels, side, side]`.
    pub x0: Vec<f32>,
    /// Classes, `[B]`; 0 where the dataset has none.
    pub labels: Vec<u32>,
    /// Timesteps in `0..t_max`, `[B]`.
    pub t: Vec<usize>,
    /// Standard normal noise, `[B, channels, side, side]`.
    pub noise: Vec<f32>,
}

impl Batch {
    /// A batch of zeros: `size` images of `elements` numbers.
    pub fn new(size: usize, elements: usize) -> Self {
        Self {
            indices: vec![0; size],
            flipped: vec![false; size],
            x0: vec![0.0; size * elements],
            labels: vec![0; size],
            t: vec![0; size],
            noise: vec![0.0; size * elements],
        }
    }
}

/// The batches of one training run.
#[derive(Clone)]
pub struct Batches<'a> {
    examples: &'a dyn Examples,
    seed: u64,
    flips: bool,
    t_max: u32,
    order: Order,
}

impl<'a> Batches<'a> {
    /// Batches of `examples` under `seed`, mirrored at random if `flips`, timesteps in `0..t_max`.
    /// Panics if there is none.
    pub fn new(examples: &'a dyn Examples, seed: u64, flips: bool, t_max: u32) -> Self {
        Self { examples, seed, flips, t_max, order: Order::new(examples.count(), seed) }
    }

    /// Fills `batch` with what `iteration` trains on; number `e` of example `b` has noise `b * elements + e`.
    pub fn fill(&mut self, iteration: u64, batch: &mut Batch) {
        self.choose(iteration, batch);
        let elements = self.examples.elements();
        let noise = Draws::new(self.seed, Stream::LatentNoise, iteration);
        for (place, (&index, &flipped)) in batch.indices.iter().zip(&batch.flipped).enumerate() {
            let own = place * elements..(place + 1) * elements;
            self.examples.example(index, flipped, &noise, own.start as u64, &mut batch.x0[own]);
        }
        Draws::new(self.seed, Stream::TrainNoise, iteration).fill_normal(0, &mut batch.noise);
    }

    /// The part of it that is no image and no noise: which examples, which of them mirrored, their labels and timesteps.
    pub fn choose(&mut self, iteration: u64, batch: &mut Batch) {
        let size = batch.t.len();
        for place in 0..size {
            let index = self.order.index(iteration, place, size);
            batch.indices[place] = index;
            batch.flipped[place] = self.flips && flip(self.seed, iteration, place);
            batch.labels[place] = self.examples.labels().map_or(0, |labels| labels[index]);
            batch.t[place] = timestep(self.seed, iteration, place, self.t_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(n: usize) -> Images {
        let pixels = (0..n * 4).map(|v| v as u8).collect();
        Images { labels: Some((0..n as u32).collect()), ..Images::new(1, 2, pixels) }
    }

    fn batch_at(images: &Images, seed: u64, iteration: u64) -> Batch {
        let mut batch = Batch::new(7, images.elements());
        Batches::new(images, seed, true, 1000).fill(iteration, &mut batch);
        batch
    }

    #[test]
    fn each_epoch_holds_every_image_once_in_another_order() {
        let (len, batch) = (10, 4);
        let mut order = Order::new(len, 3);
        // 15 batches of 4 are 6 epochs of 10: batches straddle the epochs.
        let all: Vec<usize> =
            (0..15).flat_map(|i| (0..batch).map(move |p| (i, p))).map(|(i, p)| order.index(i, p, batch)).collect();
        for epoch in all.chunks(len) {
            let mut seen = epoch.to_vec();
            seen.sort_unstable();
            assert_eq!(seen, (0..len).collect::<Vec<_>>());
        }
        assert_ne!(all[..len], all[len..2 * len]);
    }

    #[test]
    fn a_resumed_run_sees_what_an_undisturbed_run_sees() {
        let images = images(30);
        let mut batches = Batches::new(&images, 11, true, 1000);
        let mut batch = Batch::new(7, images.elements());
        for iteration in 0..20 {
            batches.fill(iteration, &mut batch);
            assert_eq!(batch, batch_at(&images, 11, iteration), "iteration {iteration}");
        }
        // Going back is as good as going on.
        batches.fill(2, &mut batch);
        assert_eq!(batch, batch_at(&images, 11, 2));
    }

    #[test]
    fn a_batch_holds_the_images_that_it_names() {
        let images = images(30);
        let batch = batch_at(&images, 5, 3);
        let draws = Draws::new(5, Stream::TrainNoise, 3);
        assert!(batch.flipped.contains(&true) && batch.flipped.contains(&false));
        for place in 0..7 {
            let mut expected = [0.0; 4];
            images.normalised(batch.indices[place], batch.flipped[place], &mut expected);
            assert_eq!(batch.x0[place * 4..][..4], expected);
            assert_eq!(batch.labels[place] as usize, batch.indices[place]);
            assert_eq!(batch.noise[place * 4 + 1], draws.normal(place as u64 * 4 + 1));
        }
    }

    #[test]
    fn seeds_and_iterations_differ_and_flips_can_be_off() {
        let images = images(30);
        let base = batch_at(&images, 1, 0);
        for other in [batch_at(&images, 2, 0), batch_at(&images, 1, 1)] {
            assert_ne!(base.indices, other.indices);
            assert_ne!(base.t, other.t);
            assert_ne!(base.noise, other.noise);
        }
        let mut plain = Batch::new(7, images.elements());
        Batches::new(&images, 1, false, 1000).fill(0, &mut plain);
        assert_eq!(plain.flipped, [false; 7]);
        assert_eq!((plain.indices, plain.t, plain.noise), (base.indices, base.t, base.noise));
    }

    #[test]
    fn flips_are_even_and_timesteps_uniform() {
        let n = 20_000;
        let flips = (0..n).filter(|&i| flip(9, i, 5)).count() as f64;
        assert!((flips / n as f64 - 0.5).abs() < 4.0 * (0.25 / n as f64).sqrt());
        let mut counts = [0_u32; 10];
        (0..n).for_each(|i| counts[timestep(9, i, 0, 1000) / 100] += 1);
        assert!(counts.iter().all(|&c| (f64::from(c) - 2000.0).abs() < 4.0 * 1800.0_f64.sqrt()), "{counts:?}");
        assert!((0..n).all(|i| timestep(9, i, 0, 3) < 3));
    }

    #[test]
    fn images_without_labels_are_of_class_zero() {
        let unlabelled = Images { labels: None, ..images(9) };
        assert_eq!(batch_at(&unlabelled, 1, 4).labels, [0; 7]);
    }
}
