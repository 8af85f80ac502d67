//! The report's page: a section for every table, then what could not be run, and what made the records.

use manifest::plan::Plan;
use store::Record;

use crate::Section;
use crate::markdown::{Align, code, escape, table};
use crate::provenance;

/// The whole page in Markdown.
pub(crate) fn page(plan: &Plan, sections: &[Section], records: &[Record]) -> String {
    let mut parts: Vec<String> = sections
        .iter()
        .map(|section| match &section.title {
            Some(title) => format!("## {}\n\n{}", escape(title), demoted(&section.text)),
            None if sections.len() > 1 => demoted(&section.text),
            None => section.text.clone(),
        })
        .collect();
    parts.extend([not_run(plan), provenance::section(records)].into_iter().filter(|part| !part.is_empty()));
    format!("# {}\n\n{}", escape(&plan.title), parts.join("\n"))
}

/// Headings one level lower.
fn demoted(text: &str) -> String {
    let line = |line: &str| if line.starts_with("##") { format!("#{line}\n") } else { format!("{line}\n") };
    text.lines().map(line).collect()
}

/// Cells that cannot be run.
fn not_run(plan: &Plan) -> String {
    if plan.not_run.is_empty() {
        return String::new();
    }
    let columns = [("Cell", Align::Left), ("In the paper", Align::Left), ("Paper", Align::Right), ("Why", Align::Left)];
    let rows = plan.not_run.iter().map(|cell| {
        let values =
            cell.claims.iter().filter_map(|claim| Some(format!("{:.*}", claim.metric.decimals(), claim.value?)));
        let place = cell.claims.first().map(|claim| escape(&claim.place)).unwrap_or_default();
        let name = format!("{} {}", code(&cell.cell), escape(&cell.title));
        vec![name, place, values.collect::<Vec<_>>().join(", "), escape(&cell.reason)]
    });
    format!("## Not run\n\n{}", table(&columns, &rows.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_go_one_level_down() {
        assert_eq!(demoted("a # b\n## c\n### d\n"), "a # b\n### c\n#### d\n");
    }
}
