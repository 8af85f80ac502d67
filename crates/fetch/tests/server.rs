//! Fetching from a server on this machine that does what servers and lines do: cuts, ignores ranges, sends other bytes.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fetch::{FetchError, Fetched, Fetcher, Remote};
use manifest::digest::Digest;

/// How a request is answered.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// Properly, ranges included.
    Whole,
    /// As `Whole`, but the connection ends after so many bytes.
    Cut(usize),
    /// All of it, whatever was asked for.
    NoRange,
    /// As `NoRange`, and cut.
    NoRangeCut(usize),
    /// Bytes of another file of the same length.
    Wrong,
    /// More bytes than the file has.
    Longer,
    /// The part that begins one byte later than was asked for.
    Shifted,
    /// Nothing but a status.
    Status(u16),
}

/// A server; it answers as told, and in the end always as told last.
struct Server {
    address: String,
    /// First bytes of the ranges that were asked for.
    asked: Arc<Mutex<Vec<Option<usize>>>>,
}

fn content() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

impl Server {
    fn new(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file.bin", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let mut answers = VecDeque::from(answers.to_vec());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let header: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let range =
                    header.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
                let start = range.map(|range| range.trim_end_matches('-').parse::<usize>().unwrap());
                noted.lock().unwrap().push(start);
                let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() };
                // A client that hangs up is no error of the server's.
                let _ = respond(&mut stream, answer.unwrap(), start);
            }
        });
        Self { address, asked }
    }

    fn remote(&self) -> Remote {
        let content = content();
        Remote { url: self.address.clone(), bytes: content.len() as u64, sha256: Digest::of(&content) }
    }

    fn asked(&self) -> Vec<Option<usize>> {
        self.asked.lock().unwrap().clone()
    }
}

fn respond(stream: &mut impl Write, answer: Answer, start: Option<usize>) -> std::io::Result<()> {
    let mut body = content();
    if matches!(answer, Answer::Wrong) {
        body[77] ^= 1;
    }
    if matches!(answer, Answer::Longer) {
        body.extend([0; 1000]);
    }
    if let Answer::Status(status) = answer {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let total = body.len();
    let start = match answer {
        Answer::NoRange | Answer::NoRangeCut(_) => None,
        Answer::Shifted => start.map(|start| start + 1),
        _ => start,
    };
    match start {
        Some(start) if start >= total => {
            return write!(stream, "HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Some(start) => {
            body.drain(..start);
            write!(stream, "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{total}\r\n", total - 1)?;
        }
        None => write!(stream, "HTTP/1.1 200 OK\r\n")?,
    }
    write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    let sent = match answer {
        Answer::Cut(bytes) | Answer::NoRangeCut(bytes) => bytes.min(body.len()),
        _ => body.len(),
    };
    stream.write_all(&body[..sent])
}

/// A place for the file, in a folder that does not exist yet.
struct Target(tempfile::TempDir);

impl Target {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("new/file.bin")
    }

    /// Names in the folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().parent().unwrap()).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn fetch(&self, server: &Server) -> Result<Fetched, FetchError> {
        Fetcher::new(Duration::from_millis(1)).fetch(&server.remote(), &self.path(), |_| true)
    }

    fn is_whole(&self) -> bool {
        fs::read(self.path()).is_ok_and(|bytes| bytes == content()) && self.names() == ["file.bin"]
    }
}

#[test]
fn a_file_is_fetched_once() {
    let (server, target) = (Server::new(&[Answer::Whole]), Target::new());
    assert_eq!(target.fetch(&server).unwrap(), Fetched::Now { resumed: 0 });
    assert!(target.is_whole());
    assert_eq!(target.fetch(&server).unwrap(), Fetched::AlreadyThere);
    assert_eq!(server.asked(), [None]);
}

#[test]
fn a_cut_connection_goes_on_where_it_ended() {
    let (server, target) = (Server::new(&[Answer::Cut(100_000), Answer::Cut(50_000), Answer::Whole]), Target::new());
    assert_eq!(target.fetch(&server).unwrap(), Fetched::Now { resumed: 0 });
    assert!(target.is_whole());
    assert_eq!(server.asked(), [None, Some(100_000), Some(150_000)]);
}

