//! From features to numbers: the Frechet distance, and what a difference of two distances is worth.
//!
//! A [`Gaussian`] summarises features, [`Reference`] measures distances to one; [`Summary`], [`Difference`] and
//! [`verdict`] turn distances over seeds or subsets into what a report may say.

mod claim;
mod difference;
mod extrapolation;
mod frechet;
mod gaussian;
mod linear;
mod student;
pub mod subsets;
mod summary;

pub use claim::{FidNoise, Outcome, Verdict, known_fid_noise, verdict};
pub use difference::{Difference, Spread};
pub use extrapolation::{Extrapolation, extrapolate};
pub use frechet::{Reference, frechet_distance};
pub use gaussian::{FeatureError, Gaussian};
pub use student::t_quantile;
pub use summary::{Summary, over_sampling_seeds};
