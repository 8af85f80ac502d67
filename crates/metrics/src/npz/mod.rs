//! numpy's archives of arrays, in and out: the files in which references are published.
//!
//! ADM's evaluator reads and ships `mu`, `sigma` (pooled features), `mu_s`, `sigma_s` (spatial features) and `arr_0` (the
//! images, `u8`); pytorch-fid's files hold `mu` and `sigma`. Arrays are `f32`, `f64` or `u8`, little-endian, in C or
//! Fortran order, stored or deflated. Files are taken for what they hold, not for what they say: nothing is allocated for
//! a promise, nothing is unpickled and nothing is written to a path that an archive names.

mod error;
mod header;
mod read;
mod statistics;
mod write;

pub use error::NpzError;
pub use header::{Dtype, Element};
pub use read::{Archive, Array};
pub use statistics::Statistics;
pub use write::{Storage, Writer};
