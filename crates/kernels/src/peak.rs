//! The machine's peak: what every floor is measured by.

use std::time::Instant;

use rayon::prelude::*;

/// Square matrix products, one per thread, that fit the second-level caches: as many operations a
/// second as the machine does. `T` is `f32` or `f64`.
pub struct Peak<T> {
    input: Vec<T>,
    outputs: Vec<Vec<T>>,
}

impl<T: Copy + From<f32> + Send + Sync + 'static> Peak<T> {
    /// Rows and columns of each matrix.
    const SIZE: usize = 512;

    /// Operations of one product.
    pub const FLOPS: usize = 2 * Self::SIZE * Self::SIZE * Self::SIZE;

    /// Of all threads of the current pool.
    #[allow(clippy::new_without_default, reason = "it depends on the pool it is made in")]
    pub fn new() -> Self {
        Self::of(rayon::current_num_threads())
    }

    /// Of so many threads, at most those of the current pool.
    pub fn of(threads: usize) -> Self {
        let values = Self::SIZE * Self::SIZE;
        Self { input: vec![0.5.into(); values], outputs: vec![vec![0.0.into(); values]; threads] }
    }

    /// GFLOP/s of one product per thread, measured now (about 3 ms).
    pub fn measure(&mut self) -> f64 {
        let n = Self::SIZE;
        let flops = (Self::FLOPS * self.outputs.len()) as f64;
        let Self { input, outputs } = self;
        let begin = Instant::now();
        outputs.par_iter_mut().with_max_len(1).for_each(|out| {
            let (stride, out, input) = (n as isize, out.as_mut_ptr(), input.as_ptr());
            let (none, no) = (gemm::Parallelism::None, false);
            let (zero, one) = (T::from(0.0), T::from(1.0));
            // SAFETY: all three matrices are n x n and contiguous, and each task has its own output.
            unsafe {
                gemm::gemm(
                    n, n, n, out, 1, stride, no, input, 1, stride, input, 1, stride, zero, one, no, no, no, none,
                );
            }
        });
        flops / begin.elapsed().as_secs_f64() / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_per_thread_in_both_precisions() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        pool.install(|| {
            let (mut single, mut double) = (Peak::<f32>::new(), Peak::<f64>::new());
            assert!(single.measure() > 0.0 && double.measure() > 0.0);
            // 512 products of 0.5 x 0.5.
            assert!(single.outputs.len() == 2 && single.outputs.iter().flatten().all(|&v| v == 128.0));
            assert!(double.outputs.iter().flatten().all(|&v| v == 128.0));
        });
    }
}
