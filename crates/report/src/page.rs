//! The report's page in Markdown: what was measured, how far it can be trusted, and how to do it again.

use std::collections::BTreeMap;
use std::path::Path;

use manifest::digest::Key;
use manifest::method::Method;
use manifest::plan::{CellRun, Plan, Table, Unmeasured};
use metrics::{Difference, Spread};
use polars::prelude::DataFrame;
use store::{Record, Tree};

use crate::drawn::{self, Drawn};
use crate::figures::signed;
use crate::gate::Gates;
use crate::judged::{Comparison, Control, Judged, JudgedCell, needs_control};
use crate::markdown::{Align, code, escape, table};
use crate::views::View;
use crate::{Operations, protocol, provenance, readings};

/// Everything that is shown of one table.
#[derive(Clone, Copy)]
pub(crate) struct Page<'a, 'p> {
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// Its table.
    pub(crate) table: &'a Table,
    /// What is said about the cells.
    pub(crate) judged: &'a Judged<'p>,
    /// Name of the metric.
    pub(crate) metric: &'a str,
    /// One row per cell.
    pub(crate) cells: &'a DataFrame,
    /// One row per comparison of two cells.
    pub(crate) contrasts: &'a DataFrame,
    /// The paper's gaps.
    pub(crate) gaps: &'a DataFrame,
    /// The figures.
    pub(crate) figures: &'a [Drawn],
    /// The distance of real images to the reference, where it is measured.
    pub(crate) floor: Option<f64>,
    /// How far from uniform the gates are.
    pub(crate) gates: &'a Gates,
    /// All records behind the table.
    pub(crate) records: &'a [Record],
    /// The published records, relative to the page.
    pub(crate) published: &'a Tree,
    /// The same cells by other metrics.
    pub(crate) views: &'a [View<'p>],
    /// What else was measured, one row per distinct cell.
    pub(crate) further: &'a DataFrame,
    /// What methods cost.
    pub(crate) operations: Operations<'a>,
    /// The folder of the table's files, relative to the page.
    pub(crate) folder: &'a str,
}

/// Marks intervals that hold less than the others of their table.
pub(crate) const PARTIAL: &str = "†";

/// What the intervals of a table are over that hold the most.
pub(crate) fn usual_spread(judged: &Judged) -> Option<Spread> {
    let occurs = |spread: &Spread| differences(judged).any(|difference| difference.spread == *spread);
    [Spread::TrainingSeeds, Spread::SamplingSeeds, Spread::Subsampling].into_iter().find(occurs)
}

/// What an interval means in this table.
pub(crate) fn interval(judged: &Judged) -> String {
    let usual = usual_spread(judged);
    let of_usual = differences(judged).filter(|difference| Some(difference.spread) == usual);
    let seeds = of_usual.map(|difference| difference.degrees + 1).max().unwrap_or_default();
    match usual {
        Some(Spread::TrainingSeeds) => format!("95% t intervals of paired differences over {seeds} training seeds"),
        Some(Spread::SamplingSeeds) => format!("95% t intervals of paired differences over {seeds} sampling seeds"),
        Some(Spread::Subsampling) | None => "95% intervals of the sampling error alone: one training seed".to_owned(),
    }
}

fn differences(judged: &Judged) -> impl Iterator<Item = Difference> {
    judged.comparisons().filter_map(Comparison::difference)
}

impl Page<'_, '_> {
    /// All sections on the table.
    pub(crate) fn render(&self) -> String {
        let sections = [
            self.head(),
            self.trust(),
            self.results(),
            self.views(),
            self.further(),
            self.figures(),
            self.gaps(),
            self.identical(),
            self.readings(),
            self.again(),
        ];
        let sections: Vec<String> = sections.into_iter().filter(|section| !section.is_empty()).collect();
        sections.join("\n")
    }

    fn head(&self) -> String {
        let paper = &self.table.paper;
        format!(
            "{} of the paper ({} on {}, {} further iterations), run again at scale {}: {}.\n",
            escape(&paper.place),
            escape(&paper.backbone),
            escape(&paper.dataset),
            paper.further_iterations,
            code(&self.table.scale_name),
            escape(self.table.scale.title.trim_end_matches('.')),
        )
    }

    /// Protocol, detectable difference, positive control, the meaning of verdicts.
    fn trust(&self) -> String {
        let mut lines = vec![format!("**Protocol.** {}.", protocol::line(self.plan, self.table, self.judged))];
        lines.push(self.unmeasured());
        lines.push(provenance::local_changes(self.table, self.records));
        lines.push(match drawn::detectable(self.judged) {
            Some((least, median, most)) => format!(
                "**Smallest detectable difference** (two-sided 5%, power 80%): {} in {}, the median over the comparisons with the \
                 baseline; from {} to {}. A smaller true difference would mostly go unseen here.",
                self.number(median),
                code(self.metric),
                self.number(least),
                self.number(most)
            ),
            None => "**Smallest detectable difference:** unknown, nothing has been compared yet.".to_owned(),
        });
        lines.push(self.floor.map_or(String::new(), |floor| real_images(self.metric, &self.number(floor))));
        lines.push(self.control());
        lines.push(self.gates.paragraph(self.table));
        lines.push(self.verdicts());
        lines.retain(|line| !line.is_empty());
        lines.join("\n\n") + "\n"
    }

