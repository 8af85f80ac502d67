//! `runner report`: tables and figures from the records that are there.

use manifest::count::NetworkKind;
use manifest::dit::DitConfig;
use manifest::method::Method;
use manifest::plan::Plan;
use report::sizes::Size;
use report::summary::{Entry, Outcome};

use crate::exit::{Exit, Failure};
use crate::output::columns;
use crate::session::Session;

/// Reports on an artifact, or on all.
///
/// # Errors
/// When there is no plan, or the report cannot be written.
pub(crate) fn run(session: &Session, artifact: &str) -> Result<Exit, Failure> {
    if is_count(session, artifact) {
        write_count(session, artifact)?;
        return Ok(Exit::Done);
    }
    let all = artifact == "all";
    if all {
        for count in session.workspace().counts() {
            write_count(session, &count)?;
        }
    }
    for plan in session.plans(&[artifact.to_owned()])? {
        if plan.is_recipe() {
            let problem = format!("{} is a recipe, it has no report", plan.file.display());
            return Err(Failure::Usage(format!("{problem}\n  `runner show KEY` shows what its stage has left")));
        }
        match write(session, &plan) {
            Err(Failure::Other(error)) if all && is_empty(&error) => session.say(error),
            written => drop(written?),
        }
    }
    Ok(Exit::Done)
}

/// Whether there is no report because nothing has been run.
pub(crate) fn is_empty(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(report::Error::NothingRun { .. }))
}

/// Writes the report of an artifact and says where.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(session: &Session, plan: &Plan) -> Result<report::Report, Failure> {
    let operations =
        |network: &str, method: &Method| engine::size::operations(&DitConfig::published(network, None)?, method).ok();
    let report = report::build(plan, session.store(), session.reports(), &operations).map_err(anyhow::Error::from)?;
    session.output.emit(&report, text(&report))?;
    Ok(report)
}

/// Whether a name or path is that of a table of sizes.
pub(crate) fn is_count(session: &Session, name: &str) -> bool {
    let stem = std::path::Path::new(name).file_stem().unwrap_or_default();
    session.workspace().counts().iter().any(|count| stem == count.as_str())
}

/// Writes the report of a table of sizes and says where.
///
/// # Errors
/// When it is wrong, or the report cannot be written.
pub(crate) fn write_count(session: &Session, name: &str) -> Result<Entry, Failure> {
    let loaded = session.workspace().load_count(name)?;
    let size = |network: &manifest::count::Counted| -> Result<Size, Failure> {
        let size = match network.kind {
            NetworkKind::StableDiffusion => engine::size::of_stable_diffusion()?,
            NetworkKind::Dit => {
                let dit = DitConfig::published(&network.name, network.classes);
                let unknown =
                    || Failure::Usage(format!("{name}: `{}` is no published DiT, e.g. DiT-B/2", network.name));
                engine::size::of_dit(&dit.ok_or_else(unknown)?, &loaded.dmp)?
            }
        };
        Ok(Size {
            base: size.base,
            patch: size.patch,
            noise: size.noise,
            flops: (size.image.flops, size.image.patch_flops),
            kept: (size.image.kept, size.image.patch_kept),
        })
    };
    let sizes = loaded.count.networks.values().map(size).collect::<Result<Vec<_>, Failure>>()?;
    let report = report::sizes::write(&loaded.count, &loaded.claims, &sizes, session.reports());
    let report = report.map_err(anyhow::Error::from)?;
    let mut rows = vec![["claim", "paper", "ours", ""].map(str::to_owned).to_vec()];
    for (id, paper, ours, agree) in &report.claims {
        let verdict = if *agree { "reproduced" } else { "contradicted" };
        rows.push(vec![id.clone(), paper.clone(), ours.clone(), verdict.to_owned()]);
    }
    session.output.emit(&report, format!("{}wrote {}", columns(&rows), report.files[0].display()))?;
    let title = loaded.count.title.clone();
    Ok(Entry { name: loaded.count.count, title, outcome: Outcome::Sizes(report) })
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
    let mut text = if report.rows.is_empty() { String::new() } else { columns(&rows) };
    if !report.not_run.is_empty() {
        text.push_str(&format!("{} cells are not run, the report says why\n", report.not_run.len()));
    }
    if report.control_shows == Some(false) {
        text.push_str("the positive control does not show: this protocol sees nothing, verdicts are withheld\n");
    }
    if let Some(page) = report.files.first() {
        text.push_str(&format!("wrote {} and {} more files", page.display(), report.files.len() - 1));
    }
    text
}
