//! `runner reproduce`: brings all cells of artifacts to their end, then writes their reports; of everything, a summary too.

use manifest::plan::Plan;
use report::summary::{Entry, Outcome};

use super::{execute, report as reporting};
use crate::exit::{Exit, Failure};
use crate::session::{self, LeftOut, Session};
use crate::tasks::Stages;

/// What was asked for, planned.
#[derive(Default)]
struct Asked {
    plans: Vec<Plan>,
    /// Names of tables of sizes.
    counts: Vec<String>,
    left_out: LeftOut,
}

/// Runs what is missing of the artifacts; `all` is every one, and what cannot be run for want of data or weights is then
/// left out and said.
///
/// # Errors
/// When there is no plan, the results tree cannot be used, or a report cannot be written.
pub(crate) fn run(session: &Session, names: &[String]) -> Result<Exit, Failure> {
    let mut asked = Asked::default();
    for name in names {
        match name.as_str() {
            "all" => {
                asked.counts.extend(session.workspace().counts());
                let (plans, left_out) = session.everything()?;
                asked.plans.extend(plans);
                asked.left_out.extend(left_out);
            }
            name if reporting::is_count(session, name) => asked.counts.push(name.to_owned()),
            name => asked.plans.push(session.plan(name)?),
        }
    }
    // Said now, and not when all has run.
    session::writable("reports", session.reports()).map_err(anyhow::Error::msg)?;
    for plan in &asked.plans {
        super::say_not_run(session, plan);
    }
    session.say_left_out(&asked.left_out);
    let exit = match (asked.plans.is_empty(), asked.left_out.is_empty()) {
        (true, true) => Exit::Done,
        (true, false) => Exit::MissingInput,
        (false, _) => execute::execute(session, &Stages::of(&asked.plans))?,
    };
    if exit == Exit::Interrupted {
        return Ok(exit);
    }
    let mut entries = Vec::new();
    for name in &asked.counts {
        entries.push(reporting::write_count(session, name)?);
    }
    for plan in asked.plans.iter().filter(|plan| !plan.is_recipe()) {
        let outcome = match reporting::write(session, plan) {
            // Why nothing ran has been said, and has its own exit code.
            Err(Failure::Other(error)) if exit != Exit::Done && reporting::is_empty(&error) => {
                session.say(&error);
                Outcome::NotRun(error.to_string())
            }
            written => Outcome::Report(written?),
        };
        entries.push(Entry { name: plan.artifact.clone(), title: plan.title.clone(), outcome });
    }
    if names.iter().any(|name| name == "all") {
        let left_out = asked.left_out.into_iter();
        let not_run = |(name, why): (String, manifest::Error)| Entry {
            title: String::new(),
            name,
            outcome: Outcome::NotRun(why.to_string()),
        };
        entries.extend(left_out.map(not_run));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let page =
            report::summary::write(&entries, &session.options.scale, session.reports()).map_err(anyhow::Error::from)?;
        if !session.output.is_json() {
            session.output.line(format!("wrote {}", page.display()))?;
        }
    }
    Ok(exit)
}
