//! The runner's end of one child process: start it, hear it, stop it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use anyhow::Context;
use manifest::stage::Stage;

use crate::protocol::{Event, Order};

/// A child process that executes one stage.
pub(crate) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    complaints: Option<JoinHandle<String>>,
}

/// candle keeps threads of its own beside those of the engine: more of them than the stage was given would spin against the
/// other workers and, where each of the engine's has an image of a UNet's to itself, against those.
fn candle_threads(stage: &Stage, threads: usize) -> usize {
    let denoiser = match stage {
        Stage::Pretrain(stage) => Some(&stage.denoiser),
        Stage::Train(stage) => Some(&stage.denoiser),
        Stage::Sample(stage) => Some(&stage.denoiser),
        _ => None,
    };
    if denoiser.is_some_and(|denoiser| denoiser.dit().is_none()) { 1 } else { threads }
}

/// Something a worker has to say.
pub(crate) enum Message {
    /// What its stage reports.
    Event(Event),
    /// Its output has ended: it has exited or is about to.
    Closed,
}

impl Worker {
    /// Starts a child on an order; its messages arrive on `messages` under `label`.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start(label: usize, order: &Order, messages: Sender<(usize, Message)>) -> anyhow::Result<Self> {
        let program = order.device.program().context("the runner's own file is not known")?;
        let mut command = Command::new(&program);
        let (threads, own) =
            (order.threads.to_string(), candle_threads(&order.planned.stage, order.threads).to_string());
        command.envs([("RAYON_NUM_THREADS", &threads), ("CANDLE_NUM_THREADS", &own)]);
        command.arg("stage").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A process group of its own: Ctrl-C reaches the runner alone, which then asks its children to stop.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("{} could not be started", program.display()))?;
        let mut input = child.stdin.take().context("the child has no input")?;
        let output = child.stdout.take().context("the child has no output")?;
        let errors = child.stderr.take().context("the child has no error output")?;
        std::thread::spawn(move || listen(label, BufReader::new(output), &messages));
        let complaints = std::thread::spawn(move || last_lines(errors));
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        // A child that died before it read its order is seen by its exit, so a closed pipe is no error here.
        let input = input.write_all(&line).and_then(|()| input.flush()).map(|()| input).ok();
        Ok(Self { child, input, complaints: Some(complaints) })
    }

    /// Asks the child to save its state and stop.
    pub(crate) fn ask_to_stop(&mut self) {
        self.input = None;
    }

    /// Ends the child at once.
    pub(crate) fn kill(&mut self) {
        // Fails only where the child has already ended.
        let _ = self.child.kill();
    }

    /// Waits until the child has exited; returns how, and the last lines of its error output.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub(crate) fn wait(mut self) -> std::io::Result<(ExitStatus, String)> {
        self.input = None;
        let status = self.child.wait()?;
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((status, complaints))
    }
}

/// Sends what a child says until it says no more. Lines that are no events are not part of the protocol and dropped.
fn listen(label: usize, output: impl BufRead, messages: &Sender<(usize, Message)>) {
    for line in output.lines().map_while(Result::ok) {
        if let Ok(event) = serde_json::from_str(&line)
            && messages.send((label, Message::Event(event))).is_err()
        {
            return;
        }
    }
    // The receiver is gone when the runner is ending anyway.
    let _ = messages.send((label, Message::Closed));
}

/// The last lines of an error output: what a crash leaves behind.
fn last_lines(errors: impl Read) -> String {
    let mut lines = VecDeque::new();
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        lines.push_back(line);
        if lines.len() > 20 {
            lines.pop_front();
        }
    }
    Vec::from(lines).join("\n")
}

#[cfg(test)]
mod tests {
    use manifest::{Request, Workspace};

    use super::*;

    #[test]
    fn candle_has_one_thread_where_images_of_a_unet_have_one_each() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let request = Request { scale: "tiny".to_owned(), ..Request::default() };
        let plan = Workspace::open(root).unwrap().load_artifact("table2", &request).unwrap();
        let threads = |unet: bool| {
            let wanted = plan.stages.iter().filter(move |planned| match &planned.stage {
                Stage::Pretrain(stage) => stage.denoiser.dit().is_none() == unet,
                Stage::Train(stage) => stage.denoiser.dit().is_none() == unet,
                Stage::Sample(stage) => stage.denoiser.dit().is_none() == unet,
                _ => !unet,
            });
            wanted.map(|planned| candle_threads(&planned.stage, 3)).collect::<Vec<_>>()
        };
        assert!(threads(true).len() > 10 && threads(true).iter().all(|&own| own == 1));
        assert!(threads(false).len() > 10 && threads(false).iter().all(|&own| own == 3));
    }
}
