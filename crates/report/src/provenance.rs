//! What code and machines made the records, and at what cost.

use std::collections::{BTreeMap, BTreeSet};

use manifest::digest::Key;
use manifest::plan::{CellRun, PlannedCell, Table};
use store::Record;

use crate::markdown::{Align, code, escape, table};

/// The section of the page; empty without records.
pub(crate) fn section(records: &[Record]) -> String {
    if records.is_empty() {
        return String::new();
    }
    let distinct = |of: &dyn Fn(&Record) -> String| records.iter().map(of).collect::<BTreeSet<String>>();
    let commits = distinct(&|record| {
        let code = &record.provenance.code;
        let commit = code.git_commit.as_deref().map_or("unknown", |commit| &commit[..commit.len().min(12)]);
        let dirty = if code.dirty_diff_sha256.is_some() { " with local changes" } else { "" };
        format!("{}{dirty}", crate::markdown::code(commit))
    });
    let machines = distinct(&|record| {
        let machine = &record.provenance.machine;
        let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
        let device = if machine.device == "cpu" { String::new() } else { format!(", {}", machine.device) };
        escape(&format!("{cpu}{device}"))
    });
    let compilers = distinct(&|record| escape(&record.provenance.code.rustc));
    let locks = distinct(&|record| code(&record.provenance.code.cargo_lock_sha256.short()));
    let join = |items: BTreeSet<String>| items.into_iter().collect::<Vec<_>>().join("; ");
    let mut kinds: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        kinds.entry(record.kind.as_str()).or_default().push(record);
    }
    let row = |name: String, records: &[&Record]| {
        let costs = || records.iter().map(|record| &record.provenance.cost);
        let seconds: f64 = costs().map(|cost| cost.wall_seconds).sum();
        let peak = costs().filter_map(|cost| cost.peak_memory_bytes).max();
        let resumed = costs().filter(|cost| cost.resumed_attempts > 0).count();
        vec![
            name,
            records.len().to_string(),
            duration(seconds),
            duration(seconds / records.len() as f64),
            peak.map_or(String::new(), |bytes| format!("{:.0} MiB", bytes as f64 / 1048576.0)),
            resumed.to_string(),
        ]
    };
    let mut rows: Vec<Vec<String>> = kinds.iter().map(|(kind, records)| row(code(kind), records)).collect();
    rows.push(row("all".to_owned(), &records.iter().collect::<Vec<_>>()));
    let columns = [
        ("Stage", Align::Left),
        ("Records", Align::Right),
        ("Time in all", Align::Right),
        ("Time each", Align::Right),
        ("Peak memory", Align::Right),
        ("Resumed", Align::Right),
    ];
    format!(
        "## Provenance\n\nCommit {}; Cargo.lock {}; {}; {}.\n\n{}",
        join(commits),
        join(locks),
        join(compilers),
        join(machines),
        table(&columns, &rows)
    )
}

/// Which cells have records that no commit can make again; empty where there are none.
pub(crate) fn local_changes(table: &Table, records: &[Record]) -> String {
    let dirty = records.iter().filter(|record| record.provenance.code.dirty_diff_sha256.is_some());
    let dirty: BTreeSet<Key> = dirty.map(|record| record.key).collect();
    if dirty.is_empty() {
        return String::new();
    }
    let runs = |cell: &PlannedCell| cell.runs.iter().flat_map(CellRun::keys).collect::<BTreeSet<Key>>();
    let cells: Vec<&PlannedCell> = table.cells.iter().chain(&table.positive_control).collect();
    let own: BTreeSet<Key> = cells.iter().flat_map(|cell| runs(cell)).collect();
    let concerned = cells.iter().filter(|cell| !runs(cell).is_disjoint(&dirty));
    let mut names: Vec<String> = concerned.map(|cell| code(&cell.id)).collect();
    if names.len() == cells.len() {
        names = vec!["every cell".to_owned()];
    }
    if !dirty.is_subset(&own) {
        names.push("what all cells share".to_owned());
    }
    format!(
        "**Records of uncommitted code.** The working tree had local changes when these were made, so no commit is known to \
         give them again: {}.",
        names.join(", ")
    )
}

/// Seconds, minutes or hours.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 6000.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_fitting_unit() {
        assert_eq!([duration(0.25), duration(150.0), duration(9000.0)], ["0.2 s", "2.5 min", "2.5 h"]);
        assert_eq!(section(&[]), "");
    }
}
