//! Ctrl-C, SIGTERM and a closed terminal: once asks for a stop that saves its state, twice stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often the user asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopRequests(Arc<AtomicUsize>);

impl StopRequests {
    /// Counts the SIGINT, SIGTERM and SIGHUP that this process receives from now on.
    ///
    /// # Errors
    /// When the handlers cannot be registered.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let requests = Self::default();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let count = Arc::clone(&requests.0);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for _ in signals.forever() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        })?;
        Ok(requests)
    }

    /// Signals so far.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
