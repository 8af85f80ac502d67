//! From records to tables, figures and verdicts.
//!
//! Data path: `observed` (records to values by cell and seed) -> `consistency` (nothing is mixed) -> `judged` (paired
//! differences and verdicts) -> `frames` (polars tables, the CSV files) -> `page`, `results` and `paper` (Markdown) and `drawn` (figures). The
//! way in is [`build`]. Nothing but the plan and the records enters: the same records give the same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use manifest::digest::Key;
use manifest::plan::{Plan, Table};
use serde::Serialize;
use store::{Record, Store, Tree, publish};

mod artifact;
mod consistency;
mod drawn;
mod error;
pub mod figures;
mod frames;
mod gate;
mod judged;
mod markdown;
mod observed;
mod page;
mod paper;
mod protocol;
mod provenance;
mod readings;
mod results;

pub use error::Error;

use judged::{CONFIDENCE, Control};

/// The scale whose reports lie in the reports folder itself; every other has a folder of its own in it.
pub const DEFAULT_SCALE: &str = "tiny";

/// A report that has been written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its files: the page first, then tables and figures. Published records are not listed one by one.
    pub files: Vec<PathBuf>,
    /// Name of the metric.
    pub metric: String,
    /// One row per cell, the baseline first.
    pub rows: Vec<Row>,
    /// Whether the positive control shows; `None` where there is none or it has not been run.
    pub control_shows: Option<bool>,
}

/// A cell in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its id.
    pub cell: String,
    /// `measured`, `not run`, `2 of 3 seeds run`, `diverged at iteration N`.
    pub state: String,
    /// The paper's value.
    pub paper: Option<f64>,
    /// Mean over training seeds.
    pub mean: Option<f64>,
    /// Standard deviation over training seeds.
    pub standard_deviation: Option<f64>,
    /// The difference to the baseline and the ends of its 95% interval.
    pub to_baseline: Option<[f64; 3]>,
    /// The verdict on that difference; `withheld` where the positive control does not show.
    pub verdict: Option<String>,
    /// Verdicts on the differences to other cells, by their ids.
    pub contrasts: Vec<(String, String)>,
}

/// The folder that the report of a plan goes to: `reports` for the default scale, `reports/<scale>` for others, and a
/// folder that names overrides and seeds where they are not the scale's, so that a trial never replaces a reproduction.
pub fn folder(table: &Table, reports: &Path) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".=_-".contains(c) { c } else { '-' };
    let mut own: Vec<String> = table.overrides.iter().map(|text| text.chars().map(plain).collect()).collect();
    if table.seeds != table.scale.seeds {
        own.push(format!("seeds={}", protocol::list(&table.seeds).replace(", ", "-")));
    }
    match own.is_empty() {
        true if table.scale_name == DEFAULT_SCALE => reports.to_owned(),
        true => reports.join(&table.scale_name),
        false => reports.join(format!("{}+{}", table.scale_name, own.join("+"))),
    }
}

