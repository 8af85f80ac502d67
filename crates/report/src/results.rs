//! The results table: a row per cell, what was measured beside what the paper prints.

use manifest::method::Method;
use manifest::plan::PlannedCell;

use crate::figures::signed;
use crate::frames::spread;
use crate::markdown::{Align, Values, code, escape, table};
use crate::page::{PARTIAL, Page, usual_spread};
use crate::protocol;

impl Page<'_, '_> {
    /// The section.
    pub(crate) fn results(&self) -> String {
        format!("## Results\n\n{}\n{}", self.results_table(), self.spread())
    }

    /// The table itself.
    pub(crate) fn results_table(&self) -> String {
        let ours = format!("{}, mean ± sd (seeds)", self.metric);
        let columns = [
            ("Cell", Align::Left),
            ("Paper", Align::Right),
            (ours.as_str(), Align::Right),
            ("Minus baseline [95%]", Align::Right),
            ("Paper's minus baseline", Align::Right),
            ("Verdict", Align::Left),
            ("Minus other cell [95%]", Align::Right),
            ("Paper's minus other", Align::Right),
            ("Verdict on that", Align::Left),
        ];
        let (cells, contrasts) = (Values(self.cells), Values(self.contrasts));
        let mut rows = Vec::new();
        let mut group = None;
        for row in 0..cells.rows() {
            let id = cells.text("cell", row).unwrap_or_default();
            let this_group = cells.text("group", row);
            if this_group != group {
                let mut heading = vec![String::new(); columns.len()];
                let title = escape(&cells.text("group_title", row).unwrap_or_default());
                let gate = this_group.as_ref().and_then(|group| self.gates.beside(self.table, group));
                heading[0] = gate.map_or(format!("**{title}**"), |gate| format!("**{title}** ({gate})"));
                rows.push(heading);
                group = this_group;
            }
            let mut line =
                vec![self.label(&cells, row), self.paper_value(cells.number("paper", row)), self.ours(&cells, row)];
            line.extend(self.comparison(&cells, row, None));
            let own: Vec<usize> =
                (0..contrasts.rows()).filter(|&other| contrasts.text("cell", other).as_ref() == Some(&id)).collect();
            match own.first() {
                Some(&first) => line.extend(self.comparison(&contrasts, first, contrasts.text("against", first))),
                None => line.extend([String::new(), String::new(), String::new()]),
            }
            rows.push(line);
            for &other in own.iter().skip(1) {
                let mut line = vec![String::new(); 6];
                line.extend(self.comparison(&contrasts, other, contrasts.text("against", other)));
                rows.push(line);
            }
        }
        table(&columns, &rows)
    }

    /// What the standard deviations are of; nothing where there is none.
    fn spread(&self) -> String {
        if self.judged.cells.iter().all(|cell| cell.summary.and_then(|summary| summary.sd).is_none()) {
            return String::new();
        }
        let first = self.table.scale.sample.seed;
        let is_frozen = |place: usize, cell: &PlannedCell| place == 0 && matches!(cell.method, Method::Pretrained(_));
        let cells = self.table.cells.iter().enumerate().filter(|(_, cell)| cell.same_run_as.is_none());
        let untrained = cells.filter(|(place, cell)| cell.trained.is_some() || is_frozen(*place, cell));
        let untrained: Vec<String> = untrained.map(|(_, cell)| code(&cell.id)).collect();
        let untrained = match &untrained[..] {
            [] => "Training".to_owned(),
            [one] => format!("{one} is not trained: its sd is of sampling seeds alone. Elsewhere training"),
            all => {
                format!("{} are not trained: their sds are of sampling seeds alone. Elsewhere training", all.join(", "))
            }
        };
        format!(
            "{untrained} and sampling seed move together (the sampling seed is {first} + the training seed), and an sd holds both; \
             differences are paired by that seed.\n"
        )
    }

    fn label(&self, cells: &Values, row: usize) -> String {
        let id = cells.text("cell", row).unwrap_or_default();
        let title = cells.text("title", row).unwrap_or_default();
        let short = id.rsplit('/').next().unwrap_or(&id).to_owned();
        let name = if title == short { code(&id) } else { format!("{} {}", code(&id), escape(&title)) };
        let planned = self.table.cell(&id);
        let note = planned.and_then(|cell| protocol::training_note(self.table, cell));
        let name = note.map_or(name.clone(), |note| format!("{name}, {note}"));
        match cells.text("same_run_as", row) {
            Some(other) => format!("{name} (same run as {})", code(&other)),
            None => name,
        }
    }

    fn ours(&self, cells: &Values, row: usize) -> String {
        let state = cells.text("state", row).unwrap_or_default();
        let Some(mean) = cells.number("mean", row) else { return state };
        let seeds = cells.number("training_seeds", row).unwrap_or_default();
        let sd = cells.number("standard_deviation", row);
        let sd = sd.map_or(String::new(), |sd| format!(" ± {}", self.number(sd)));
        let note = if state == "measured" { String::new() } else { format!(", {state}") };
        format!("{}{sd} ({seeds}){note}", self.number(mean))
    }

    /// Ours, the paper's, the verdict.
    fn comparison(&self, values: &Values, row: usize, against: Option<String>) -> [String; 3] {
        let decimals = self.paper_decimals();
        let paper = values.number("paper_difference", row).map_or(String::new(), |gap| format!("{gap:+.decimals$}"));
        let verdict = emphasis(&values.text("verdict", row).unwrap_or_default());
        let id = values.text("cell", row).unwrap_or_default();
        let other = against.as_deref().unwrap_or(&self.judged.cells[0].cell.planned.id);
        let said = self.judged.comparison(&id, other).filter(|found| found.verdict.is_some());
        let verdict = match said.and_then(|found| self.judged.said_by(found)) {
            Some(first) => format!("as {}", code(first)),
            None => verdict,
        };
        let interval = values.number("low", row).zip(values.number("high", row));
        let ours = match (values.number("difference", row), interval) {
            (Some(difference), Some((low, high))) => {
                let over = values.text("interval_over", row);
                let usual = over.as_deref() == usual_spread(self.judged).map(spread);
                let mark = if usual { "" } else { PARTIAL };
                // Rows differ by orders of magnitude: each has its own digits.
                let number = |value: f64| signed(value, (high - low) / 2.0);
                format!("{} [{}, {}]{mark}", number(difference), number(low), number(high))
            }
            (Some(_), None) => "0".to_owned(),
            (None, _) => String::new(),
        };
        let ours = match against {
            Some(other) if ours.is_empty() => code(&other),
            Some(other) => format!("{}: {ours}", code(&other)),
            None => ours,
        };
        [ours, paper, verdict]
    }
}

/// What a reader must not overlook.
fn emphasis(verdict: &str) -> String {
    match verdict {
        "direction contradicted" | "withheld" => format!("**{verdict}**"),
        _ => verdict.to_owned(),
    }
}
