//! `runner logs`: the log of a stage's last attempt, and what is added to it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use anyhow::Context;
use store::Status;

use crate::exit::{Exit, Failure};
use crate::inventory::{Found, by_digits};
use crate::session::Session;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(300);

/// Prints a log.
///
/// # Errors
/// When there is no such stage, or it has no log.
pub(crate) fn run(session: &Session, digits: &str, follow: bool) -> Result<Exit, Failure> {
    let found = by_digits(session.results(), digits)?;
    let Found { key, kind } = &found;
    let mut printed = 0;
    loop {
        // Whether it runs is asked before its log is read: so nothing is missed. A finished stage's log has moved.
        let running = matches!(session.store().status(*key, kind)?, Status::Running(_));
        let logs = session.store().tree().logs(*key, kind)?;
        let file = logs.last().map(|log| File::open(log).with_context(|| log.display().to_string()));
        match file {
            Some(Ok(mut file)) => {
                let mut text = String::new();
                file.seek(SeekFrom::Start(printed)).context("the log cannot be read")?;
                printed += file.read_to_string(&mut text).context("the log cannot be read")? as u64;
                if !text.is_empty() {
                    session.output.line(&text)?;
                }
            }
            // It is being moved to its finished stage.
            Some(Err(_)) | None if running => {}
            Some(Err(error)) => return Err(error.into()),
            None => {
                return Err(Failure::Usage(format!(
                    "{kind} {} has no log: it has not been started; `runner status` says what has",
                    key.short()
                )));
            }
        }
        if !follow || !running {
            return Ok(Exit::Done);
        }
        std::thread::sleep(POLL);
    }
}
