//! Differences between cells, and what they say about the paper's.

use manifest::claim::{ALMOST, Direction, Metric};
use manifest::plan::{Contrast, Table};
use metrics::{Difference, Outcome, Spread, Summary, Verdict};

use crate::error::Error;
use crate::observed::{Cell, Measured, name};
use crate::paper_scale::is_paper_scale;

/// Confidence of every interval.
pub(crate) const CONFIDENCE: f64 = 0.95;
/// The protocol's smallest detectable difference: two-sided level and power.
pub(crate) const ALPHA: f64 = 0.05;
/// See [`ALPHA`].
pub(crate) const POWER: f64 = 0.8;
/// Share of the samples in a subset.
const SHARE: f64 = 0.5;

/// Everything that is said about a table.
pub(crate) struct Judged<'p> {
    /// What was measured; `None` is the distance.
    pub(crate) metric: Option<Metric>,
    /// The baseline first; the positive control is not among them.
    pub(crate) cells: Vec<JudgedCell<'p>>,
    /// Comparisons of two cells, neither of them the baseline.
    pub(crate) contrasts: Vec<Comparison>,
    /// The positive control.
    pub(crate) control: Control,
    /// Whether the sizes of differences can be compared with the paper's.
    pub(crate) paper_scale: bool,
}

impl Judged<'_> {
    /// Every comparison: those with the baseline, then the contrasts.
    pub(crate) fn comparisons(&self) -> impl Iterator<Item = &Comparison> {
        self.cells.iter().filter_map(|cell| cell.to_baseline.as_ref()).chain(&self.contrasts)
    }

    /// The comparisons of two different chains of runs, each once: two names of one cell are one comparison.
    pub(crate) fn distinct(&self) -> impl Iterator<Item = &Comparison> {
        self.comparisons().filter(move |comparison| {
            let (a, b) = self.pair(comparison);
            a != b && self.first_like(comparison).is_some_and(|first| std::ptr::eq(first, *comparison))
        })
    }

    /// The cell of an earlier comparison of the same runs that says the same; `None` where this is the first or says another thing.
    pub(crate) fn said_by(&self, comparison: &Comparison) -> Option<&str> {
        let (a, b) = self.pair(comparison);
        let first = self.first_like(comparison).filter(|_| a != b)?;
        (first.cell != comparison.cell && first.verdict == comparison.verdict).then_some(first.cell.as_str())
    }

    /// The comparison of a cell with another.
    pub(crate) fn comparison(&self, cell: &str, against: &str) -> Option<&Comparison> {
        self.comparisons().find(|comparison| comparison.cell == cell && comparison.against == against)
    }

    fn first_like(&self, comparison: &Comparison) -> Option<&Comparison> {
        let pair = self.pair(comparison);
        self.comparisons().find(|other| self.pair(other) == pair)
    }

    /// The cells whose runs are compared, by the first name of each.
    fn pair<'a>(&'a self, comparison: &'a Comparison) -> (&'a str, &'a str) {
        let own = |id: &'a str| {
            let cell = self.cells.iter().find(|cell| cell.cell.planned.id == id);
            cell.and_then(|cell| cell.cell.planned.same_run_as.as_deref()).unwrap_or(id)
        };
        (own(&comparison.cell), own(&comparison.against))
    }
}

/// A cell with its mean and its difference to the baseline.
pub(crate) struct JudgedCell<'p> {
    /// The cell and its runs.
    pub(crate) cell: Cell<'p>,
    /// Over training seeds.
    pub(crate) summary: Option<Summary>,
    /// Against the baseline; `None` for the baseline itself.
    pub(crate) to_baseline: Option<Comparison>,
}

/// Two cells beside each other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// Id of the cell.
    pub(crate) cell: String,
    /// Id of the cell that is subtracted.
    pub(crate) against: String,
    /// Which side of it the paper puts the cell on.
    pub(crate) expected: Option<Direction>,
    /// The values that the paper prints for both.
    pub(crate) printed: Option<(f64, f64)>,
    /// What was measured.
    pub(crate) outcome: Outcome,
    /// What that says; `None` where the paper claims nothing, or where verdicts are withheld.
    pub(crate) verdict: Option<Verdict>,
}

impl Comparison {
    /// The paper's difference.
    pub(crate) fn paper_gap(&self) -> Option<f64> {
        self.printed.map(|(cell, against)| cell - against)
    }

    /// The measured difference.
    pub(crate) fn difference(&self) -> Option<Difference> {
        match self.outcome {
            Outcome::Measured(difference) => Some(difference),
            Outcome::Once | Outcome::Identical | Outcome::Diverged | Outcome::NotRun => None,
        }
    }
}

/// What became of the positive control, a change that is known to hurt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Control {
    /// The table's method has no prompts to disturb, or the distance is not what is judged.
    Absent,
    /// The method has prompts, but no cell stands for it, undisturbed.
    Missing,
    /// No record of it, or of the cell it disturbs.
    NotRun,
    /// Worse than the undisturbed cell, and the interval excludes zero.
    Shows(Difference),
    /// Not so: the protocol cannot see what it should.
    Silent(Difference),
    /// The cell it disturbs diverged.
    Diverged,
}

