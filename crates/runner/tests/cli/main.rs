//! The runner as its users meet it: commands typed in a repository, what they say, their exit codes, what they leave.

mod architecture;
mod bench;
mod cost;
mod everything;
mod exchange;
mod execution;
mod files;
mod interruption;
mod latents;
mod repository;
mod usage;
