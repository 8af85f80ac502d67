//! The results tree: keys, locks, atomic records, integrity, and frames over them.
//!
//! ```text
//! results/<kind>/<key[..2]>/<key>/          a finished stage: params.yaml, record.json, logs/, artifacts
//!                          .<key>.partial/  a stage being worked on, or interrupted: checkpoints and logs survive
//!                          .<key>.lock      locked by the process that works on it
//! ```
//! A stage is worked on in its partial directory and renamed into place when it is whole: a reader sees nothing or all of
//! it, whenever the writer was killed. [`Store`] runs and finishes stages; [`Tree`] is the read-only view that reports use,
//! of a results directory or of records published beside a report.

pub mod atomic;
mod claim;
mod clock;
mod commit;
mod error;
pub mod frames;
pub mod gc;
mod hashes;
pub mod index;
mod lock;
mod params;
mod provenance;
pub mod publish;
mod record;
mod status;
mod store;
mod tree;
mod verify;

pub use claim::Claim;
pub use commit::Finished;
pub use error::StoreError;
pub use frames::CurvePoint;
pub use hashes::HashCache;
pub use lock::Owner;
pub use provenance::{Checkout, Code, Cost, Machine, Provenance};
pub use record::{Artifact, Outcome, Record, RecordedInput};
pub use status::{Failure, FailureClass, Status};
pub use store::Store;
pub use tree::Tree;
pub use verify::{Finding, Verification, verify};
