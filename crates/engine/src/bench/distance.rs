//! The Frechet distance between two distributions whose means and covariances are known.

use anyhow::Context;
use metrics::{Gaussian, frechet_distance};
use random::{Draws, Stream};

use super::Repeat;
use super::work::Work;
use crate::job::EngineError;

/// Samples behind each distribution: more than features, so that its covariance is full.
const SAMPLES: usize = 10_000;

/// Two distributions. They are made before memory is counted.
pub struct Distance {
    left: Gaussian,
    right: Gaussian,
}

impl Distance {
    /// Of random features, each correlated with its neighbour.
    ///
    /// # Errors
    /// The features are not finite.
    pub fn new() -> Result<Self, EngineError> {
        Ok(Self { left: gaussian(0)?, right: gaussian(1)? })
    }
}

fn gaussian(step: u64) -> Result<Gaussian, EngineError> {
    let mut features = vec![0.0; SAMPLES * Work::FEATURES];
    Draws::new(0, Stream::Factors, step).fill_normal(0, &mut features);
    for row in features.chunks_exact_mut(Work::FEATURES) {
        for i in 1..row.len() {
            row[i] += 0.6 * row[i - 1];
        }
    }
    Ok(Gaussian::from_features(&features, Work::FEATURES).context("random features")?)
}

impl Repeat for Distance {
    fn warm_up(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn run(&mut self) -> Result<(), EngineError> {
        frechet_distance(&self.left, &self.right).context("the distance of random features")?;
        Ok(())
    }
}