#[test]
fn another_call_goes_on_where_the_last_one_was_interrupted() {
    let (server, target) = (Server::new(&[Answer::Whole]), Target::new());
    let stopped = Fetcher::default().fetch(&server.remote(), &target.path(), |bytes| bytes < 150_000);
    assert!(matches!(stopped, Err(FetchError::Interrupted)));
    assert_eq!(target.names(), [".file.bin.partial"]);
    let Fetched::Now { resumed } = target.fetch(&server).unwrap() else { panic!("it was not there") };
    assert!(target.is_whole() && resumed >= 150_000);
    assert_eq!(server.asked(), [None, Some(resumed as usize)]);
}

#[test]
fn a_server_that_ignores_ranges_sends_everything_again() {
    for answers in
        [&[Answer::Cut(100_000), Answer::NoRange][..], &[Answer::Cut(100_000), Answer::Shifted, Answer::Whole]]
    {
        let (server, target) = (Server::new(answers), Target::new());
        target.fetch(&server).unwrap();
        assert!(target.is_whole(), "{answers:?}");
    }
}

#[test]
fn a_line_that_never_gets_further_is_given_up_and_keeps_what_came() {
    let (server, target) = (Server::new(&[Answer::Cut(1000), Answer::Cut(0)]), Target::new());
    let message = target.fetch(&server).unwrap_err().to_string();
    assert!(message.contains("127.0.0.1") && message.contains("5 times"), "{message}");
    assert_eq!(target.names(), [".file.bin.partial"]);
    assert_eq!(server.asked().len(), 6);
    let endless = Server::new(&[Answer::NoRangeCut(1000)]);
    assert!(matches!(Target::new().fetch(&endless), Err(FetchError::Connection { .. })));
    let gone = Server { address: "http://127.0.0.1:9/file.bin".to_owned(), asked: Arc::default() };
    assert!(matches!(Target::new().fetch(&gone), Err(FetchError::Connection { .. })));
}

#[test]
fn wrong_bytes_are_never_kept() {
    let (server, target) = (Server::new(&[Answer::Wrong]), Target::new());
    let message = target.fetch(&server).unwrap_err().to_string();
    let right = Digest::of(&content()).to_string();
    assert!(message.contains(&right) && message.contains("nothing was kept"), "{message}");
    assert!(target.names().is_empty());
    let message = target.fetch(&Server::new(&[Answer::Longer])).unwrap_err().to_string();
    assert!(message.contains("more bytes"), "{message}");
    assert!(target.names().is_empty());
}

#[test]
fn bytes_of_another_version_that_an_earlier_call_left_are_given_up_once() {
    for left in [vec![0; 1000], vec![0; 300_000], vec![0; 300_001]] {
        let (server, target) = (Server::new(&[Answer::Whole]), Target::new());
        fs::create_dir_all(target.path().parent().unwrap()).unwrap();
        fs::write(target.path().with_file_name(".file.bin.partial"), &left).unwrap();
        assert_eq!(target.fetch(&server).unwrap(), Fetched::Now { resumed: 0 });
        assert!(target.is_whole());
    }
}

#[test]
fn a_refusal_names_the_address_the_status_and_the_place_and_is_not_repeated() {
    let (server, target) = (Server::new(&[Answer::Status(404)]), Target::new());
    let message = target.fetch(&server).unwrap_err().to_string();
    assert!(message.contains("file.bin: the server answers 404"), "{message}");
    assert_eq!(server.asked().len(), 1);
    let (busy, target) = (Server::new(&[Answer::Status(503), Answer::Status(429), Answer::Whole]), Target::new());
    target.fetch(&busy).unwrap();
    assert!(target.is_whole());
}

#[test]
fn a_file_that_is_there_is_never_replaced() {
    let (server, target) = (Server::new(&[Answer::Whole]), Target::new());
    fs::create_dir_all(target.path().parent().unwrap()).unwrap();
    fs::write(target.path(), "mine").unwrap();
    let message = target.fetch(&server).unwrap_err().to_string();
    assert!(message.contains("move it away"), "{message}");
    assert_eq!(fs::read(target.path()).unwrap(), b"mine");
}

#[test]
fn two_processes_do_not_write_the_same_file() {
    let (server, target) = (Server::new(&[Answer::Whole]), Target::new());
    let (inner, path) = (target.fetch_while(&server), target.path());
    assert!(matches!(inner, Some(FetchError::Busy { .. })), "{inner:?}");
    assert!(path.exists());
}

impl Target {
    /// What a second fetch says while the first is at it.
    fn fetch_while(&self, server: &Server) -> Option<FetchError> {
        let mut second = None;
        let fetched = Fetcher::default().fetch(&server.remote(), &self.path(), |_| {
            second = second.take().or_else(|| self.fetch(server).err());
            true
        });
        fetched.unwrap();
        second
    }
}
