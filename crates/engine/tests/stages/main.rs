//! Whole stages, cut down, on the shipped weights.

mod pinned;
mod run;
mod sources;
mod table4;