    /// What the manifest asks for in vain; empty where there is none.
    fn unmeasured(&self) -> String {
        let said = |one: &Unmeasured| format!("{} ({})", one.measure.title(), one.reason);
        match self.table.unmeasured.as_slice() {
            [] => String::new(),
            some => format!("**Not measured:** {}.", some.iter().map(said).collect::<Vec<_>>().join("; ")),
        }
    }

    fn control(&self) -> String {
        let default = code(self.table.default_cell.as_deref().unwrap_or("the default cell"));
        let noise = self.table.scale.evaluation.positive_control_noise;
        let what =
            format!("noise on the prompts of {default}, {noise} times their root mean square, must make it worse");
        let shown = |difference: &Difference| self.signed_interval(Some(*difference));
        match &self.judged.control {
            Control::Absent => {
                "**Positive control:** none, since the table's method has no prompts to disturb.".to_owned()
            }
            Control::Missing => {
                "**Positive control: none: no cell of this table trains the method as the manifest names it, and not just one \
                 trains it in another way; all verdicts are withheld.**"
                    .to_owned()
            }
            Control::Shows(difference) => format!("**Positive control** ({what}): it shows, {}.", shown(difference)),
            Control::Silent(difference) => format!(
                "**Positive control ({what}): IT DOES NOT SHOW, {}. This protocol cannot see a change that is known to hurt; all \
                 verdicts are withheld.**",
                shown(difference)
            ),
            Control::Diverged => {
                format!(
                    "**Positive control ({what}): {default} diverged, so it says nothing; all verdicts are withheld.**"
                )
            }
            Control::NotRun => {
                format!("**Positive control ({what}): not run yet; until then all verdicts are withheld.**")
            }
        }
    }

    fn verdicts(&self) -> String {
        let size = match self.judged.paper_scale {
            true => "*reproduced*: moreover the paper's difference lies in the interval",
            false => {
                "*reproduced* is said at the paper's own scale only: here sizes are not comparable, directions are"
            }
        };
        let judged = std::iter::once(self.judged).chain(self.views.iter().map(|view| &view.judged));
        let count = judged.flat_map(Judged::distinct).filter(|c| c.verdict.is_some_and(needs_control)).count();
        let chance = match count {
            0 => String::new(),
            _ => format!(
                " The verdicts are not corrected for their number ({count} on different runs): about one in twenty would show by \
                 chance where nothing differs."
            ),
        };
        let usual = usual_spread(self.judged);
        let interval = match usual {
            Some(Spread::TrainingSeeds) => "the 95% t interval of the paired difference over training seeds",
            Some(Spread::SamplingSeeds) => {
                "the 95% t interval of the paired difference over sampling seeds, where one of the two is a single training from a \
                 file: another may differ"
            }
            Some(Spread::Subsampling) | None => {
                "the 95% interval from half-size subsets of the samples of one training seed: it holds the sampling error and \
                 no more, not what another training would give"
            }
        };
        let marked = match differences(self.judged).all(|difference| Some(difference.spread) == usual) {
            true => String::new(),
            false => format!(
                " ({PARTIAL}: less than that, for one seed is common to both or one is a single training from a file)"
            ),
        };
        format!(
            "**Verdicts** compare a difference with {interval}{marked}. *direction holds*: the paper's sign, zero outside the interval; \
             *direction contradicted*: the other sign, zero outside; *inconclusive*: zero inside; *identical by construction*: the \
             two cells are written differently but cannot train differently; {size}. Lower is better.{chance}{}",
            self.finite()
        )
    }

    /// How finite runs are judged that the paper says diverge; empty where there is none.
    fn finite(&self) -> String {
        let said = |cell: &JudgedCell| cell.cell.planned.claim.as_ref().is_some_and(|claim| claim.diverges);
        let cells = self.judged.cells.iter().filter(|cell| said(cell) && cell.cell.measured().next().is_some());
        let cells: Vec<String> = cells.map(|cell| code(&cell.cell.planned.id)).collect();
        if cells.is_empty() {
            return String::new();
        }
        format!(
            " The paper says that {} diverges; being worse is no divergence: *direction holds* needs every seed to diverge, \
             and seeds that stay finite contradict it at the paper's own scale only and are *inconclusive* elsewhere, since a \
             shorter training says little about the paper's.",
            cells.join(", ")
        )
    }