impl Control {
    /// Whether verdicts may be given.
    pub(crate) fn permits_verdicts(&self) -> bool {
        matches!(self, Self::Absent | Self::Shows(_))
    }
}

/// Compares every cell with the baseline and with those that the paper compares it with, by their distances or by another
/// metric.
///
/// # Errors
/// [`Error::Lacks`] where a single seed has no subsets to estimate a distance's error from.
pub(crate) fn judge<'p>(
    table: &'p Table,
    mut cells: Vec<Cell<'p>>,
    metric: Option<Metric>,
) -> Result<Judged<'p>, Error> {
    let outcome = |a: &Cell, b: &Cell| outcome(a, b, metric);
    let control = match &table.positive_control {
        None if metric.is_none() && table.method.prompts().is_some() => Control::Missing,
        None => Control::Absent,
        Some(_) => {
            let disturbed = cells.pop().expect("the control is the last cell");
            let plain = table.default_cell.as_ref().and_then(|id| cells.iter().find(|cell| cell.planned.id == *id));
            match plain.map(|plain| outcome(&disturbed, plain)).transpose()? {
                Some(Outcome::Measured(difference)) if difference.interval(CONFIDENCE).0 > 0.0 => {
                    Control::Shows(difference)
                }
                Some(Outcome::Measured(difference)) => Control::Silent(difference),
                Some(Outcome::Diverged) => Control::Diverged,
                Some(Outcome::NotRun | Outcome::Once | Outcome::Identical) | None => Control::NotRun,
            }
        }
    };
    let paper_scale = is_paper_scale(table);
    let judge = Judge { table, cells: &cells, metric, paper_scale, withheld: !control.permits_verdicts() };
    let (mut comparisons, mut contrasts) = (Vec::new(), Vec::new());
    for cell in &cells[1..] {
        comparisons.push(judge.to_baseline(cell)?);
    }
    let own = |contrast: &&Contrast| contrast.metric == metric.unwrap_or(Metric::Fid);
    for planned in table.contrasts.iter().filter(own).filter(|contrast| contrast.against != cells[0].planned.id) {
        contrasts.push(judge.comparison(&planned.cell, &planned.against, Some(planned.expected))?);
    }
    let mut to_baseline = std::iter::once(None).chain(comparisons.into_iter().map(Some));
    let cells = cells.into_iter().map(|cell| {
        let values: Vec<f64> = cell.measured().map(|(_, measured)| measured.value).collect();
        JudgedCell { summary: Summary::of(&values), to_baseline: to_baseline.next().flatten(), cell }
    });
    Ok(Judged { metric, cells: cells.collect(), contrasts, control, paper_scale })
}

/// The mean over training seeds.
fn mean(cell: &Cell) -> Option<f64> {
    let values: Vec<f64> = cell.measured().map(|(_, measured)| measured.value).collect();
    Summary::of(&values).map(|summary| summary.mean)
}

/// Whether a difference is small, by its interval, beside the value compared with: an equivalence test.
fn almost_equal(difference: &Difference, other: f64) -> Verdict {
    let (low, high) = difference.interval(CONFIDENCE);
    let most = ALMOST * other.abs();
    if low >= -most && high <= most {
        Verdict::DirectionHolds
    } else if low > most || high < -most {
        Verdict::DirectionContradicted
    } else {
        Verdict::Inconclusive
    }
}

/// What a cell's own seeds say about the claim that its training diverges. A short training that stays finite says little
/// about the paper's long one.
fn divergence(cell: &Cell, paper_scale: bool) -> Verdict {
    let (diverged, finite) = (cell.diverged().count(), cell.measured().count());
    if diverged == cell.runs.len() {
        Verdict::DirectionHolds
    } else if paper_scale && finite == cell.runs.len() {
        Verdict::DirectionContradicted
    } else if diverged + finite == 0 {
        Verdict::NotRun
    } else {
        Verdict::Inconclusive
    }
}

struct Judge<'a, 'p> {
    table: &'a Table,
    cells: &'a [Cell<'p>],
    metric: Option<Metric>,
    paper_scale: bool,
    withheld: bool,
}

