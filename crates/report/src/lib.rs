//! From records to tables, figures and verdicts.
//!
//! Data path: `observed` (records to values by cell and seed) -> `consistency` (nothing is mixed) -> `judged` (paired
//! differences and verdicts) -> `frames` (polars tables, the CSV files) -> `page`, `results`, `views` and
//! `paper` (Markdown of one table) and `drawn` (figures) -> `pages` (all tables). The way in is [`build`]. Nothing but the plan and the records enters: the same records give the same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use manifest::digest::Key;
use manifest::method::Method;
use manifest::plan::{CellRun, Plan, Table};
use polars::prelude::DataFrame;
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
mod pages;
mod paper;
mod paper_scale;
mod protocol;
mod provenance;
mod readings;
mod results;
pub mod sizes;
pub mod summary;
mod views;

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
    /// Verdicts on claims about other metrics: cell, metric, verdict.
    pub further: Vec<(String, String, String)>,
    /// Cells that cannot be run, and why.
    pub not_run: Vec<(String, String)>,
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

/// Operations of a forward pass with a method over those without, on a network that the paper names (`DiT-B/2`); `None` where they are
/// not counted.
pub type Operations<'a> = &'a dyn Fn(&str, &Method) -> Option<f64>;

/// The folder that the report of a plan goes to: `reports` for the default scale, `reports/<scale>` for others, and a
/// folder that names overrides and seeds where they are not the scale's, so that a trial never replaces a reproduction.
pub fn folder(table: &Table, reports: &Path) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".=_-".contains(c) { c } else { '-' };
    let mut own: Vec<String> = table.overrides.iter().map(|text| text.chars().map(plain).collect()).collect();
    if table.seeds != table.scale.seeds {
        own.push(format!("seeds={}", protocol::list(&table.seeds).replace(", ", "-")));
    }
    match own.is_empty() {
        true => of_scale(&table.scale_name, reports),
        false => reports.join(format!("{}+{}", table.scale_name, own.join("+"))),
    }
}

fn of_scale(name: &str, reports: &Path) -> PathBuf {
    if name == DEFAULT_SCALE { reports.to_owned() } else { reports.join(name) }
}

/// Writes the report of a plan from what is recorded now: `<artifact>.md`, `<artifact>.csv`, and in a folder of the
/// artifact's name further tables, figures and the published records. Files that are right already are not touched. `operations`
/// stand beside times.
///
/// # Errors
/// [`Error::NothingRun`] where no cell has a result, [`Error::Mixed`] where records must not be compared, [`Error::Store`]
/// where one is damaged, and others if a file cannot be written. Nothing is written before all records have been read.
pub fn build(plan: &Plan, store: &Store, reports: &Path, operations: Operations<'_>) -> Result<Report, Error> {
    if plan.is_recipe() {
        return Err(Error::NoTable(plan.artifact.clone()));
    }
    let tree = store.tree();
    let home = plan.tables.first().map_or_else(|| of_scale(&plan.scale_name, reports), |table| folder(table, reports));
    let own = home.join(&plan.artifact);
    let stages = recorded(plan, tree)?;
    let records: Vec<Record> = stages.iter().map(|(_, record)| record.clone()).collect();
    let sections = plan.tables.iter().map(|table| section(plan, table, store, &records, operations));
    let sections: Vec<Section> = sections.collect::<Result<_, Error>>()?;
    if let Some(table) = plan.tables.first().filter(|_| sections.iter().all(|section| !section.has_run)) {
        let (artifact, results) = (plan.artifact.clone(), tree.root().to_owned());
        return Err(Error::NothingRun { artifact, results, next: protocol::reproduce(plan, table) });
    }

    let mut files =
        vec![(home.join(format!("{}.md", plan.artifact)), pages::page(plan, &sections, &records).into_bytes())];
    let runs = sections.iter().map(|section| section.runs.clone());
    if let Some(runs) = runs.reduce(|mut all, more| {
        all.vstack_mut(&more).expect("the same columns");
        all
    }) {
        files.push((home.join(format!("{}.csv", plan.artifact)), frames::csv(&runs)?));
    }
    for section in &sections {
        files.extend(section.files.iter().map(|(path, bytes)| (home.join(path), bytes.clone())));
    }
    for folder in files.iter().filter_map(|(path, _)| path.parent()).collect::<BTreeSet<_>>() {
        fs::create_dir_all(folder).map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
    }
    if !stages.is_empty() {
        publish::publish(tree, stages.iter().map(|(key, record)| (*key, record.kind.as_str())), &own.join("records"))?;
    }
    for (path, contents) in &files {
        if fs::read(path).ok().as_ref() != Some(contents) {
            store::atomic::write(path, contents)?;
        }
    }
    let controls: Vec<bool> = sections.iter().filter_map(|section| section.control_shows).collect();
    Ok(Report {
        files: files.into_iter().map(|(path, _)| path).collect(),
        metric: sections.first().map_or_else(String::new, |section| section.metric.clone()),
        further: sections.iter().flat_map(|section| section.further.clone()).collect(),
        rows: sections.into_iter().flat_map(|section| section.rows).collect(),
        not_run: plan.not_run.iter().map(|cell| (cell.cell.clone(), cell.reason.clone())).collect(),
        control_shows: (!controls.is_empty()).then(|| controls.iter().all(|shows| *shows)),
    })
}

