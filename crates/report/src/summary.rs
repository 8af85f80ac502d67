//! The summary of everything that was reproduced: a row per artifact, with its report or why there is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::markdown::{Align, code, escape, table};
use crate::sizes::SizesReport;
use crate::{Report, of_scale};

/// An artifact in the summary.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its title; empty where it could not be planned.
    pub title: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an artifact.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Its report.
    Report(Report),
    /// The report on a table of sizes.
    Sizes(SizesReport),
    /// Why nothing of it could be run.
    NotRun(String),
}

/// Writes `all.md` beside the reports of a scale, and returns its path.
///
/// # Errors
/// It cannot be written.
pub fn write(entries: &[Entry], scale: &str, reports: &Path) -> Result<PathBuf, Error> {
    // Beside the reports themselves, which overrides may have put elsewhere.
    let beside = entries.iter().find_map(|entry| match &entry.outcome {
        Outcome::Report(report) => report.files.first()?.parent().map(Path::to_owned),
        Outcome::Sizes(_) | Outcome::NotRun(_) => None,
    });
    let stem = Path::new(scale).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = beside.unwrap_or_else(|| of_scale(&stem, reports));
    let columns = [
        ("Artifact", Align::Left),
        ("Title", Align::Left),
        ("Measured", Align::Right),
        ("Verdicts", Align::Left),
        ("Not run", Align::Left),
    ];
    let rows: Vec<Vec<String>> = entries.iter().map(|entry| row(entry, &folder)).collect();
    let text = format!(
        "# Everything at scale {}\n\nA row per artifact. Verdicts are those on the claims in its report, where their meaning \
         is explained; what could not be run says why.\n\n{}",
        code(&stem),
        table(&columns, &rows)
    );
    let path = folder.join("all.md");
    fs::create_dir_all(&folder).map_err(|source| Error::Folder { path: folder.clone(), source })?;
    store::atomic::write(&path, text.as_bytes())?;
    Ok(path)
}

fn row(entry: &Entry, folder: &Path) -> Vec<String> {
    let link = |files: &[PathBuf]| {
        let page = files.first().map(|page| relative(page, folder));
        page.map_or_else(|| code(&entry.name), |page| format!("[{}]({page})", escape(&entry.name)))
    };
    let title = escape(&entry.title);
    match &entry.outcome {
        Outcome::Report(report) => {
            let measured = report.rows.iter().filter(|row| row.mean.is_some()).count();
            let all = report.rows.len() + report.not_run.len();
            let of_rows =
                report.rows.iter().flat_map(|row| row.verdict.iter().chain(row.contrasts.iter().map(|(_, v)| v)));
            let verdicts = of_rows.chain(report.further.iter().map(|(.., verdict)| verdict));
            let mut reasons: Vec<String> =
                report.not_run.iter().map(|(_, reason)| escape(first_line(reason))).collect();
            reasons.dedup();
            vec![
                link(&report.files),
                title,
                format!("{measured} of {all} cells"),
                counted(verdicts.map(String::as_str)),
                reasons.join("; "),
            ]
        }
        Outcome::Sizes(report) => {
            let said = |agree: bool| if agree { "reproduced" } else { "contradicted" };
            let verdicts = counted(report.claims.iter().map(|(.., agree)| said(*agree)));
            vec![link(&report.files), title, format!("{} counts", report.claims.len()), verdicts, String::new()]
        }
        Outcome::NotRun(reason) => {
            vec![code(&entry.name), title, "nothing".to_owned(), String::new(), escape(first_line(reason))]
        }
    }
}

/// `3 inconclusive, 1 not run`.
fn counted<'v>(verdicts: impl Iterator<Item = &'v str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    verdicts.for_each(|verdict| *counts.entry(verdict).or_default() += 1);
    counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect::<Vec<_>>().join(", ")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A path as a link in a page of `folder` has it.
fn relative(path: &Path, folder: &Path) -> String {
    let web = |path: &Path| path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
    match path.strip_prefix(folder) {
        Ok(below) => web(below),
        // Sizes have no scale: their report lies in the folder of all reports.
        Err(_) => format!("../{}", path.file_name().unwrap_or_default().to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_artifact_has_a_row_with_a_link_or_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let page = |name: &str| folder.path().join("smoke").join(name);
        let report = Report {
            files: vec![page("table2.md")],
            metric: "fd".into(),
            rows: Vec::new(),
            further: vec![("a".into(), "precision".into(), "inconclusive".into())],
            not_run: vec![("coco/dmp".into(), "scale `smoke` has no setting `coco`".into())],
            control_shows: None,
        };
        let sizes = SizesReport {
            files: vec![folder.path().join("table1.md")],
            claims: vec![("a".into(), "1".into(), "1".into(), true)],
        };
        let entry = |name: &str, outcome| Entry { name: name.into(), title: name.to_uppercase(), outcome };
        let entries = [
            entry("table1", Outcome::Sizes(sizes)),
            entry("table2", Outcome::Report(report)),
            entry("table5", Outcome::NotRun("weights are missing\nmore".into())),
        ];
        let path = write(&entries, "smoke", folder.path()).unwrap();
        assert_eq!(path, page("all.md"));
        let text = fs::read_to_string(path).unwrap();
        for part in [
            "[table1](../table1.md)",
            "1 reproduced",
            "[table2](table2.md)",
            "0 of 1 cells",
            "1 inconclusive",
            "no setting",
            "weights are missing",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("more"));
    }
}
