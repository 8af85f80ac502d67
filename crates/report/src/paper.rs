//! The paper's own numbers beside what is known of their noise.

use manifest::claim::Metric;
use metrics::relative_gap;

use crate::markdown::{Align, Values, code, table};
use crate::page::Page;

impl Page<'_, '_> {
    /// The paper's own gaps against what FID is known to scatter.
    pub(crate) fn gaps(&self) -> String {
        let gaps = Values(self.gaps);
        if gaps.rows() == 0 {
            return String::new();
        }
        let classes: Vec<String> = (0..gaps.rows()).filter_map(|row| gaps.text("noise", row)).collect();
        let count = |class: &str| classes.iter().filter(|other| *other == class).count();
        let columns = [
            ("Cell", Align::Left),
            ("Against", Align::Left),
            ("Paper", Align::Right),
            ("Paper, against", Align::Right),
            ("Gap", Align::Right),
            ("Relative", Align::Right),
            ("To the noise of FID", Align::Left),
        ];
        let rows: Vec<Vec<String>> = (0..gaps.rows())
            .map(|row| {
                let id = |column| code(&gaps.text(column, row).unwrap_or_default());
                let number = |column| gaps.number(column, row).unwrap_or_default();
                vec![
                    id("cell"),
                    id("against"),
                    self.paper_value(gaps.number("paper", row)),
                    self.paper_value(gaps.number("paper_against", row)),
                    format!("{:+.2}", number("gap")),
                    format!("{:+.1}%", 100.0 * number("relative")),
                    gaps.text("noise", row).unwrap_or_default(),
                ]
            })
            .collect();
        format!(
            "## The paper's own gaps\n\nThe paper prints one run each. FID is known to scatter by 1 to 2% from seeds alone: of its {} \
             gaps here, {} lie within 1% (within the noise), {} between 1 and 2% (borderline), {} beyond.\n\n{}",
            gaps.rows(),
            count("within the known noise"),
            count("borderline"),
            count("beyond the known noise"),
            table(&columns, &rows)
        )
    }

    /// What the paper prints for cells that cannot differ: its own scatter, if the readings are right.
    pub(crate) fn identical(&self) -> String {
        let printed = |id: &str| self.table.cell(id).and_then(|cell| cell.claim.as_ref()?.value);
        let mut items = String::new();
        for cell in &self.table.cells {
            let Some(other) = &cell.identical_by_construction else { continue };
            let Some((value, same)) = printed(&cell.id).zip(printed(other)) else { continue };
            let relative = 100.0 * relative_gap(value, same);
            let (cell, other) = (code(&cell.id), code(other));
            items.push_str(&format!("- {cell} and {other}: {value:.2} and {same:.2}, {relative:+.1}%\n"));
        }
        if items.is_empty() {
            return items;
        }
        format!(
            "## Identical by construction\n\nThese cells are written differently but cannot train differently under the readings \
             below, so here they are one run. The paper prints different values for them: if the readings are right, that is how \
             far two of its runs of one configuration lie apart.\n\n{items}"
        )
    }

    /// A value as the paper prints it.
    pub(crate) fn paper_value(&self, value: Option<f64>) -> String {
        value.map_or(String::new(), |value| format!("{value:.*}", self.paper_decimals()))
    }

    /// Decimals of the paper's values.
    pub(crate) fn paper_decimals(&self) -> usize {
        self.judged.metric.unwrap_or(Metric::Fid).decimals()
    }
}