/// What is said about one table.
struct Section {
    title: Option<String>,
    text: String,
    /// Paths relative to the report's folder.
    files: Vec<(PathBuf, Vec<u8>)>,
    runs: DataFrame,
    metric: String,
    rows: Vec<Row>,
    further: Vec<(String, String, String)>,
    control_shows: Option<bool>,
    /// Whether any cell has a result.
    has_run: bool,
}

fn section(
    plan: &Plan,
    table: &Table,
    store: &Store,
    records: &[Record],
    operations: Operations<'_>,
) -> Result<Section, Error> {
    let tree = store.tree();
    let observed = observed::cells(plan, table, store, None)?;
    let has_run = observed.iter().any(|cell| cell.runs.iter().any(|run| run.state != observed::State::NotRun));
    consistency::check(plan, &observed, tree)?;
    let metric = protocol::metric(plan, table);
    let seen: Vec<&observed::Cell> = observed.iter().collect();
    let runs = frames::runs(plan, table, &metric, &seen)?;
    let of_metrics = views::tables(table);
    let views = views::all(plan, &of_metrics, store)?;
    let shown = |name: &str| views.iter().any(|view| view.metric.name() == name);
    let further = frames::further(plan, &seen, &shown, tree)?;
    let judged = judged::judge(table, observed, None)?;
    let (cells, contrasts) = (frames::cells(&judged, &table.groups)?, frames::contrasts(&judged)?);
    let gaps = frames::gaps(&judged)?;
    let interval = page::interval(&judged);
    let sources = drawn::Sources { plan, table, store, judged: &judged, metric: &metric, interval: &interval };
    let figures = drawn::all(&sources)?;
    let floor = table.floor.map(|key| observed::measured(plan, key, tree)).transpose()?.flatten();
    let gates = gate::Gates::of(plan, table, store)?;
    let published = Tree::published(&Path::new(&plan.artifact).join("records"));
    let folder = table.block.as_ref().map_or(plan.artifact.clone(), |block| format!("{}/{}", plan.artifact, block.id));
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
        records,
        published: &published,
        views: &views,
        further: &further,
        operations,
        folder: &folder,
    };
    let text = page.render();
    let own = Path::new(&folder);
    let mut files =
        vec![(own.join("cells.csv"), frames::csv(&cells)?), (own.join("contrasts.csv"), frames::csv(&contrasts)?)];
    if further.height() > 0 {
        files.push((own.join("further.csv"), frames::csv(&further)?));
    }
    for view in &views {
        files.push((own.join(format!("{}.csv", view.metric.name())), frames::csv(&view.cells)?));
    }
    files.extend(figures.into_iter().map(|figure| (own.join(figure.file), figure.bytes)));
    Ok(Section {
        title: table.block.as_ref().map(|block| block.title.clone()),
        text,
        files,
        runs,
        metric: metric.clone(),
        rows: rows(&judged),
        further: views.iter().flat_map(views::View::verdicts).collect(),
        control_shows: match judged.control {
            Control::Shows(_) => Some(true),
            Control::Silent(_) | Control::Diverged => Some(false),
            Control::Absent | Control::Missing | Control::NotRun => None,
        },
        has_run,
    })
}

/// The finished stages of a plan, in its order, each once.
fn recorded(plan: &Plan, tree: &Tree) -> Result<Vec<(Key, Record)>, Error> {
    let mut wanted: BTreeSet<Key> = BTreeSet::new();
    for table in &plan.tables {
        let cells = table.cells.iter().chain(&table.positive_control);
        wanted.extend(cells.flat_map(|cell| &cell.runs).flat_map(CellRun::keys));
        wanted.extend(table.reference.keys().chain(table.floor));
    }
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
