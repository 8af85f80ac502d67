//! From expanded cells to planned ones: runs per seed, cells that share a run, the positive control, contrasts.

use crate::chain::{Chains, Run};
use crate::claim::Claim;
use crate::digest::Key;
use crate::expand::{Expanded, ExpandedCell};
use crate::manifest::Group;
use crate::method::Method;
use crate::plan::{CellRun, Contrast, PlannedCell, PlannedGroup, PlannedStage, Reference, Unmeasured};
use crate::problem::Error;

/// The planned part of a table.
pub(crate) struct Planned {
    pub(crate) cells: Vec<PlannedCell>,
    pub(crate) default_cell: Option<String>,
    pub(crate) positive_control: Option<PlannedCell>,
    pub(crate) contrasts: Vec<Contrast>,
    pub(crate) reference: Reference,
    pub(crate) floor: Option<Key>,
    pub(crate) unmeasured: Vec<Unmeasured>,
    pub(crate) stages: Vec<PlannedStage>,
}

/// Plans every cell at every seed. Seeds are the outer loop, so that an interrupted sweep has whole tables at its first seeds.
/// `iterations` are the scale's.
pub(crate) fn plan(
    expanded: &Expanded,
    mut chains: Chains<'_>,
    seeds: &[u64],
    iterations: usize,
) -> Result<Planned, Error> {
    let mut cells: Vec<PlannedCell> = Vec::new();
    for cell in &expanded.cells {
        let planned = planned(cell, &cells, &chains);
        cells.push(planned);
    }
    let default = default_cell(expanded);
    // The control disturbs the default cell's patch.
    let mut control = default.and_then(|cell| positive_control(&cell.method, &expanded.cells[0].id, &chains));
    for &seed in seeds {
        for (cell, written) in cells.iter_mut().zip(&expanded.cells) {
            let run =
                Run { method: &cell.method, iterations: after(written.share, iterations), classes: &written.classes };
            cell.runs.push(chains.run(&run, seed)?);
        }
        if let Some(control) = &mut control {
            let run = Run { method: &control.method, iterations, classes: &[] };
            control.runs.push(chains.control(&run, seed)?);
        }
    }
    let unmeasured = chains.unmeasured();
    let (reference, floor, stages) = chains.finish()?;
    Ok(Planned {
        default_cell: default.map(|cell| cell.id.clone()),
        contrasts: contrasts(&cells),
        cells,
        positive_control: control,
        reference,
        floor,
        unmeasured,
        stages,
    })
}

/// The cell that stands for the table's method: that which trains it to the end as the manifest names it or, where none does, the
/// only one that trains its kind to the end (on COCO the gate reads the caption as well).
fn default_cell(expanded: &Expanded) -> Option<&ExpandedCell> {
    let trained = || expanded.cells.iter().skip(1).filter(|cell| cell.share == 1.0);
    let kind = std::mem::discriminant(&expanded.base);
    let mut of_kind = trained().filter(|cell| std::mem::discriminant(&cell.method) == kind);
    let only = of_kind.next().filter(|_| of_kind.next().is_none());
    trained().find(|cell| cell.method == expanded.base).or(only)
}

/// Iterations of a share of all, at least one.
fn after(share: f64, iterations: usize) -> usize {
    ((share * iterations as f64).round() as usize).max(1)
}

fn planned(cell: &ExpandedCell, earlier: &[PlannedCell], chains: &Chains<'_>) -> PlannedCell {
    let method = chains.canonical(&cell.method);
    // What is not trained is the same whenever it is looked at.
    let untrained = matches!(method, Method::Pretrained(_));
    let as_long = |other: &PlannedCell| untrained || other.share == cell.share;
    let same = earlier.iter().find(|other| other.method == method && as_long(other));
    // A cell written alike says more than one that only trains alike.
    let written_alike = earlier.iter().any(|other| other.written == cell.method && as_long(other));
    PlannedCell {
        id: cell.id.clone(),
        group: cell.group.clone(),
        title: cell.title.clone(),
        claim: cell.claim.clone(),
        further_claims: cell.further_claims.clone(),
        share: cell.share,
        written: cell.method.clone(),
        same_run_as: same.map(|other| other.id.clone()),
        identical_by_construction: same.filter(|_| !written_alike).map(|other| other.id.clone()),
        method,
        runs: Vec::<CellRun>::new(),
    }
}

/// Noise on the prompts is known to hurt; it needs a method with prompts.
fn positive_control(default: &Method, baseline: &str, chains: &Chains<'_>) -> Option<PlannedCell> {
    default.prompts().map(|_| PlannedCell {
        // Beside the table's baseline, `baseline` or `group/baseline`.
        id: format!("{}positive_control", baseline.strip_suffix("baseline").unwrap_or_default()),
        group: None,
        title: "Positive control: noise on the prompts".to_owned(),
        claim: None,
        further_claims: Vec::new(),
        share: 1.0,
        written: default.clone(),
        method: chains.canonical(default),
        runs: Vec::new(),
        same_run_as: None,
        identical_by_construction: None,
    })
}

/// Each cell's claims against those that the paper compares them with, where a cell stands for them.
fn contrasts(cells: &[PlannedCell]) -> Vec<Contrast> {
    let claims =
        |cell: &PlannedCell| -> Vec<Claim> { cell.claim.iter().chain(&cell.further_claims).cloned().collect() };
    let mut contrasts = Vec::new();
    for cell in cells {
        for claim in claims(cell) {
            for (against, expected) in &claim.contrasts {
                let stands_for = |other: &PlannedCell| {
                    Some((other.id.clone(), claims(other).into_iter().find(|c| c.id == *against)?))
                };
                let Some((against, other)) = cells.iter().find_map(stands_for) else { continue };
                contrasts.push(Contrast {
                    metric: claim.metric,
                    cell: cell.id.clone(),
                    against,
                    expected: *expected,
                    paper_gap: claim.value.zip(other.value).map(|(value, other)| value - other),
                });
            }
        }
    }
    contrasts
}

pub(crate) fn groups<'a>(groups: impl Iterator<Item = (&'a String, &'a Group)>) -> Vec<PlannedGroup> {
    groups.map(|(id, group)| PlannedGroup { id: id.clone(), title: group.title.clone() }).collect()
}
