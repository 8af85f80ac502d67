//! The ways of running a process backwards.

/// Which sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Ancestral sampling (Ho et al. 2020).
    Ddpm,
    /// Song et al. 2021; `eta` 0 is deterministic, 1 has the variance of DDPM.
    Ddim {
        /// Share of the noise.
        eta: f64,
    },
    /// Pseudo linear multistep (Liu et al. 2022) without Runge-Kutta steps, as Stable Diffusion uses it: for `N` steps
    /// `N + 1` calls, over a process of [`Spacing::Leading`](crate::Spacing::Leading). Deterministic.
    Pndm,
}

/// Variance of the reverse step in DDPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// Interpolated (in logarithms, by the second half of the denoiser's output) between the posterior's variance at
    /// -1 and beta at 1.
    LearnedRange,
    /// Beta, at the first step the second's posterior variance; the output holds the noise only.
    FixedLarge,
}
