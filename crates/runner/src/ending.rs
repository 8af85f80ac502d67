//! How stages end, and what the whole exits with.

use store::Outcome;

use crate::exit::Exit;

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "ended", rename_all = "snake_case")]
pub(crate) enum Ending {
    /// Its record was there before.
    Cached,
    /// It ran, here or in another runner.
    Done,
    /// Its loss was not finite: a result, but its dependents cannot run.
    Diverged {
        /// The first iteration whose loss was not finite.
        iteration: usize,
    },
    /// It failed.
    Failed {
        /// Whether a file or a device is missing.
        missing_input: bool,
        /// Why.
        error: String,
    },
    /// It failed in an earlier invocation, and nobody asked to try again.
    FailedBefore {
        /// Why.
        error: String,
    },
    /// A stage that it needs failed.
    Blocked,
    /// A stage that it needs diverged.
    Skipped,
    /// There is no record, and nothing may run (mode `read-only`).
    Missing,
    /// It was stopped by the user, after saving its state or (stopped at once) with that of its last checkpoint.
    Interrupted,
}

impl Ending {
    /// That of a stage with this outcome: `otherwise`, but for a divergence.
    pub(crate) fn of(outcome: Outcome, otherwise: Self) -> Self {
        match outcome {
            Outcome::Completed => otherwise,
            Outcome::Diverged { iteration } => Self::Diverged { iteration },
        }
    }

    /// A failure for which the stage itself has left no words.
    pub(crate) fn fault(error: impl std::fmt::Display) -> Self {
        Self::Failed { missing_input: false, error: error.to_string() }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cached => write!(f, "already done"),
            Self::Done => write!(f, "done"),
            Self::Diverged { iteration } => write!(f, "diverged at iteration {iteration}"),
            Self::Failed { error, .. } => write!(f, "failed: {error}"),
            Self::FailedBefore { error } => write!(f, "failed before: {error}"),
            Self::Blocked => write!(f, "blocked: a stage that it needs failed"),
            Self::Skipped => write!(f, "skipped: a stage that it needs diverged"),
            Self::Missing => write!(f, "missing"),
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

/// The exit of a whole execution. Every failed stage makes it non-zero.
pub(crate) fn exit(endings: &[Option<Ending>], interrupted: bool) -> Exit {
    if interrupted {
        return Exit::Interrupted;
    }
    let failed =
        |ending: &&Ending| matches!(ending, Ending::Failed { .. } | Ending::FailedBefore { .. } | Ending::Missing);
    let missing_input = |ending: &Ending| matches!(ending, Ending::Failed { missing_input: true, .. });
    let mut failures = endings.iter().flatten().filter(failed);
    match failures.next() {
        None => Exit::Done,
        Some(first) if missing_input(first) && failures.all(missing_input) => Exit::MissingInput,
        Some(_) => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(missing_input: bool) -> Option<Ending> {
        Some(Ending::Failed { missing_input, error: "no".to_owned() })
    }

    #[test]
    fn one_failed_stage_makes_the_exit_non_zero() {
        assert_eq!(exit(&[Some(Ending::Done), Some(Ending::Cached)], false), Exit::Done);
        assert_eq!(exit(&[Some(Ending::Done), failed(false), Some(Ending::Blocked)], false), Exit::Failed);
        assert_eq!(exit(&[Some(Ending::FailedBefore { error: "no".to_owned() })], false), Exit::Failed);
        assert_eq!(exit(&[failed(true), Some(Ending::Blocked)], false), Exit::MissingInput);
        assert_eq!(exit(&[failed(true), failed(false)], false), Exit::Failed);
        assert_eq!(exit(&[Some(Ending::Missing)], false), Exit::Failed);
    }

    #[test]
    fn divergence_is_a_result_and_an_interruption_has_its_own_code() {
        assert_eq!(exit(&[Some(Ending::Diverged { iteration: 3 }), Some(Ending::Skipped)], false), Exit::Done);
        assert_eq!(exit(&[Some(Ending::Interrupted), None], true), Exit::Interrupted);
    }
}
