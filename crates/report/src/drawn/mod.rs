//! The figures of a report, from its records and artifacts.

mod distances;
mod losses;
mod pictures;
mod prompts;

use manifest::digest::Key;
use manifest::method::Method;
use manifest::plan::{Plan, PlannedCell, Table};
use store::Store;

use crate::error::Error;
use crate::frames as tables;
use crate::judged::{ALPHA, Judged, JudgedCell, POWER};
use crate::observed::record;

/// One figure of the report.
pub(crate) struct Drawn {
    /// Name of its file.
    pub(crate) file: String,
    /// Title in the page.
    pub(crate) title: String,
    /// What it shows and how to read it.
    pub(crate) caption: String,
    /// The file's contents.
    pub(crate) bytes: Vec<u8>,
    /// Whether the page shows it.
    pub(crate) shown: bool,
}

/// What the figures are drawn from.
pub(crate) struct Sources<'a, 'p> {
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// Its table.
    pub(crate) table: &'a Table,
    /// The results.
    pub(crate) store: &'a Store,
    /// What is said about the cells.
    pub(crate) judged: &'a Judged<'p>,
    /// Name of the metric.
    pub(crate) metric: &'a str,
    /// What an interval means.
    pub(crate) interval: &'a str,
}

/// Draws what the records allow; a figure without records is left out.
pub(crate) fn all(sources: &Sources) -> Result<Vec<Drawn>, Error> {
    let figures = [
        sources.forest()?,
        sources.series()?,
        sources.depth()?,
        sources.activation()?,
        sources.bias()?,
        sources.curves()?,
    ];
    let mut drawn: Vec<Drawn> = figures.into_iter().flatten().collect();
    drawn.extend(sources.samples()?);
    drawn.extend(sources.classes()?);
    drawn.extend(sources.captions()?);
    Ok(drawn)
}

/// The median of the smallest differences that the table's comparisons with the baseline could have detected, with the
/// smallest and the largest.
pub(crate) fn detectable(judged: &Judged) -> Option<(f64, f64, f64)> {
    let distinct = judged.cells.iter().filter(|cell| cell.cell.planned.same_run_as.is_none());
    let differences = distinct.filter_map(|cell| cell.to_baseline.as_ref()?.difference());
    let mut sizes: Vec<f64> = differences.map(|difference| difference.detectable(ALPHA, POWER)).collect();
    sizes.sort_by(f64::total_cmp);
    Some((*sizes.first()?, sizes[sizes.len() / 2], *sizes.last()?))
}

impl Sources<'_, '_> {
    fn cells(&self) -> impl Iterator<Item = &JudgedCell<'_>> {
        self.judged.cells.iter()
    }

    fn default_cell(&self) -> Option<&PlannedCell> {
        self.table.default_cell.as_ref().and_then(|id| self.table.cell(id))
    }

    fn group_title(&self, cell: &PlannedCell) -> String {
        let group = self.table.groups.iter().find(|group| Some(&group.id) == cell.group.as_ref());
        group.map(tables::group_title).unwrap_or_default()
    }

    fn has(&self, key: Key) -> bool {
        let recorded = |kind: &str| matches!(record(self.store.tree(), key, kind), Ok(Some(_)));
        self.plan.stage(key).is_some_and(|planned| recorded(planned.stage.kind()))
    }
}

impl Drawn {
    fn svg(name: &str, title: &str, caption: &str, text: String) -> Self {
        let (file, title, caption) = (format!("{name}.svg"), title.to_owned(), caption.to_owned());
        Self { file, title, caption, bytes: text.into_bytes(), shown: true }
    }
}

/// What a reader calls a method.
fn method_name(method: &Method) -> &'static str {
    match method {
        Method::Pretrained(_) => "baseline",
        Method::Finetune(_) if method.from_scratch() => "from scratch",
        Method::Finetune(_) => "fine-tuning",
        Method::PromptTuning(_) => "prompt tuning",
        Method::Lora(_) => "LoRA",
        Method::Dmp(_) if method.from_scratch() => "DMP, from scratch",
        Method::Dmp(_) => "DMP",
    }
}

/// The first that `of` finds.
fn first<T, U>(items: &[T], of: impl Fn(&T) -> Result<Option<U>, Error>) -> Result<Option<U>, Error> {
    items.iter().find_map(|item| of(item).transpose()).transpose()
}

fn failed<E: ToString>(name: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Figure { name, reason: error.to_string() }
}
