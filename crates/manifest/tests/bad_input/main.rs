//! Every mistake in the input is named at its line and column, with what is allowed and what is nearest.

mod artifact;
mod fixture;
mod input;
mod option;
mod recipe;
mod scale;
