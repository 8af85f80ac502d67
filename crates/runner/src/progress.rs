//! Progress on standard error: bars with time left on a terminal, one plain line per change otherwise.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::duration;

/// A long stage says how far it is this often where there are no bars.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);
/// Parts of the overall bar: work is counted in floating point, bars in integers.
const PARTS: f64 = 1e6;

/// Shows stages that run, how far each is, and when all will be done.
pub(crate) struct Board {
    bars: Option<Bars>,
    running: BTreeMap<usize, Running>,
    work_in_all: f64,
    work_ended: f64,
    stages: usize,
    ended: usize,
}

/// The bars of a terminal.
struct Bars {
    screen: MultiProgress,
    overall: ProgressBar,
}

/// A stage on the board.
struct Running {
    label: String,
    work: f64,
    fraction: f64,
    since: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Board {
    /// A board for `stages` stages of `work` in all (estimated seconds).
    pub(crate) fn new(stages: usize, work: f64) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let screen = MultiProgress::new();
            let overall = screen.add(ProgressBar::new(PARTS as u64));
            overall.set_style(style("{prefix:>9} [{bar:40}] {percent:>3}%  {elapsed} gone, {eta} left"));
            overall.enable_steady_tick(Duration::from_secs(1));
            Bars { screen, overall }
        });
        let mut board = Self {
            bars,
            running: BTreeMap::new(),
            work_in_all: work.max(f64::MIN_POSITIVE),
            work_ended: 0.0,
            stages,
            ended: 0,
        };
        board.draw_overall();
        board
    }

    /// A stage begins.
    pub(crate) fn started(&mut self, stage: usize, label: &str, work: f64) {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.screen.insert_before(&bars.overall, ProgressBar::new_spinner());
            bar.set_style(style("{prefix:>40} {spinner}"));
            bar.set_prefix(shorten(label, 40));
            bar
        });
        let now = Instant::now();
        let running = Running { label: label.to_owned(), work, fraction: 0.0, since: now, said: now, bar };
        self.running.insert(stage, running);
    }

    /// A stage is `done` of `total` units far.
    pub(crate) fn progress(&mut self, stage: usize, done: u64, total: u64, unit: &str, note: &str) {
        let Some(running) = self.running.get_mut(&stage) else { return };
        running.fraction = done as f64 / total.max(1) as f64;
        if let Some(bar) = &running.bar {
            if bar.length() != Some(total) {
                // The first report may start far from zero, after an interruption: time left counts from here.
                bar.set_style(style("{prefix:>40} [{bar:20}] {pos}/{len} {msg}  {eta} left"));
                bar.set_length(total);
                bar.set_position(done);
                bar.reset_eta();
            }
            bar.set_position(done);
            bar.set_message(format!("{unit} {note}").trim_end().to_owned());
        } else if running.said.elapsed() >= PLAIN_INTERVAL {
            running.said = Instant::now();
            let line = format!("{}: {done}/{total} {unit} {note}", running.label);
            say(line.trim_end());
        }
        self.draw_overall();
    }

    /// A stage has ended in `how`.
    pub(crate) fn ended(&mut self, stage: usize, label: &str, work: f64, how: &str) {
        self.ended += 1;
        self.work_ended += work;
        let took = self.running.remove(&stage).map(|running| {
            if let Some(bar) = running.bar {
                bar.finish_and_clear();
            }
            running.since.elapsed().as_secs_f64()
        });
        let width = self.stages.to_string().len();
        let took = took.map_or(String::new(), |seconds| format!(" in {}", duration(seconds)));
        let line = format!("[{:>width$}/{}] {label}: {how}{took}", self.ended, self.stages);
        self.note(&line);
        self.draw_overall();
    }

    /// A stage was done before: nothing is said of it.
    pub(crate) fn skipped(&mut self, work: f64) {
        self.ended += 1;
        self.work_ended += work;
        self.draw_overall();
    }

    /// A stage leaves the board without having ended: somebody else works on it.
    pub(crate) fn withdrawn(&mut self, stage: usize) {
        if let Some(bar) = self.running.remove(&stage).and_then(|running| running.bar) {
            bar.finish_and_clear();
        }
    }

    /// Says something above the bars.
    pub(crate) fn note(&self, line: &str) {
        match &self.bars {
            // Fails only where the terminal is gone.
            Some(bars) => drop(bars.screen.println(line)),
            None => say(line),
        }
    }

    fn draw_overall(&mut self) {
        let Some(bars) = &self.bars else { return };
        let underway: f64 = self.running.values().map(|running| running.work * running.fraction).sum();
        let share = ((self.work_ended + underway) / self.work_in_all).clamp(0.0, 1.0);
        bars.overall.set_prefix(format!("{}/{}", self.ended, self.stages));
        bars.overall.set_position((share * PARTS) as u64);
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            bars.overall.finish_and_clear();
        }
    }
}

/// Writes a line to standard error; a closed one is nobody's loss.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}

/// The first `most` characters, the last of them an ellipsis where something was cut.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_cut_to_the_width_of_their_column() {
        assert_eq!(shorten("train b/hard", 40), "train b/hard");
        assert_eq!(shorten("abcdef", 4), "abc…");
    }

    #[test]
    fn bar_templates_are_valid() {
        for template in ["{prefix:>40} [{bar:20}] {pos}/{len} {msg}  {eta} left", "{prefix:>40} {spinner}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
