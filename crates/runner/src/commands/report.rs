//! `runner report`: tables and figures from the records that are there.

use manifest::plan::Plan;

use crate::exit::{Exit, Failure};
use crate::output::columns;
use crate::session::Session;

/// Reports on an artifact.
///
/// # Errors
/// When there is no plan, or the report cannot be written.
pub(crate) fn run(session: &Session, artifact: &str) -> Result<Exit, Failure> {
    for plan in session.plans(&[artifact.to_owned()])? {
        if plan.is_recipe() {
            let problem = format!("{} is a recipe, it has no report", plan.file.display());
            return Err(Failure::Usage(format!("{problem}\n  `runner show KEY` shows what its stage has left")));
        }
        write(session, &plan)?;
    }
    Ok(Exit::Done)
}

/// Writes the report of an artifact and says where.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(session: &Session, plan: &Plan) -> Result<(), Failure> {
    let report = report::build(plan, session.store(), session.reports()).map_err(anyhow::Error::from)?;
    session.output.emit(&report, text(&report))
}

/// The table in short, and where the whole of it lies.
fn text(report: &report::Report) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let mut rows = vec![["cell", "paper", &report.metric, "to baseline", "verdict"].map(str::to_owned).to_vec()];
    for row in &report.rows {
        let ours = match (row.mean, row.standard_deviation) {
            (Some(mean), Some(sd)) => format!("{mean:.3} +- {sd:.3}"),
            (Some(mean), None) => format!("{mean:.3}"),
            (None, _) => row.state.clone(),
        };
        let difference = row
            .to_baseline
            .map_or_else(|| "-".to_owned(), |[estimate, low, high]| format!("{estimate:+.3} [{low:+.3}, {high:+.3}]"));
        let verdict = row.verdict.clone().unwrap_or_default();
        rows.push(vec![row.cell.clone(), number(row.paper), ours, difference, verdict]);
    }
    let mut text = columns(&rows);
    if report.control_shows == Some(false) {
        text.push_str("the positive control does not show: this protocol sees nothing, verdicts are withheld\n");
    }
    if let Some(page) = report.files.first() {
        text.push_str(&format!("wrote {} and {} more files", page.display(), report.files.len() - 1));
    }
    text
}
