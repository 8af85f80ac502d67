//! Whole stages, cut down, on the shipped weights.

mod conditional;
mod methods;
mod pinned;
mod run;
mod table4;
