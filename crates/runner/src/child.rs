//! The child process of a stage: claims it in the results tree, executes it, commits the result or records the failure.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use engine::{EngineError, Job, artifact, latents};
use manifest::content;
use manifest::digest::Key;
use manifest::plan::{Input, PlannedStage};
use manifest::stage::Stage;
use store::{Claim, Code, FailureClass, Machine, Status, Store, StoreError};

use crate::exit::{Exit, Failure};
use crate::protocol::{Event, Order};

/// How often progress is written to the attempt's log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Reads an order from standard input and carries it out.
///
/// # Errors
/// When there is no sound order, or nobody hears how it ended.
pub(crate) fn run() -> Result<Exit, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("standard input cannot be read")?;
    let order: Order = serde_json::from_str(&line).context("standard input does not hold an order")?;
    let stop = stop_when_asked()?;
    let event = carry_out(&order, &stop);
    let exit = match &event {
        Event::Failed { missing_input: true, .. } => Exit::MissingInput,
        Event::Failed { .. } => Exit::Failed,
        Event::Interrupted => Exit::Interrupted,
        Event::Started { .. } | Event::Progress { .. } | Event::Done { .. } | Event::Held { .. } => Exit::Done,
    };
    say(&event).map_err(|_| Failure::OutputClosed)?;
    Ok(exit)
}

/// A flag that is set when standard input ends (the runner asks, or died) or a signal arrives.
fn stop_when_asked() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let asked = Arc::clone(&stop);
    std::thread::Builder::new().name("standard input".to_owned()).spawn(move || {
        let mut byte = [0];
        // Nothing is sent after the order: whatever ends the waiting means the same.
        while std::io::stdin().lock().read(&mut byte).is_ok_and(|count| count > 0) {}
        asked.store(true, Ordering::Relaxed);
    })?;
    Ok(stop)
}

/// Claims the stage, executes it, commits it; returns how it ended.
fn carry_out(order: &Order, stop: &AtomicBool) -> Event {
    let failed = |error: StoreError| Event::Failed { missing_input: false, error: error.to_string() };
    let (key, kind) = (order.planned.key, order.planned.stage.kind());
    let store = match Store::open(&order.results) {
        Ok(store) => store,
        Err(error) => return failed(error),
    };
    let discarded = if order.again { store.discard(key, kind) } else { Ok(()) };
    let claim = match discarded.and_then(|()| store.claim(&order.planned)) {
        Ok(claim) => claim,
        Err(StoreError::Busy { owner, .. }) => return Event::Held { by: owner.to_string() },
        Err(StoreError::AlreadyDone { .. }) => {
            return match store.status(key, kind) {
                Ok(Status::Done(record)) => Event::Done { outcome: record.outcome },
                Ok(_) => Event::Failed { missing_input: false, error: "its result has vanished".to_owned() },
                Err(error) => failed(error),
            };
        }
        Err(error) => return failed(error),
    };
    let log = match Log::open(&claim.log_path()) {
        Ok(log) => log,
        Err(error) => {
            return give_up(claim, FailureClass::of_io(&error), format!("its log cannot be written: {error}"));
        }
    };
    log.catch_panics();
    let event = work(order, &store, claim, &log, stop);
    log.line(&match &event {
        Event::Failed { error, .. } => format!("failed: {error}"),
        Event::Interrupted => "interrupted, state saved".to_owned(),
        _ => "done".to_owned(),
    });
    event
}

