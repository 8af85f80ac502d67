//! Standard output: lines for people, or one JSON object a line.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::exit::Failure;

/// Where a command's result goes. Progress and errors go to standard error instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Output for people, or as JSON.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the output is JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints `object` as one line of JSON, or `text` for people.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub(crate) fn emit(self, object: &impl Serialize, text: impl Display) -> Result<(), Failure> {
        if self.json { self.object(object) } else { self.line(text) }
    }

    /// Prints one line of text.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub(crate) fn line(self, text: impl Display) -> Result<(), Failure> {
        let text = text.to_string();
        write(text.trim_end_matches('\n').as_bytes())
    }

    /// Prints one line of JSON.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub(crate) fn object(self, object: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(object).map_err(anyhow::Error::from)?;
        write(line.as_bytes())
    }
}

fn write(line: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(line).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Other(anyhow::anyhow!("standard output could not be written: {error}")),
    })
}

/// Lays rows out in columns: two spaces between, the last column as it is.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if i + 1 < row.len() {
                line.extend(std::iter::repeat_n(' ', widths[i] + 2 - cell.chars().count()));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A count with its noun: `1 stage`, `3 stages`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A duration as people read it: `43 s`, `7 min 05 s`, `2 h 10 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) if seconds < 10.0 => format!("{seconds:.1} s"),
        (0, 0, s) => format!("{s} s"),
        (0, min, s) => format!("{min} min {s:02} s"),
        (h, min, _) => format!("{h} h {min:02} min"),
    }
}

/// A count with a metric prefix: `1.4 G`.
pub(crate) fn prefixed(value: f64) -> String {
    let (scaled, prefix) = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(unit, _)| value >= *unit)
        .map_or((value, ""), |(unit, prefix)| (value / unit, prefix));
    format!("{scaled:.1} {prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let rows = [vec!["a".into(), "long".into(), "x".into()], vec!["bcd".into(), "e".into(), String::new()]];
        assert_eq!(columns(&rows), "a    long  x\nbcd  e\n");
    }

    #[test]
    fn durations_carry_the_unit_that_matters() {
        assert_eq!(duration(0.04), "0.0 s");
        assert_eq!(duration(43.2), "43 s");
        assert_eq!(duration(425.0), "7 min 05 s");
        assert_eq!(duration(7800.0), "2 h 10 min");
    }

    #[test]
    fn prefixes_are_metric() {
        assert_eq!(prefixed(1_400_000_000.0), "1.4 G");
        assert_eq!(prefixed(12.0), "12.0 ");
    }
}
