//! The subcommands, one file each.

mod bench;
mod compare;
mod data;
mod doctor;
mod execute;
mod export;
mod gc;
mod logs;
mod plan;
mod published;
mod report;
mod reproduce;
mod schema;
mod show;
mod status;
mod verify;
mod weights;

use clap::CommandFactory;
use manifest::plan::{Plan, PlannedCell};
use manifest::problem::did_you_mean;

use crate::cli::{Cli, Command};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::session::{Access, Session};

/// Does what was asked.
///
/// # Errors
/// Those of the subcommand.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { options, command } = cli;
    let reading = |options| Session::open(options, Access::Read);
    let writing = |options| Session::open(options, Access::Write);
    match command {
        Command::Plan { artifact, explain } => plan::run(&reading(options)?, &artifact, explain),
        Command::Sweep { manifests } => execute::sweep(&writing(options)?, &manifests),
        Command::Run { manifest, cell } => execute::run(&writing(options)?, &manifest, &cell),
        Command::Reproduce { artifacts } => reproduce::run(&writing(options)?, &artifacts),
        Command::Report { artifact } => report::run(&reading(options)?, &artifact),
        Command::Status { artifact } => status::run(&reading(options)?, artifact.as_deref()),
        Command::Show { what } => show::run(&reading(options)?, &what),
        Command::Export { command } => export::run(&reading(options)?, &command),
        Command::Logs { key, follow } => logs::run(&reading(options)?, &key, follow),
        Command::Compare { left, right } => compare::run(&reading(options)?, &left, &right),
        Command::Verify => verify::run(&reading(options)?),
        Command::Gc { delete } => gc::run(&reading(options)?, delete),
        Command::Schema { write } => schema::run(&options, write),
        Command::Bench { work, seconds } => bench::run(&options, &work, seconds),
        Command::Data { command } => data::run(&options, &command),
        Command::Weights { command } => weights::run(&options, &command),
        Command::Doctor => doctor::run(options),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "runner", &mut script);
            Output::new(false).line(String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
        Command::Stage => crate::child::run(),
    }
}

/// A cell by its id.
///
/// # Errors
/// [`Failure::Usage`] with the nearest id when there is no such cell.
fn cell<'a>(plan: &'a Plan, id: &str) -> Result<&'a PlannedCell, Failure> {
    if let Some(cell) = plan.not_run.iter().find(|cell| cell.cell == id) {
        return Err(Failure::Usage(format!("{} cannot be run: {}", cell.cell, cell.reason)));
    }
    plan.cell(id).map(|(_, cell)| cell).ok_or_else(|| {
        let artifact = &plan.artifact;
        let cells = plan.tables.iter().flat_map(|table| table.cells.iter().chain(&table.positive_control));
        let ids: Vec<&str> = cells.map(|cell| cell.id.as_str()).collect();
        let hint = did_you_mean(id, ids.iter().copied());
        Failure::Usage(format!("{artifact} has no cell `{id}`{hint}\n  cells: {}", ids.join(", ")))
    })
}

/// Says once per reason what of a plan cannot be run.
pub(crate) fn say_not_run(session: &Session, plan: &Plan) {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for cell in &plan.not_run {
        match reasons.iter_mut().find(|(reason, _)| *reason == cell.reason) {
            Some((_, cells)) => cells.push(&cell.cell),
            None => reasons.push((&cell.reason, vec![&cell.cell])),
        }
    }
    for (reason, cells) in reasons {
        session.say(format_args!("{} of {} is not run: {reason}", cells.join(", "), plan.artifact));
    }
}
