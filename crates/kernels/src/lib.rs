//! The DiT trunk's forward and backward passes written by hand over preallocated buffers.
//!
//! A step is three calls: [`Condition::compute`] turns timesteps and labels into modulations, [`Workspace::step`] turns
//! images, by way of the network's output and a loss, into the gradients that the [`Plan`] asks for, and [`AdamW::step`]
//! changes a flat buffer. Where everything learns, [`Workspace::condition_backward`] completes the weights' gradients.
//! Sampling is [`Workspace::forward`]. What a patch adds to the tokens comes in as a
//! [`Contribution`] per block; the gate that made it lies outside.
//!
//! Letters: `B` batch, `T` image tokens, `N` prompts, `D` width, `H` heads, `L` blocks, `R` rows of the condition.
//! All results are the same to the bit for every number of threads (rayon's current pool is used).

mod activations;
mod adamw;
mod attention;
mod backward;
mod condition;
mod contribution;
mod count;
mod forward;
mod gelu;
mod layernorm;
mod matrix;
#[doc(hidden)]
pub mod oracle;
mod parameters;
mod pass;
mod patches;
mod peak;
mod plan;
mod residual;
mod shape;
#[doc(hidden)]
pub mod single;
mod tile;
mod transposed;
mod trunk;
mod vector;
mod workspace;

pub use adamw::{AdamW, Group, average};
pub use condition::{Condition, OutsideGradients, timestep_features, timestep_frequencies};
pub use contribution::{Contribution, ContributionGradient};
pub use parameters::{Parameters, ParametersError, Segment};
pub use peak::Peak;
pub use plan::{Learn, Plan};
pub use shape::{Shape, ShapeError};
pub use trunk::Inputs;
pub use workspace::{Gradients, Workspace};
