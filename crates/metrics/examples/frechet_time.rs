//! Seconds for covariances, factor and distance of 2048 features: `cargo run --release -p metrics --example frechet_time`.

use std::time::Instant;

use metrics::{Gaussian, Reference};
use random::{Draws, Stream};

#[allow(clippy::print_stdout, reason = "the times are what it is for")]
fn main() {
    let dimensions = 2048;
    let timed = |what: &str, start: Instant| println!("{what:28} {:7.3} s", start.elapsed().as_secs_f64());
    let features = |step, samples: usize| {
        let mut values = vec![0.0; samples * dimensions];
        Draws::new(0, Stream::Factors, step).fill_normal(0, &mut values);
        // Neighbours are correlated, and later features are smaller.
        for row in values.chunks_mut(dimensions) {
            for j in 1..dimensions {
                row[j] = (0.6 * row[j - 1] + row[j]) * (1.0 - 1e-3 * (j as f32 / dimensions as f32));
            }
        }
        values
    };
    for samples in [10_000, 1_000] {
        println!("{samples} samples of {dimensions} features");
        let (a, b) = (features(0, samples), features(1, samples));
        let start = Instant::now();
        let ours = Gaussian::from_features(&a, dimensions).expect("finite features");
        timed("mean and covariance", start);
        let theirs = Gaussian::from_features(&b, dimensions).expect("finite features");
        let start = Instant::now();
        let reference = Reference::new(ours).expect("finite features");
        timed("factor of the reference", start);
        let start = Instant::now();
        let distance = reference.distance(&theirs).expect("finite features");
        timed("distance", start);
        println!("{:28} {distance:.6}", "=");
    }
}
