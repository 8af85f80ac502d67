//! From expanded cells to planned ones: runs per seed, cells that share a run, the positive control, contrasts.

use crate::chain::{Chains, Run};
use crate::claim::Claim;
use crate::digest::{Digest, Key};
use crate::expand::{Expanded, ExpandedCell};
use crate::manifest::Group;
use crate::method::Method;
use crate::plan::{CellRun, Contrast, Input, PlannedCell, PlannedGroup, PlannedStage, Reference, Unmeasured};
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
/// `trained` are the files of what cells do not train themselves; `iterations` are the scale's.
pub(crate) fn plan(
    expanded: &Expanded,
    trained: &[Option<Input>],
    mut chains: Chains<'_>,
    seeds: &[u64],
    iterations: usize,
) -> Result<Planned, Error> {
    let mut cells: Vec<PlannedCell> = Vec::new();
    for (cell, trained) in expanded.cells.iter().zip(trained) {
        let planned = planned(cell, trained, &cells, &chains);
        cells.push(planned);
    }
    let default_cell = default_cell(expanded).map(|cell| cell.id.clone());
    // The control disturbs the default cell's patch.
    let disturbed = cells.iter().find(|cell| Some(&cell.id) == default_cell.as_ref());
    let mut control = disturbed.and_then(|cell| positive_control(cell, &expanded.cells[0].id));
    for &seed in seeds {
        for (cell, written) in cells.iter_mut().zip(&expanded.cells) {
            let run = Run {
                method: &cell.method,
                trained: cell.trained.as_ref(),
                iterations: after(written.share, iterations),
                classes: &written.classes,
            };
            let run = chains.run(&run, seed)?;
            cell.runs.push(run);
        }
        if let Some(control) = &mut control {
            let trained = control.trained.as_ref();
            let run = chains.control(&Run { method: &control.method, trained, iterations, classes: &[] }, seed)?;
            control.runs.push(run);
        }
    }
    let unmeasured = chains.unmeasured();
    let (reference, floor, stages) = chains.finish()?;
    Ok(Planned {
        default_cell,
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
/// only one that trains its kind to the end (on COCO the gate reads the caption as well), or has it from a file.
fn default_cell(expanded: &Expanded) -> Option<&ExpandedCell> {
    let whole = || expanded.cells.iter().skip(1).filter(|cell| cell.share == 1.0);
    let trained = || whole().filter(|cell| cell.trained.is_none());
    let kind = std::mem::discriminant(&expanded.base);
    let of_kind = |cell: &&ExpandedCell| std::mem::discriminant(&cell.method) == kind;
    trained()
        .find(|cell| cell.method == expanded.base)
        .or_else(|| whole().find(|cell| cell.method == expanded.base))
        .or_else(|| only(trained().filter(of_kind)))
        .or_else(|| only(whole().filter(of_kind)))
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

/// Iterations of a share of all, at least one.
fn after(share: f64, iterations: usize) -> usize {
    ((share * iterations as f64).round() as usize).max(1)
}

fn planned(cell: &ExpandedCell, trained: &Option<Input>, earlier: &[PlannedCell], chains: &Chains<'_>) -> PlannedCell {
    let method = chains.canonical(&cell.method);
    // What is not trained is the same whenever it is looked at.
    let untrained = matches!(method, Method::Pretrained(_));
    let as_long =
        |other: &PlannedCell| content(&other.trained) == content(trained) && (untrained || other.share == cell.share);
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
        trained: trained.clone(),
        written: cell.method.clone(),
        same_run_as: same.map(|other| other.id.clone()),
        identical_by_construction: same.filter(|_| !written_alike).map(|other| other.id.clone()),
        method,
        runs: Vec::<CellRun>::new(),
    }
}

/// What was trained elsewhere, wherever it lies.
fn content(trained: &Option<Input>) -> Option<Digest> {
    match trained {
        Some(Input::File { sha256, .. }) => Some(*sha256),
        Some(Input::Stage(_)) | None => None,
    }
}

/// Noise on the prompts is known to hurt; it needs a method with prompts.
fn positive_control(default: &PlannedCell, baseline: &str) -> Option<PlannedCell> {
    default.method.prompts().map(|_| PlannedCell {
        // Beside the table's baseline, `baseline` or `group/baseline`.
        id: format!("{}positive_control", baseline.strip_suffix("baseline").unwrap_or_default()),
        group: None,
        title: "Positive control: noise on the prompts".to_owned(),
        claim: None,
        further_claims: Vec::new(),
        share: 1.0,
        trained: default.trained.clone(),
        written: default.written.clone(),
        method: default.method.clone(),
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
