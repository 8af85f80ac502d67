//! What a measured difference says about a published one.

use std::fmt;

use crate::Difference;

/// What became of the cells behind a claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Both measured; their difference.
    Measured(Difference),
    /// Measured once, with nothing to tell how far the numbers scatter.
    Once,
    /// The two configurations cannot but train alike.
    Identical,
    /// A loss was not finite.
    Diverged,
    /// At least one has no result.
    NotRun,
}

/// The verdict on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// At the paper's scale: same sign, zero outside the interval, the paper's difference inside it.
    Reproduced,
    /// Same sign, zero outside the interval.
    DirectionHolds,
    /// Zero outside the interval on the other side, or a difference where the paper has none.
    DirectionContradicted,
    /// Zero inside the interval.
    Inconclusive,
    /// The two cells cannot differ.
    IdenticalByConstruction,
    /// Training diverged.
    Diverged,
    /// Not run.
    NotRun,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reproduced => "reproduced",
            Self::DirectionHolds => "direction holds",
            Self::DirectionContradicted => "direction contradicted",
            Self::Inconclusive => "inconclusive",
            Self::IdenticalByConstruction => "identical by construction",
            Self::Diverged => "diverged",
            Self::NotRun => "not run",
        })
    }
}

/// The verdict on a published difference `claimed` (same order of cells and same direction as the measured one), by the
/// interval at `confidence`. Sizes are compared at the paper's scale only.
pub fn verdict(claimed: f64, outcome: &Outcome, confidence: f64, paper_scale: bool) -> Verdict {
    let difference = match outcome {
        Outcome::Measured(difference) => difference,
        Outcome::Once => return Verdict::Inconclusive,
        Outcome::Identical => return Verdict::IdenticalByConstruction,
        Outcome::Diverged => return Verdict::Diverged,
        Outcome::NotRun => return Verdict::NotRun,
    };
    let (low, high) = difference.interval(confidence);
    if !(low > 0.0 || high < 0.0) {
        Verdict::Inconclusive
    } else if claimed * difference.estimate <= 0.0 {
        Verdict::DirectionContradicted
    } else if paper_scale && low <= claimed && claimed <= high {
        Verdict::Reproduced
    } else {
        Verdict::DirectionHolds
    }
}

/// Where a gap between two published FIDs lies against the noise known of FID, 1 to 2% from seeds alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FidNoise {
    /// Below 1%: within the noise.
    Within,
    /// From 1 to 2%.
    Borderline,
    /// Above 2%: beyond it.
    Beyond,
}

impl fmt::Display for FidNoise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Within => "within the known noise",
            Self::Borderline => "borderline",
            Self::Beyond => "beyond the known noise",
        })
    }
}

/// `a - b`, relative to the mean of both.
pub fn relative_gap(a: f64, b: f64) -> f64 {
    (a - b) / (0.5 * (a + b))
}

/// Compares the size of the [`relative_gap`] with the known noise.
pub fn known_fid_noise(a: f64, b: f64) -> FidNoise {
    let gap = relative_gap(a, b).abs();
    if gap < 0.01 {
        FidNoise::Within
    } else if gap <= 0.02 {
        FidNoise::Borderline
    } else {
        FidNoise::Beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spread;

    fn measured(estimate: f64) -> Outcome {
        // t(2) at 95% is 4.30: an interval of estimate +- 1.
        let standard_error = 1.0 / 4.302_65;
        Outcome::Measured(Difference { estimate, standard_error, degrees: 2, spread: Spread::TrainingSeeds })
    }

    #[test]
    fn sign_and_size_against_the_interval() {
        let tiny = |claimed, estimate| verdict(claimed, &measured(estimate), 0.95, false);
        assert_eq!(tiny(-2.0, -1.5), Verdict::DirectionHolds);
        assert_eq!(tiny(2.0, 1.5), Verdict::DirectionHolds);
        assert_eq!(tiny(2.0, -1.5), Verdict::DirectionContradicted);
        assert_eq!(tiny(-2.0, 1.5), Verdict::DirectionContradicted);
        assert_eq!(tiny(0.0, 1.5), Verdict::DirectionContradicted);
        for estimate in [-0.9, 0.0, 0.9, f64::NAN] {
            assert_eq!(tiny(2.0, estimate), Verdict::Inconclusive);
        }
        let paper = |claimed, estimate| verdict(claimed, &measured(estimate), 0.95, true);
        assert_eq!(paper(2.0, 1.5), Verdict::Reproduced);
        assert_eq!(paper(2.6, 1.5), Verdict::DirectionHolds);
        assert_eq!(paper(0.4, 1.5), Verdict::DirectionHolds);
        assert_eq!(paper(-1.5, 1.5), Verdict::DirectionContradicted);
        assert_eq!(paper(0.5, 0.9), Verdict::Inconclusive);
    }

    #[test]
    fn cells_without_a_difference() {
        assert_eq!(verdict(1.0, &Outcome::Once, 0.95, true), Verdict::Inconclusive);
        assert_eq!(verdict(1.0, &Outcome::Identical, 0.95, true), Verdict::IdenticalByConstruction);
        assert_eq!(verdict(1.0, &Outcome::Diverged, 0.95, true), Verdict::Diverged);
        assert_eq!(verdict(1.0, &Outcome::NotRun, 0.95, true), Verdict::NotRun);
        assert_eq!(format!("{:>10}|", Verdict::NotRun), "   not run|");
        assert_eq!(Verdict::IdenticalByConstruction.to_string(), "identical by construction");
    }

    #[test]
    fn gaps_against_the_noise_of_fid() {
        assert_eq!(known_fid_noise(6.36, 6.41), FidNoise::Within);
        assert_eq!(known_fid_noise(5.87, 5.96), FidNoise::Borderline);
        assert_eq!(known_fid_noise(5.96, 5.87), FidNoise::Borderline);
        assert_eq!(known_fid_noise(5.87, 6.27), FidNoise::Beyond);
    }
}
