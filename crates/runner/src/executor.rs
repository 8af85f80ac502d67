//! Runs the stages of a plan in child processes: in topological order, over local slots.
//!
//! A stage that fails stops nothing but its dependents. A stage that another runner works on is waited for. Ctrl-C asks
//! every child to save its state; a second one ends them at once, which the results tree survives.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use store::{FailureClass, Status, Store, StoreError};

use crate::cli::Mode;
use crate::ending::Ending;
use crate::progress::Board;
use crate::protocol::{Event, Order};
use crate::schedule::Schedule;
use crate::signals::StopRequests;
use crate::worker::{Message, Worker};

/// How often signals and the work of other runners are looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often a stage that another runner holds is looked at.
const HELD_POLL: Duration = Duration::from_millis(500);

/// A stage to bring to its end.
pub(crate) struct Task {
    /// How it is called on screen.
    pub(crate) label: String,
    /// What a child is told.
    pub(crate) order: Order,
    /// Tasks whose results it needs, by their place in the plan.
    pub(crate) needs: Vec<usize>,
    /// Estimated duration; only the proportions matter.
    pub(crate) seconds: f64,
}

/// How much may run at once, and where.
pub(crate) struct Slots {
    /// Stages at once.
    pub(crate) jobs: usize,
    /// Cores to share among them.
    pub(crate) cores: usize,
}

/// Brings tasks to their ends.
pub(crate) struct Executor<'a> {
    tasks: &'a [Task],
    store: &'a Store,
    mode: Mode,
    slots: Slots,
    schedule: Schedule,
    workers: BTreeMap<usize, Active>,
    held: BTreeMap<usize, Instant>,
    endings: Vec<Option<Ending>>,
    board: Board,
    killed: bool,
    sender: Sender<(usize, Message)>,
    messages: Receiver<(usize, Message)>,
}

/// A worker and what its stage has reported as its end.
struct Active {
    worker: Worker,
    last: Option<Event>,
}

impl<'a> Executor<'a> {
    /// An executor of `tasks`, which are in topological order.
    pub(crate) fn new(tasks: &'a [Task], store: &'a Store, mode: Mode, slots: Slots) -> Self {
        let (sender, messages) = channel();
        Self {
            tasks,
            store,
            mode,
            slots,
            schedule: Schedule::new(tasks.iter().map(|task| task.needs.clone()).collect()),
            workers: BTreeMap::new(),
            held: BTreeMap::new(),
            endings: vec![None; tasks.len()],
            board: Board::new(tasks.len(), tasks.iter().map(|task| task.seconds).sum()),
            killed: false,
            sender,
            messages,
        }
    }