impl Judge<'_, '_> {
    fn cell(&self, id: &str) -> Option<&Cell<'_>> {
        self.cells.iter().find(|cell| cell.planned.id == id)
    }

    /// Whether the paper says that a cell's training diverges.
    fn is_said_to_diverge(&self, id: &str) -> bool {
        self.cell(id).and_then(|cell| cell.planned.claim.as_ref()).is_some_and(|claim| claim.diverges)
    }

    /// A cell against the baseline: as the claims say, or by the printed values.
    fn to_baseline(&self, cell: &Cell) -> Result<Comparison, Error> {
        let baseline = &self.cells[0].planned.id;
        let metric = self.metric.unwrap_or(Metric::Fid);
        let claimed = self
            .table
            .contrasts
            .iter()
            .find(|c| c.metric == metric && c.cell == cell.planned.id && c.against == *baseline);
        self.comparison(&cell.planned.id, baseline, claimed.map(|contrast| contrast.expected))
    }

    fn comparison(&self, cell: &str, against: &str, expected: Option<Direction>) -> Result<Comparison, Error> {
        let printed = |id: &str| self.cell(id).and_then(|cell| cell.planned.claim.as_ref()?.value);
        let printed = printed(cell).zip(printed(against));
        let outcome = match (self.cell(cell), self.cell(against)) {
            (Some(a), Some(b)) => outcome(a, b, self.metric)?,
            _ => Outcome::NotRun,
        };
        let gap = printed.map(|(a, b)| a - b);
        let sign = expected.map(|expected| match expected {
            Direction::Lower => -1.0,
            Direction::Higher => 1.0,
            Direction::Equal => 0.0,
        });
        // Without two printed values there is a direction but no size to reproduce.
        let claimed = gap.or(sign);
        let metric = self.metric.unwrap_or(Metric::Fid);
        // The sampling error of one training says nothing of what another would give.
        let over_seeds = matches!(outcome, Outcome::Measured(difference) if difference.spread == Spread::TrainingSeeds);
        let sized = self.paper_scale && gap.is_some() && over_seeds;
        let verdict = match outcome {
            Outcome::Measured(_) if metric.depends_on_load() => claimed.map(|_| Verdict::Inconclusive),
            Outcome::Measured(difference) if difference.estimate.abs() < metric.least_difference() => {
                claimed.map(|_| Verdict::Inconclusive)
            }
            Outcome::Measured(_) | Outcome::Once | Outcome::Diverged if self.is_said_to_diverge(cell) => {
                self.cell(cell).map(|cell| divergence(cell, self.paper_scale))
            }
            Outcome::Measured(difference) if expected == Some(Direction::Equal) => {
                self.cell(against).and_then(mean).map(|mean| almost_equal(&difference, mean))
            }
            _ => claimed.map(|claimed| metrics::verdict(claimed, &outcome, CONFIDENCE, sized)),
        };
        let verdict = verdict.filter(|verdict| !self.withheld || !needs_control(*verdict));
        Ok(Comparison { cell: cell.to_owned(), against: against.to_owned(), expected, printed, outcome, verdict })
    }
}

/// Whether a verdict rests on a measured difference.
pub(crate) fn needs_control(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Reproduced | Verdict::DirectionHolds | Verdict::DirectionContradicted | Verdict::Inconclusive => true,
        Verdict::IdenticalByConstruction | Verdict::Diverged | Verdict::NotRun => false,
    }
}

/// Whether one of the two was trained elsewhere, once for all seeds.
fn from_a_file(a: &Cell, b: &Cell) -> bool {
    a.planned.trained.is_some() || b.planned.trained.is_some()
}

/// The paired difference `a - b` over the seeds that both have measured.
fn outcome(a: &Cell, b: &Cell, metric: Option<Metric>) -> Result<Outcome, Error> {
    if a.is_same_run_as(b) {
        return Ok(Outcome::Identical);
    }
    if a.diverged().chain(b.diverged()).next().is_some() {
        return Ok(Outcome::Diverged);
    }
    let other = |seed: u64| b.measured().find(|(other, _)| *other == seed).map(|(_, measured)| measured);
    let pairs: Vec<(u64, &Measured, &Measured)> =
        a.measured().filter_map(|(seed, measured)| Some((seed, measured, other(seed)?))).collect();
    let difference = match pairs.as_slice() {
        [] => return Ok(Outcome::NotRun),
        // What else is measured has no subsets.
        [_] if metric.is_some() => return Ok(Outcome::Once),
        // A gate is looked at once a training, whatever the number of seeds.
        _ if metric == Some(Metric::ActivationGain) && from_a_file(a, b) => return Ok(Outcome::Once),
        [(seed, a_only, b_only)] => {
            let both = a_only.subsets.len() == b_only.subsets.len();
            let (x, y) = (&a_only.subsets, &b_only.subsets);
            both.then(|| Difference::over_subsets(a_only.value, b_only.value, x, y, SHARE)).flatten().ok_or_else(
                || {
                    let run = a.runs.iter().find(|run| run.keys.seed == *seed).expect("just measured");
                    Error::Lacks {
                        record: name(run.keys.metrics, "metrics"),
                        what: "subsets of its samples".to_owned(),
                    }
                },
            )?
        }
        _ => {
            let values = |pick: fn(&(u64, &Measured, &Measured)) -> f64| pairs.iter().map(pick).collect::<Vec<f64>>();
            let difference = Difference::over_seeds(&values(|pair| pair.1.value), &values(|pair| pair.2.value))
                .expect("two seeds or more");
            let spread = if from_a_file(a, b) { Spread::SamplingSeeds } else { difference.spread };
            Difference { spread, ..difference }
        }
    };
    Ok(Outcome::Measured(difference))
}
