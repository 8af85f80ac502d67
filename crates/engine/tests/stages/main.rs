//! Whole stages, cut down, on the shipped weights.

mod default_cell;
mod pinned;
mod run;
mod table4;
