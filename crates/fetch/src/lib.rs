//! Published files over HTTP(S): resumable, checked against pinned hashes.
//!
//! What has come so far lies in `.NAME.partial` beside the file; the file itself appears whole and with the pinned
//! SHA-256, or not at all.

mod error;
mod partial;

use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::Duration;

use manifest::digest::Digest;
use ureq::http::Response;
use ureq::{Agent, Body};

pub use error::FetchError;
use partial::Partial;

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it is published.
    pub url: String,
    /// Its length.
    pub bytes: u64,
    /// Its content.
    pub sha256: Digest,
}

/// How a file came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It was there, with the pinned content.
    AlreadyThere,
    /// It was fetched; so many of its bytes were there from an earlier call.
    Now {
        /// Bytes that were there.
        resumed: u64,
    },
}

/// Attempts without a new byte before giving up.
const ATTEMPTS: u32 = 5;

/// Pause before the second attempt; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// A server that says nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Fetches files.
#[derive(Debug)]
pub struct Fetcher {
    agent: Agent,
    pause: Duration,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new(PAUSE)
    }
}

/// How an attempt ended.
enum Attempt {
    /// The whole file has come.
    Complete,
    /// The connection failed.
    Cut(String),
}

impl Fetcher {
    /// A fetcher that waits for `pause` before its second attempt.
    pub fn new(pause: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("dmp-runner/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: Agent::new_with_config(config), pause }
    }

    /// Fetches `remote` to `path`, going on from what an earlier call has left. `progress` is told how many bytes there
    /// are; when it returns `false` the call ends.
    ///
    /// # Errors
    /// [`FetchError`]; `path` is then as it was.
    pub fn fetch(
        &self,
        remote: &Remote,
        path: &Path,
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<Fetched, FetchError> {
        if path.exists() {
            let found = Digest::of_file(path).map_err(FetchError::io("read", path))?;
            let expected = remote.sha256;
            return match found == expected {
                true => Ok(Fetched::AlreadyThere),
                false => Err(FetchError::Occupied { path: path.to_owned(), expected, found }),
            };
        }
        let mut partial = Partial::open(path, remote.bytes)?;
        let resumed = partial.len();
        let (mut most, mut failures) = (resumed, 0);
        loop {
            match self.attempt(remote, path, &mut partial, &mut progress)? {
                Attempt::Complete => match partial.finish(remote) {
                    Err(FetchError::Content { .. }) if partial.resumed() > 0 => {
                        // Old bytes may be of another version: once more from the beginning.
                        partial.restart()?;
                    }
                    finished => return finished.map(|()| Fetched::Now { resumed: partial.resumed() }),
                },
                Attempt::Cut(reason) => {
                    failures = if partial.len() > most { 0 } else { failures + 1 };
                    most = most.max(partial.len());
                    if failures >= ATTEMPTS {
                        return Err(FetchError::Connection { url: remote.url.clone(), reason, attempts: failures });
                    }
                    thread::sleep(self.pause * 2_u32.pow(failures.saturating_sub(1)));
                }
            }
        }
    }

    /// Asks for what is missing, and takes what comes.
    fn attempt(
        &self,
        remote: &Remote,
        path: &Path,
        partial: &mut Partial,
        progress: &mut impl FnMut(u64) -> bool,
    ) -> Result<Attempt, FetchError> {
        if partial.len() == remote.bytes {
            return Ok(Attempt::Complete);
        }
        let mut request = self.agent.get(&remote.url);
        if partial.len() > 0 {
            request = request.header("Range", format!("bytes={}-", partial.len()));
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(Attempt::Cut(error.to_string())),
        };
        match response.status().as_u16() {
            206 if first_byte(&response) == Some(partial.len()) => {}
            // The server knows no ranges, or sends another one than was asked for.
            200 => partial.restart()?,
            206 | 416 => {
                partial.restart()?;
                return Ok(Attempt::Cut("the server sends another part than was asked for".to_owned()));
            }
            status if status == 429 || status >= 500 => {
                return Ok(Attempt::Cut(format!("the server answers {status}")));
            }
            status => return Err(FetchError::Status { url: remote.url.clone(), status, path: path.to_owned() }),
        }
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) if partial.len() < remote.bytes => {
                    return Ok(Attempt::Cut(format!("ended after {} of {} bytes", partial.len(), remote.bytes)));
                }
                Ok(0) => return Ok(Attempt::Complete),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Attempt::Cut(error.to_string())),
            };
            if partial.len() + count as u64 > remote.bytes {
                partial.discard()?;
                return Err(FetchError::Content {
                    url: remote.url.clone(),
                    expected: format!("a file of {} bytes", remote.bytes),
                    found: "more bytes".to_owned(),
                });
            }
            partial.append(&buffer[..count])?;
            if !progress(partial.len()) {
                return Err(FetchError::Interrupted);
            }
        }
    }
}

/// The first byte of a part: `Content-Range: bytes 12-34/56`.
fn first_byte(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
