//! From expanded cells to planned ones: runs per seed, cells that share a run, the positive control, contrasts.

use indexmap::IndexMap;

use crate::chain::Chains;
use crate::digest::Key;
use crate::expand::{Expanded, ExpandedCell};
use crate::manifest::Group;
use crate::method::Method;
use crate::plan::{CellRun, Contrast, PlannedCell, PlannedGroup, PlannedStage, Reference};
use crate::problem::Error;

/// The planned part of a table.
pub(crate) struct Planned {
    pub(crate) cells: Vec<PlannedCell>,
    pub(crate) default_cell: Option<String>,
    pub(crate) positive_control: Option<PlannedCell>,
    pub(crate) contrasts: Vec<Contrast>,
    pub(crate) reference: Reference,
    pub(crate) floor: Option<Key>,
    pub(crate) stages: Vec<PlannedStage>,
}

/// Plans every cell at every seed. Seeds are the outer loop, so that an interrupted sweep has whole tables at its first seeds.
pub(crate) fn plan(expanded: &Expanded, mut chains: Chains<'_>, seeds: &[u64]) -> Result<Planned, Error> {
    let mut cells: Vec<PlannedCell> = Vec::new();
    for cell in &expanded.cells {
        let planned = planned(cell, &cells);
        cells.push(planned);
    }
    let mut control = positive_control(&expanded.base);
    for &seed in seeds {
        for cell in &mut cells {
            cell.runs.push(chains.run(&cell.method, seed)?);
        }
        if let Some(control) = &mut control {
            control.runs.push(chains.control(&control.method, seed)?);
        }
    }
    let is_default = |cell: &&ExpandedCell| cell.method == expanded.base;
    let (reference, floor, stages) = chains.finish()?;
    Ok(Planned {
        default_cell: expanded.cells.iter().skip(1).find(is_default).map(|cell| cell.id.clone()),
        contrasts: contrasts(&cells),
        cells,
        positive_control: control,
        reference,
        floor,
        stages,
    })
}

fn planned(cell: &ExpandedCell, earlier: &[PlannedCell]) -> PlannedCell {
    let method = cell.method.canonical();
    let same = earlier.iter().find(|other| other.method == method);
    // A cell written alike says more than one that only trains alike.
    let written_alike = earlier.iter().any(|other| other.written == cell.method);
    PlannedCell {
        id: cell.id.clone(),
        group: cell.group.clone(),
        title: cell.title.clone(),
        claim: cell.claim.clone(),
        written: cell.method.clone(),
        same_run_as: same.map(|other| other.id.clone()),
        identical_by_construction: same.filter(|_| !written_alike).map(|other| other.id.clone()),
        method,
        runs: Vec::<CellRun>::new(),
    }
}

/// Noise on the prompts is known to hurt; it needs a method with prompts.
fn positive_control(base: &Method) -> Option<PlannedCell> {
    match base {
        Method::Pretrained(_) | Method::Finetune(_) | Method::Lora(_) => None,
        Method::PromptTuning(_) | Method::Dmp(_) => Some(PlannedCell {
            id: "positive_control".to_owned(),
            group: None,
            title: "Positive control: noise on the prompts".to_owned(),
            claim: None,
            written: base.clone(),
            method: base.canonical(),
            runs: Vec::new(),
            same_run_as: None,
            identical_by_construction: None,
        }),
    }
}

/// Each cell's claim against those that the paper compares it with, where a cell stands for them.
fn contrasts(cells: &[PlannedCell]) -> Vec<Contrast> {
    let mut contrasts = Vec::new();
    for cell in cells {
        let Some(claim) = &cell.claim else { continue };
        for (against, expected) in &claim.contrasts {
            let stands_for = |other: &&PlannedCell| other.claim.as_ref().is_some_and(|claim| claim.id == *against);
            let Some(other) = cells.iter().find(stands_for) else { continue };
            let values = claim.value.zip(other.claim.as_ref().and_then(|claim| claim.value));
            contrasts.push(Contrast {
                cell: cell.id.clone(),
                against: other.id.clone(),
                expected: *expected,
                paper_gap: values.map(|(value, other)| value - other),
            });
        }
    }
    contrasts
}

pub(crate) fn groups(groups: IndexMap<String, Group>) -> Vec<PlannedGroup> {
    groups.into_iter().map(|(id, group)| PlannedGroup { id, title: group.title }).collect()
}
