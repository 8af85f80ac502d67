//! `runner verify`: every record and artifact against its hash.

use crate::exit::{Exit, Failure};
use crate::session::Session;

/// Verifies the results tree.
///
/// # Errors
/// When it cannot be read at all.
pub(crate) fn run(session: &Session) -> Result<Exit, Failure> {
    let found = store::verify(session.store().tree())?;
    let sound = found.is_sound();
    let mut text = String::new();
    for (what, findings) in [("damaged", &found.problems), ("note", &found.notes)] {
        for finding in findings {
            text.push_str(&format!("{what}: {}: {}\n", finding.path.display(), finding.what));
        }
    }
    let verdict = if sound { "sound" } else { "NOT sound: `runner reproduce` runs the damaged stages again" };
    text.push_str(&format!(
        "{}: {} stages, {} artifacts, {:.1} MB read: {verdict}",
        session.results().display(),
        found.stages,
        found.artifacts,
        found.bytes as f64 / 1e6
    ));
    session.output.emit(&found, text)?;
    Ok(if sound { Exit::Done } else { Exit::Failed })
}