    /// Runs until every task has ended or the user asked to stop; tasks that were not reached have no ending.
    pub(crate) fn run(mut self, stop: &StopRequests) -> Vec<Option<Ending>> {
        let mut asked = 0;
        loop {
            let requests = stop.count();
            if requests > asked {
                self.stop(requests);
                asked = requests;
            }
            if asked == 0 {
                self.look_at_held();
                self.fill_slots();
            }
            if self.workers.is_empty() && (asked > 0 || self.held.is_empty()) {
                return self.endings;
            }
            match self.messages.recv_timeout(POLL) {
                Ok((stage, message)) => self.hear(stage, message),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Asks children to stop, or ends them at once when the user asked before.
    fn stop(&mut self, requests: usize) {
        self.killed = requests > 1;
        for active in self.workers.values_mut() {
            if requests > 1 {
                active.worker.kill();
            } else {
                active.worker.ask_to_stop();
            }
        }
        if requests == 1 && !self.workers.is_empty() {
            self.board.note("stopping: saving the state of what runs (once more stops at once)");
        }
    }

    /// Starts ready stages while there are slots.
    fn fill_slots(&mut self) {
        while self.workers.len() < self.slots.jobs
            && let Some(stage) = self.schedule.start_next()
        {
            self.begin(stage);
        }
    }

    /// Starts a stage unless its end is known already.
    fn begin(&mut self, stage: usize) {
        let again = self.mode == Mode::Force;
        match self.status(stage) {
            Ok(Status::Done(record)) if !again => self.end(stage, Ending::of(record.outcome, Ending::Cached)),
            Ok(Status::Running(owner)) => self.hold(stage, &owner.to_string()),
            Ok(_) if self.mode == Mode::ReadOnly => self.end(stage, Ending::Missing),
            Ok(Status::Failed(failure)) if !runs_again(self.mode, failure.class) => {
                self.end(stage, Ending::FailedBefore { error: failure.reason });
            }
            Ok(Status::Done(_) | Status::Corrupt(_) | Status::Failed(_) | Status::Partial { .. } | Status::Missing) => {
                self.spawn(stage, again);
            }
            Err(error) => self.end(stage, Ending::fault(error)),
        }
    }

    fn status(&self, stage: usize) -> Result<Status, StoreError> {
        let planned = &self.tasks[stage].order.planned;
        self.store.status(planned.key, planned.stage.kind())
    }

    /// Starts a child. It gets its share of the cores: all of them where nothing else could run.
    fn spawn(&mut self, stage: usize, again: bool) {
        let at_once = (self.workers.len() + 1 + self.schedule.ready()).min(self.slots.jobs);
        let threads = (self.slots.cores / at_once).max(1);
        let task = &self.tasks[stage];
        let order = Order { threads, again, ..task.order.clone() };
        match Worker::start(stage, &order, self.sender.clone()) {
            Ok(worker) => {
                self.board.started(stage, &task.label, task.seconds);
                self.workers.insert(stage, Active { worker, last: None });
            }
            Err(error) => self.end(stage, Ending::fault(engine::causes(&error))),
        }
    }

    /// Waits for a stage that somebody else works on.
    fn hold(&mut self, stage: usize, by: &str) {
        self.board.withdrawn(stage);
        if self.held.insert(stage, Instant::now()).is_none() {
            self.board.note(&format!("{}: waiting for {by}", self.tasks[stage].label));
        }
    }

    /// Takes up stages that somebody else worked on and has let go of.
    fn look_at_held(&mut self) {
        let due: Vec<usize> =
            self.held.iter().filter(|(_, looked)| looked.elapsed() >= HELD_POLL).map(|(&stage, _)| stage).collect();
        for stage in due {
            let ending = match self.status(stage) {
                Ok(Status::Running(_)) => {
                    self.held.insert(stage, Instant::now());
                    continue;
                }
                Ok(Status::Done(record)) => Ending::of(record.outcome, Ending::Done),
                Ok(Status::Failed(failure)) => {
                    let missing_input = failure.class == FailureClass::MissingInput;
                    Ending::Failed { missing_input, error: failure.reason }
                }
                Ok(Status::Missing | Status::Partial { .. } | Status::Corrupt(_)) => {
                    if self.workers.len() < self.slots.jobs {
                        self.held.remove(&stage);
                        self.begin(stage);
                    }
                    continue;
                }
                Err(error) => Ending::fault(error),
            };
            self.held.remove(&stage);
            self.end(stage, ending);
        }
    }

    /// Takes note of what a worker says.
    fn hear(&mut self, stage: usize, message: Message) {
        match message {
            Message::Event(Event::Started { .. }) => {}
            Message::Event(Event::Progress { done, total, unit, note }) => {
                self.board.progress(stage, done, total, &unit, &note);
            }
            Message::Event(event) => {
                if let Some(active) = self.workers.get_mut(&stage) {
                    active.last = Some(event);
                }
            }
            Message::Closed => {
                if let Some(active) = self.workers.remove(&stage) {
                    self.reap(stage, active);
                }
            }
        }
    }

    /// A child has exited: what it said last is how its stage ended.
    fn reap(&mut self, stage: usize, active: Active) {
        let exited = active.worker.wait();
        let ending = match active.last {
            Some(Event::Done { outcome }) => Ending::of(outcome, Ending::Done),
            Some(Event::Held { by }) => return self.hold(stage, &by),
            Some(Event::Interrupted) => Ending::Interrupted,
            Some(Event::Failed { missing_input, error }) => Ending::Failed { missing_input, error },
            Some(Event::Started { .. } | Event::Progress { .. }) | None => match exited {
                Ok(_) if self.killed => Ending::Interrupted,
                Ok((status, complaints)) => Ending::fault(crash(status, &complaints)),
                Err(error) => Ending::fault(format_args!("its process is lost: {error}")),
            },
        };
        self.end(stage, ending);
    }

    /// Notes how a stage ended, and what that means for its dependents.
    fn end(&mut self, stage: usize, ending: Ending) {
        let task = &self.tasks[stage];
        match ending {
            Ending::Cached => self.board.skipped(task.seconds),
            _ => self.board.ended(stage, &task.label, task.seconds, &ending.to_string()),
        }
        let dependents = match ending {
            Ending::Cached | Ending::Done => {
                self.schedule.done(stage);
                None
            }
            Ending::Diverged { .. } => Some(Ending::Skipped),
            Ending::Missing => Some(Ending::Missing),
            Ending::Interrupted => None,
            Ending::Failed { .. } | Ending::FailedBefore { .. } | Ending::Blocked | Ending::Skipped => {
                Some(Ending::Blocked)
            }
        };
        if let Some(consequence) = dependents {
            for dependent in self.schedule.stopped(stage) {
                let task = &self.tasks[dependent];
                self.board.ended(dependent, &task.label, task.seconds, &consequence.to_string());
                self.endings[dependent] = Some(consequence.clone());
            }
        }
        self.endings[stage] = Some(ending);
    }
}

/// Whether a stage that failed before is run again. A failure that lay in the surroundings says nothing about the next try.
pub(crate) fn runs_again(mode: Mode, class: FailureClass) -> bool {
    match mode {
        Mode::Cached => class != FailureClass::Other,
        Mode::Retry | Mode::Force => true,
        Mode::ReadOnly => false,
    }
}

/// Words for a child that ended without a last word.
fn crash(status: std::process::ExitStatus, complaints: &str) -> String {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    let how = match signal {
        Some(9) => "its process was killed (signal 9; often: out of memory)".to_owned(),
        Some(number) => format!("its process was ended by signal {number}"),
        None => format!("its process ended early ({status})"),
    };
    if complaints.is_empty() { how } else { format!("{how}; its last words:\n{complaints}") }
}
