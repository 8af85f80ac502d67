//! From features to numbers: distances and scores, and what a difference of two of them is worth.
//!
//! A [`Gaussian`] summarises features, [`Reference`] measures Frechet distances to one: the FID on pooled features of
//! Inception, the sFID on its spatial ones ([`npz::Statistics`] names both), [`extrapolate_parts`] either at infinitely many
//! samples. [`Coverage`] gives precision and recall, [`inception_score`] that score, [`PairStatistics`] and
//! [`StructuralBias`] the figures of structural bias. [`Summary`], [`Difference`] and [`verdict`] turn values over seeds or
//! subsets into what a report may say.

mod activation;
mod claim;
mod difference;
mod extrapolation;
mod frechet;
mod gaussian;
mod inception_score;
mod linear;
mod manifold;
pub mod npz;
mod points;
mod similarity;
mod student;
pub mod subsets;
mod summary;
mod tridiagonal;

pub use activation::StructuralBias;
pub use claim::{FidNoise, Outcome, Verdict, known_fid_noise, relative_gap, verdict};
pub use difference::{Difference, Spread};
pub use extrapolation::{Extrapolation, extrapolate, extrapolate_parts, part_sizes};
pub use frechet::{Reference, frechet_distance};
pub use gaussian::{FeatureError, Gaussian};
pub use inception_score::inception_score;
pub use manifold::{Coverage, Manifold};
pub use similarity::{PairStatistics, Similarity};
pub use student::t_quantile;
pub use summary::Summary;