/// Writes the report of a plan from what is recorded now: `<artifact>.md`, `<artifact>.csv`, and in a folder of the
/// artifact's name further tables, figures and the published records. Files that are right already are not touched.
///
/// # Errors
/// [`Error::NothingRun`] where no cell has a result, [`Error::Mixed`] where records must not be compared, [`Error::Store`]
/// where one is damaged, and others if a file cannot be written. Nothing is written before all records have been read.
pub fn build(plan: &Plan, store: &Store, reports: &Path) -> Result<Report, Error> {
    let table = plan.table.as_ref().ok_or_else(|| Error::NoTable(plan.artifact.clone()))?;
    let tree = store.tree();
    let observed = observed::cells(plan, table, tree)?;
    if observed.iter().all(|cell| cell.runs.iter().all(|run| run.state == observed::State::NotRun)) {
        let (artifact, results) = (plan.artifact.clone(), tree.root().to_owned());
        return Err(Error::NothingRun { artifact, results, next: protocol::reproduce(plan, table) });
    }
    consistency::check(&observed, tree)?;
    let metric = protocol::metric(plan, table);
    let runs = frames::runs(plan, table, &metric, &observed.iter().collect::<Vec<_>>())?;
    let judged = judged::judge(table, observed)?;
    let (cells, contrasts) = (frames::cells(&judged, &table.groups)?, frames::contrasts(&judged)?);
    let gaps = frames::gaps(&judged)?;
    let interval = page::interval(&judged);
    let sources = drawn::Sources { plan, table, store, judged: &judged, metric: &metric, interval: &interval };
    let figures = drawn::all(&sources)?;
    let floor = table.floor.map(|key| observed::measured(plan, key, tree)).transpose()?.flatten();
    let gates = gate::Gates::of(plan, table, store)?;
    let stages = recorded(plan, table, tree)?;
    let records: Vec<Record> = stages.iter().map(|(_, record)| record.clone()).collect();
    let published = Tree::published(&Path::new(&plan.artifact).join("records"));
    let page = page::Page {
        plan,
        table,
        judged: &judged,
        metric: &metric,
        cells: &cells,
        contrasts: &contrasts,
        gaps: &gaps,
        figures: &figures,
        floor: floor.map(|floor| floor.value),
        gates: &gates,
        records: &records,
        published: &published,
    };

    let home = folder(table, reports);
    let own = home.join(&plan.artifact);
    let mut files = vec![
        (home.join(format!("{}.md", plan.artifact)), page.render().into_bytes()),
        (home.join(format!("{}.csv", plan.artifact)), frames::csv(&runs)?),
        (own.join("cells.csv"), frames::csv(&cells)?),
        (own.join("contrasts.csv"), frames::csv(&contrasts)?),
    ];
    files.extend(figures.into_iter().map(|figure| (own.join(figure.file), figure.bytes)));
    fs::create_dir_all(&own).map_err(|source| Error::Folder { path: own.clone(), source })?;
    publish::publish(tree, stages.iter().map(|(key, record)| (*key, record.kind.as_str())), &own.join("records"))?;
    for (path, contents) in &files {
        if fs::read(path).ok().as_ref() != Some(contents) {
            store::atomic::write(path, contents)?;
        }
    }
    Ok(Report {
        files: files.into_iter().map(|(path, _)| path).collect(),
        metric,
        rows: rows(&judged),
        control_shows: match judged.control {
            Control::Shows(_) => Some(true),
            Control::Silent(_) | Control::Diverged => Some(false),
            Control::Absent | Control::NotRun => None,
        },
    })
}

/// The finished stages of a plan, in its order, each once.
fn recorded(plan: &Plan, table: &Table, tree: &Tree) -> Result<Vec<(Key, Record)>, Error> {
    let runs = || table.cells.iter().chain(&table.positive_control).flat_map(|cell| &cell.runs);
    let mine = runs().flat_map(|run| {
        let chain = [Some(run.metrics), Some(run.features), Some(run.sample), run.train, run.activation];
        chain.into_iter().flatten()
    });
    let reference = [table.reference.features, table.reference.statistics];
    let mut wanted: BTreeSet<Key> = mine.chain(reference).chain(table.floor).collect();
    // And what those were made from: a backbone or extractor trained by its own stage.
    for planned in plan.stages.iter().rev() {
        if wanted.contains(&planned.key) {
            wanted.extend(planned.dependencies());
        }
    }
    let mut found = Vec::new();
    for planned in plan.stages.iter().filter(|planned| wanted.contains(&planned.key)) {
        if let Some(record) = observed::record(tree, planned.key, planned.stage.kind())? {
            found.push((planned.key, record));
        }
    }
    Ok(found)
}

fn rows(judged: &judged::Judged) -> Vec<Row> {
    let contrasts = |id: &str| {
        let own = judged.contrasts.iter().filter(move |comparison| comparison.cell == id);
        own.filter_map(|comparison| Some((comparison.against.clone(), frames::verdict(comparison, judged)?))).collect()
    };
    let row = |cell: &judged::JudgedCell| {
        let planned = cell.cell.planned;
        let comparison = cell.to_baseline.as_ref();
        Row {
            cell: planned.id.clone(),
            state: frames::state(&cell.cell),
            paper: planned.claim.as_ref().and_then(|claim| claim.value),
            mean: cell.summary.map(|summary| summary.mean),
            standard_deviation: cell.summary.and_then(|summary| summary.sd),
            to_baseline: comparison.and_then(judged::Comparison::difference).map(|difference| {
                let (low, high) = difference.interval(CONFIDENCE);
                [difference.estimate, low, high]
            }),
            verdict: comparison.and_then(|comparison| frames::verdict(comparison, judged)),
            contrasts: contrasts(&planned.id),
        }
    };
    judged.cells.iter().map(row).collect()
}
