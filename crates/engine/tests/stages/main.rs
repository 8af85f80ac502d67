//! Whole stages, cut down, on the shipped weights.

mod conditional;
mod default_cell;
mod inception;
mod methods;
mod parts;
mod pinned;
mod run;
mod sampling;
mod sources;
mod table4;
mod text;
mod unet;
mod unet_backbone;
