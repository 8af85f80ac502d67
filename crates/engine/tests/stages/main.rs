//! Whole stages, cut down, on the shipped weights.

mod inception;
mod methods;
mod pinned;
mod run;
mod table4;
