//! What the paper claims beside the distance: the same cells by another metric.

use manifest::claim::{Direction, Metric};
use manifest::plan::{Plan, PlannedCell, Table};
use metrics::Outcome;
use polars::prelude::{DataFrame, PlSmallStr};
use store::Store;

use crate::error::Error;
use crate::judged::{Comparison, Judged, judge};
use crate::markdown::{Align, Values, code, escape, table as markdown};
use crate::observed;
use crate::page::Page;
use crate::{consistency, frames};

/// A table's cells by another metric.
pub(crate) struct View<'p> {
    /// The metric.
    pub(crate) metric: Metric,
    /// What is said about the cells.
    pub(crate) judged: Judged<'p>,
    /// One row per cell.
    pub(crate) cells: DataFrame,
    /// One row per comparison of two cells.
    pub(crate) contrasts: DataFrame,
}

impl View<'_> {
    /// Cell, metric and verdict of every comparison that the paper makes.
    pub(crate) fn verdicts(&self) -> Vec<(String, String, String)> {
        let said = |comparison: &Comparison| {
            let verdict = frames::verdict(comparison, &self.judged)?;
            Some((comparison.cell.clone(), self.metric.name().to_owned(), verdict))
        };
        self.judged.comparisons().filter_map(said).collect()
    }
}

/// The table once for each metric beside the distance that a cell has a claim on, with the claims on it.
pub(crate) fn tables(table: &Table) -> Vec<(Metric, Table)> {
    let mut tables: Vec<(Metric, Table)> = Vec::new();
    for metric in table.cells.iter().flat_map(|cell| &cell.further_claims).map(|claim| claim.metric) {
        if tables.iter().any(|(known, _)| *known == metric) {
            continue;
        }
        // The positive control is about the distance.
        let mut own = Table { positive_control: None, ..table.clone() };
        for cell in &mut own.cells {
            cell.claim = cell.further_claims.iter().find(|claim| claim.metric == metric).cloned();
        }
        tables.push((metric, own));
    }
    tables
}

/// Judges the cells of each of [`tables`].
pub(crate) fn all<'p>(plan: &'p Plan, tables: &'p [(Metric, Table)], store: &Store) -> Result<Vec<View<'p>>, Error> {
    let view = |(metric, table): &'p (Metric, Table)| {
        let cells = observed::cells(plan, table, store, Some(*metric))?;
        consistency::check(plan, &cells, store.tree())?;
        let judged = judge(table, cells, Some(*metric))?;
        let cells = frames::cells(&judged, &table.groups)?;
        Ok(View { metric: *metric, contrasts: frames::contrasts(&judged)?, cells, judged })
    };
    tables.iter().map(view).collect()
}

/// What is said where there is one training seed.
const ONCE: &str =
    "With one training seed nothing tells how far these numbers scatter, so nothing is concluded from them.\n\n";

/// The section's heading.
fn title(metric: Metric) -> &'static str {
    match metric {
        Metric::Fid => "Distance",
        Metric::Precision => "Precision",
        Metric::Recall => "Recall",
        Metric::CorrelationMax => "Largest correlation of two samples",
        Metric::CorrelationMin => "Smallest correlation of two samples",
        Metric::CorrelationMean => "Mean correlation of two samples",
        Metric::CorrelationStd => "Standard deviation of the correlations",
        Metric::SimilarityMax => "Largest cosine similarity of two samples",
        Metric::SimilarityMin => "Smallest cosine similarity of two samples",
        Metric::SimilarityMean => "Mean cosine similarity of two samples",
        Metric::SimilarityStd => "Standard deviation of the cosine similarities",
        Metric::SamplingSeconds => "Seconds a sample takes",
        Metric::ActivationGain => "Prompts used at high t beside low t",
        Metric::Parameters | Metric::ParametersAdded => "Parameters",
    }
}

/// How to read the numbers.
fn reading(metric: Metric) -> String {
    match metric {
        Metric::SamplingSeconds => {
            "Wall-clock time of the sampling over its samples; runs that were resumed are left out. No record knows what else the \
             machine did meanwhile, so that a claim on speed is *inconclusive* whatever stands here; `runner bench` measures cells \
             beside each other, and `table1` counts their operations.\n\n"
                .to_owned()
        }
        Metric::ActivationGain => {
            format!(
                "Prompts are used as much as the entropy of the gate's weights says, `exp(entropy) / N`; this is the mean over the \
                 quarter of highest timesteps minus that over the quarter of lowest, so above zero the gate is broader at high t. Without \
                 a gate it is zero. A gain of less than {} either way is none: *inconclusive*.\n\n",
                metric.least_difference()
            )
        }
        _ => match metric.better() {
            Some(Direction::Lower) => "Lower is better.\n\n".to_owned(),
            Some(Direction::Higher) => "Higher is better.\n\n".to_owned(),
            Some(Direction::Equal) | None => String::new(),
        },
    }
}

impl Page<'_, '_> {
    /// A section for each view; a page without views has none.
    pub(crate) fn views(&self) -> String {
        let sections = self.views.iter().map(|view| {
            let page = Page {
                judged: &view.judged,
                cells: &view.cells,
                contrasts: &view.contrasts,
                metric: view.metric.name(),
                ..*self
            };
            let once = view.judged.comparisons().any(|comparison| comparison.outcome == Outcome::Once);
            let once = if once { ONCE } else { "" };
            let counted = if view.metric.depends_on_load() { page.counted() } else { String::new() };
            format!("## {}\n\n{}{counted}{once}{}", title(view.metric), reading(view.metric), page.results_table())
        });
        sections.collect::<Vec<_>>().join("\n")
    }

    /// What the cells that a claim on speed is about cost at the paper's size; empty where it is not counted.
    fn counted(&self) -> String {
        let network = &self.table.paper.backbone;
        let cells = self.judged.cells.iter().map(|cell| cell.cell.planned).filter(|cell| cell.claim.is_some());
        let ratio = |cell: &PlannedCell| {
            let ratio = (self.operations)(network, &cell.written).filter(|_| cell.written.prompts().is_some())?;
            Some(format!("{ratio:.4} times ({})", code(&cell.id)))
        };
        let ratios: Vec<String> = cells.filter_map(ratio).collect();
        match ratios.is_empty() {
            true => String::new(),
            false => format!(
                "**Counted, not timed:** at the paper's size ({}), a forward pass takes {} the operations of one without a patch; \
                 `table1` counts alike.\n\n",
                escape(network),
                ratios.join(" and ")
            ),
        }
    }

    /// Means of what else was measured and no claim is about; empty where there is none.
    pub(crate) fn further(&self) -> String {
        let further = Values(self.further);
        if further.rows() == 0 {
            return String::new();
        }
        let names = self.further.get_column_names();
        let mut columns = vec![("Cell", Align::Left)];
        columns.extend(names[1..].iter().map(|name| (name.as_str(), Align::Right)));
        let rows = (0..further.rows()).map(|row| {
            let number =
                |name: &&PlSmallStr| further.number(name, row).map_or(String::new(), |value| format!("{value:.4}"));
            std::iter::once(code(&further.text("cell", row).unwrap_or_default()))
                .chain(names[1..].iter().map(number))
                .collect()
        });
        format!(
            "## Further measures\n\nMeans over training seeds, not judged: no claim of the paper is about them here.\n\n{}",
            markdown(&columns, &rows.collect::<Vec<Vec<String>>>())
        )
    }
}