    fn figures(&self) -> String {
        let shown: Vec<&Drawn> = self.figures.iter().filter(|figure| figure.shown).collect();
        if shown.is_empty() {
            return String::new();
        }
        let mut text = "## Figures\n".to_owned();
        for figure in shown {
            let link = format!("{}/{}", self.folder, figure.file);
            let title = escape(&figure.title);
            text.push_str(&format!("\n### {title}\n\n{}\n\n![{title}]({link})\n", escape(&figure.caption)));
        }
        text
    }

    fn readings(&self) -> String {
        let readings = readings::of(self.plan, self.table);
        if readings.is_empty() {
            return String::new();
        }
        let gated = |method: &Method| matches!(method, Method::Dmp(_));
        let patched = self.table.cells.iter().filter(|cell| gated(&cell.written)).count();
        let mut text =
            "## Readings\n\nThe paper leaves these open, or its released code does otherwise; each is a key of the \
                        manifest that can be set.\n\n"
                .to_owned();
        for (reading, cells) in readings {
            let cells = match cells.len() {
                1..=4 => cells.iter().map(|cell| code(cell)).collect::<Vec<_>>().join(", "),
                some if some == patched => "all cells with a gate".to_owned(),
                some => format!("{some} cells, {} among them", code(&cells[0])),
            };
            text.push_str(&format!("- {} ({cells})\n", escape(&reading)));
        }
        text
    }

    /// Records and commands, a row per cell.
    fn again(&self) -> String {
        let columns = [("Cell", Align::Left), ("Records by training seed", Align::Left), ("Run it again", Align::Left)];
        let mut rows = Vec::new();
        let mut targets = BTreeMap::new();
        let control = self.table.positive_control.iter();
        for cell in self.table.cells.iter().chain(control) {
            let mut links = Vec::new();
            for run in &cell.runs {
                links.push(match self.record(run) {
                    Some((key, kind)) => {
                        targets.insert(key.short(), web(&self.published.dir(key, kind).join(Record::FILE)));
                        format!("[{}]", key.short())
                    }
                    None => "none".to_owned(),
                });
            }
            let command = protocol::command(self.plan, self.table, &cell.id);
            rows.push(vec![code(&cell.id), links.join(" "), code(&command)]);
        }
        let further = match self.further.height() {
            0 => String::new(),
            _ => format!(", [further.csv]({}/further.csv)", self.folder),
        };
        let targets: Vec<String> = targets.iter().map(|(key, path)| format!("[{key}]: {path}\n")).collect();
        format!(
            "## Records and commands\n\n{} runs what is missing of the whole table; the commands below run a cell anew with all that it is \
             made from, over the records in `results/`; `runner show` prints a record. Numbers with all their digits: [{a}.csv]({a}.csv) (a row per cell and seed), [cells.csv]({f}/cells.csv), \
             [contrasts.csv]({f}/contrasts.csv){further}.\n\n{}\n{}",
            code(&protocol::reproduce(self.plan, self.table)),
            table(&columns, &rows),
            targets.concat(),
            a = self.plan.artifact,
            f = self.folder,
        )
    }

    /// The record of a run: its distance, or else its diverged training.
    fn record(&self, run: &CellRun) -> Option<(Key, &'static str)> {
        let candidates = [Some((run.metrics, "metrics")), run.trained.map(|train| (train, "train"))];
        let has =
            |(key, kind): &(Key, &str)| self.records.iter().any(|record| record.key == *key && record.kind == *kind);
        candidates.into_iter().flatten().find(has)
    }

    fn signed_interval(&self, difference: Option<Difference>) -> String {
        let Some(difference) = difference else { return String::new() };
        let (low, high) = difference.interval(crate::judged::CONFIDENCE);
        let number = |value: f64| signed(value, (high - low) / 2.0);
        format!("{} [{}, {}] in {}", number(difference.estimate), number(low), number(high), code(self.metric))
    }

    /// A number with as many decimals as the table's intervals deserve.
    pub(crate) fn number(&self, value: f64) -> String {
        format!("{value:.*}", self.decimals())
    }

    /// Decimals that give the median interval two significant digits; without intervals, 2 of a distance and 4 of all else.
    fn decimals(&self) -> usize {
        let mut widths: Vec<f64> =
            differences(self.judged).map(|d| d.half_width(crate::judged::CONFIDENCE)).filter(|w| *w > 0.0).collect();
        widths.sort_by(f64::total_cmp);
        let without = if self.judged.metric.is_some() { 4 } else { 2 };
        widths.get(widths.len() / 2).map_or(without, |median| (1.0 - median.log10().floor()).clamp(1.0, 6.0) as usize)
    }
}

/// The distance that a perfect method would have.
fn real_images(metric: &str, distance: &str) -> String {
    format!(
        "**Real images against the reference:** {distance} in {}. As many real images as there are samples lie this far from \
         the reference; no method can be expected below.",
        code(metric)
    )
}

/// A relative path as a link has it.
fn web(path: &Path) -> String {
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_names_its_metric() {
        let text = real_images("fd_cnn", "0.12");
        assert!(text.starts_with("**Real images against the reference:** 0.12 in `fd_cnn`."), "{text}");
    }
}
