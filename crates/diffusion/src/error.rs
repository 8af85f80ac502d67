//! What can be wrong with a process or its spacing.

/// Why a process cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A beta left the open interval (0, 1), or there are fewer than two.
    #[error("{timesteps} timesteps give beta {beta} at step {step}, outside (0, 1): use more timesteps")]
    Beta {
        /// Length of the process.
        timesteps: usize,
        /// Where.
        step: usize,
        /// Its value.
        beta: f64,
    },
    /// A process needs two steps at least.
    #[error("a process of {0} timesteps has no reverse step with a variance: use at least 2")]
    TooShort(usize),
    /// A spacing that does not parse.
    #[error("spacing `{0}` is neither step counts such as `250` or `10,15,20` nor `ddim` and a count such as `ddim50`")]
    Syntax(String),
    /// A section asks for more steps than it has.
    #[error("cannot keep {wanted} steps of a section of {available}: ask for 1 to {available}")]
    Section {
        /// Steps asked for.
        wanted: usize,
        /// Steps there.
        available: usize,
    },
    /// No integer stride gives that count.
    #[error("no integer stride through {timesteps} timesteps keeps exactly {wanted}: use a divisor, or sections")]
    Stride {
        /// Length of the process.
        timesteps: usize,
        /// Steps asked for.
        wanted: usize,
    },
    /// Kept timesteps must rise and lie inside the process.
    #[error("timestep {timestep} at place {place} does not rise or lies beyond the {timesteps} of the process")]
    Order {
        /// The timestep.
        timestep: usize,
        /// Its place in the list.
        place: usize,
        /// Length of the process.
        timesteps: usize,
    },
}