/// Executes a claimed stage.
fn work(order: &Order, store: &Store, claim: Claim, log: &Log, stop: &AtomicBool) -> Event {
    let inputs = match inputs(&order.planned, |key| order.producer(key), store) {
        Ok(inputs) => inputs,
        Err((class, error)) => return give_up(claim, class, error),
    };
    // Now: the program may be built anew while the stage runs.
    let code = Code::collect(&order.checkout, store.hashes());
    let device = order.device;
    log.line(&format!("{} threads on {device}", order.threads));
    let nobody_listens = |_| stop.store(true, Ordering::Relaxed);
    say(&Event::Started { attempt: claim.attempt(), log: claim.log_path() }).unwrap_or_else(nobody_listens);
    let progress = |progress: engine::Progress| {
        let engine::Progress { done, total, unit, note } = progress;
        log.now_and_then(|| format!("{done}/{total} {unit} {note}"));
        say(&Event::Progress { done, total, unit: unit.to_owned(), note }).unwrap_or_else(nobody_listens);
    };
    let job = Job {
        stage: &order.planned.stage,
        inputs,
        directory: claim.dir(),
        threads: order.threads,
        device: device.into(),
        progress: &progress,
        stop,
    };
    let executed = std::panic::catch_unwind(AssertUnwindSafe(|| engine::execute(&job)));
    drop(job);
    match executed {
        Ok(Ok(finished)) => {
            let finished = recorded(finished);
            let machine = Machine::collect(&device.described(), order.threads);
            match claim.commit(&finished, code, machine) {
                Ok(record) => Event::Done { outcome: record.outcome },
                Err(error) => Event::Failed { missing_input: false, error: error.to_string() },
            }
        }
        Ok(Err(EngineError::Interrupted)) => Event::Interrupted,
        Ok(Err(EngineError::MissingInput(error))) => give_up(claim, FailureClass::MissingInput, error),
        Ok(Err(EngineError::Failed(error))) => give_up(claim, class_of(&error), engine::causes(&error)),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let message = format!("a fault of the program: {}", message.unwrap_or("it does not say which"));
            give_up(claim, FailureClass::Other, message)
        }
    }
}

/// Records a failure, and says what to do where that is known.
fn give_up(claim: Claim, class: FailureClass, error: String) -> Event {
    let missing_input = class == FailureClass::MissingInput;
    let error = match class.advice() {
        Some(advice) if !error.contains(advice) => format!("{error}\n  {advice}"),
        _ => error,
    };
    match claim.fail(class, &error) {
        Ok(()) => Event::Failed { missing_input, error },
        Err(unrecorded) => {
            Event::Failed { missing_input, error: format!("{error}\n  nor could that be recorded: {unrecorded}") }
        }
    }
}

/// The input files and folders by role, each found to be what its hash says. `producer` knows the stages among them.
pub(crate) fn inputs<'a>(
    planned: &PlannedStage,
    producer: impl Fn(Key) -> Option<&'a PlannedStage>,
    store: &Store,
) -> Result<BTreeMap<String, PathBuf>, (FailureClass, String)> {
    let mut files = BTreeMap::new();
    for (role, input) in &planned.inputs {
        let path = match input {
            Input::Stage(key) => {
                let unknown = || (FailureClass::Other, format!("the stage of the input `{role}` is not known"));
                artifact(store, *key, &producer(*key).ok_or_else(unknown)?.stage)?
            }
            Input::File { sha256, path } => {
                let found = content::digest(path, &|file| Ok(store.hashes().sha256(file)?));
                let missing = |error: String| (FailureClass::MissingInput, format!("{}: {error}", path.display()));
                if found.map_err(|error| missing(error.to_string()))? != *sha256 {
                    return Err(missing("changed since this run was planned; start it again".to_owned()));
                }
                path.clone()
            }
        };
        files.insert(role.clone(), path);
    }
    Ok(files)
}

/// A stage's file that others read; it may count others beside it, so all of them are found to be as recorded.
pub(crate) fn artifact(store: &Store, key: Key, stage: &Stage) -> Result<PathBuf, (FailureClass, String)> {
    let kind = stage.kind();
    let file = file_of(stage).ok_or_else(|| (FailureClass::Other, format!("a stage `{kind}` leaves no file")))?;
    let open = || {
        for name in store.tree().record(key, kind)?.artifacts.keys() {
            store.open_artifact(key, kind, name)?;
        }
        store.open_artifact(key, kind, file)
    };
    open().map_err(|error: StoreError| (FailureClass::of(&error), error.to_string()))
}

/// The file of a stage that others read.
fn file_of(stage: &Stage) -> Option<&'static str> {
    match stage {
        Stage::Embeddings(_) => Some(artifact::EMBEDDINGS),
        Stage::Pretrain(_) | Stage::TrainExtractor(_) | Stage::Train(_) | Stage::Import(_) => Some(artifact::WEIGHTS),
        Stage::Encode(_) => Some(latents::LATENTS),
        Stage::Sample(_) | Stage::Decode(_) => Some(artifact::SAMPLES),
        Stage::Features(_) => Some(artifact::FEATURES),
        Stage::Statistics(_) => Some(artifact::STATISTICS),
        Stage::Activation(_) => Some(artifact::ACTIVATION),
        Stage::Metrics(_)
        | Stage::Extrapolation(_)
        | Stage::Coverage(_)
        | Stage::InceptionScore(_)
        | Stage::Similarity(_) => None,
    }
}

/// What the engine hands over, in the store's words.
fn recorded(finished: engine::Finished) -> store::Finished {
    let engine::Finished { outcome, artifacts, metrics, curve } = finished;
    let outcome = match outcome {
        engine::Outcome::Completed => store::Outcome::Completed,
        engine::Outcome::Diverged { iteration } => store::Outcome::Diverged { iteration },
    };
    let point = |point: engine::CurvePoint| {
        let engine::CurvePoint { iteration, learning_rate, losses } = point;
        let losses = engine::Losses::NAMES.into_iter().zip(losses.values());
        let losses = losses.map(|(name, value)| (name.to_owned(), value)).collect();
        store::CurvePoint { iteration, learning_rate, losses }
    };
    store::Finished { outcome, metrics, curve: curve.into_iter().map(point).collect(), artifacts }
}

/// What kind of failure an error is, by the error of the operating system in it.
fn class_of(error: &anyhow::Error) -> FailureClass {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.map_or(FailureClass::Other, FailureClass::of_io)
}

/// Sends an event to the runner.
fn say(event: &Event) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

/// The log of an attempt. What it cannot hold (a full disk) is lost; the stage does not fail for it.
struct Log {
    file: Arc<Mutex<File>>,
    since: Instant,
    last: Mutex<Option<Instant>>,
}

impl Log {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = Arc::new(Mutex::new(File::options().append(true).open(path)?));
        Ok(Self { file, since: Instant::now(), last: Mutex::new(None) })
    }

    fn line(&self, text: &str) {
        write_line(&self.file, &format!("[{:8.1} s] {}", self.since.elapsed().as_secs_f64(), text.trim_end()));
    }

    /// Writes a line if the last such line is some seconds old.
    fn now_and_then(&self, text: impl FnOnce() -> String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            *last = Some(Instant::now());
            self.line(&text());
        }
    }

    /// Writes panics of any thread here, with their place.
    fn catch_panics(&self) {
        let file = Arc::clone(&self.file);
        std::panic::set_hook(Box::new(move |panic| write_line(&file, &panic.to_string())));
    }
}

fn write_line(file: &Mutex<File>, line: &str) {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = file.write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use manifest::digest::Digest;
    use manifest::stage::{FeatureKind, Statistics};

    use super::*;
    use crate::device::Device;

    #[test]
    fn a_file_or_folder_that_changed_since_the_plan_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("folder/a.png"), "one").unwrap();
        std::fs::write(at("file"), "one").unwrap();
        let planned = ["file", "folder"].map(|name| {
            let sha256 = content::digest(&at(name), &Digest::of_file).unwrap();
            (name.to_owned(), Input::File { sha256, path: at(name) })
        });
        let order = Order {
            planned: PlannedStage::new(
                Stage::Statistics(Statistics { of: FeatureKind::Pooled, published: None }),
                planned.into(),
            )
            .unwrap(),
            stage_inputs: BTreeMap::new(),
            results: at("results"),
            checkout: store::Checkout::of(temporary.path(), &[]),
            device: Device::Cpu,
            threads: 1,
            again: false,
        };
        let store = Store::open(&order.results).unwrap();
        let found = || {
            inputs(&order.planned, |_| None, &store)
                .map_err(|(class, error)| (class == FailureClass::MissingInput, error))
        };
        assert_eq!(found().unwrap().len(), 2);
        for (name, changed) in [("file", "file"), ("folder", "folder/b.png")] {
            let before = std::fs::read(at(changed)).ok();
            std::fs::write(at(changed), "another").unwrap();
            let (missing_input, error) = found().unwrap_err();
            assert!(missing_input && error.contains("changed since this run was planned"), "{error}");
            assert!(error.starts_with(&at(name).display().to_string()), "{error}");
            match before {
                Some(before) => std::fs::write(at(changed), before).unwrap(),
                None => std::fs::remove_file(at(changed)).unwrap(),
            }
        }
        assert!(found().is_ok());
        std::fs::remove_dir_all(at("folder")).unwrap();
        assert!(found().unwrap_err().0);
    }
}
