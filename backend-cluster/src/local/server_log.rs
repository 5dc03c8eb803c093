//! What the server says.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

/// How many lines are kept for an error.
const KEPT: usize = 10;

/// How much of a line is read at once; of a longer one, each part counts as a line.
const LONGEST: u64 = 4096;

/// How long somebody waits for what an ended server has said, which is there at once.
const LAST_MOMENT: Duration = Duration::from_millis(200);

/// A thread that reads all that the server says (or the server would stand still when the pipe is
/// full), and keeps the last of it. It ends when the server has ended.
#[derive(Debug)]
pub(super) struct ServerLog {
    last: Arc<Mutex<VecDeque<String>>>,
    ready: Receiver<SocketAddr>,
    reader: Option<JoinHandle<()>>,
}

impl ServerLog {
    /// Reads from here.
    pub(super) fn read(stderr: impl Read + Send + 'static) -> io::Result<Self> {
        let last = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT)));
        // It never waits for somebody to take the address.
        let (says_ready, ready) = sync_channel(1);
        let kept = Arc::clone(&last);
        let reader = thread::Builder::new()
            .name("procpool-nats".into())
            .spawn(move || read_all(stderr, &kept, &says_ready))?;
        Ok(Self {
            last,
            ready,
            reader: Some(reader),
        })
    }

    /// Gives the address at which the server is ready, once it is; an error if it ends before.
    pub(super) fn ready(&self) -> &Receiver<SocketAddr> {
        &self.ready
    }

    /// Waits until all is read that a server has said which has ended.
    pub(super) fn finish(&mut self) {
        // The thread drops its end at last. It never does while a process has a copy of the pipe
        // that was forked when the server was started.
        let over = loop {
            match self.ready.recv_timeout(LAST_MOMENT) {
                Ok(_) => {}
                Err(over) => break over,
            }
        };
        if over == RecvTimeoutError::Disconnected
            && let Some(reader) = self.reader.take()
        {
            // It has panicked, at worst, and has said so.
            let _ = reader.join();
        }
    }
}

impl fmt::Display for ServerLog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_empty() {
            return write!(out, "it has said nothing");
        }
        write!(out, "the last that it has said:")?;
        last.iter().try_for_each(|line| write!(out, "\n  {line}"))
    }
}

fn read_all(stderr: impl Read, kept: &Mutex<VecDeque<String>>, ready: &SyncSender<SocketAddr>) {
    let mut reader = BufReader::new(stderr);
    let mut address = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        // An error is an end, too: there is nothing more to be read then.
        match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        address = address_in(&text).or(address);
        if text.ends_with("Server is ready")
            && let Some(address) = address
        {
            // Nobody waits for it any more if it has taken too long.
            let _ = ready.try_send(address);
        }
        if !text.is_empty() {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(text);
        }
    }
}

/// Where a line says that the server listens.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once("Listening for client connections on ")?;
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn reading(text: &str) -> ServerLog {
        ServerLog::read(Cursor::new(text.to_owned())).unwrap()
    }

    fn log_of(text: &str) -> ServerLog {
        let mut log = reading(text);
        log.finish();
        log
    }

    #[test]
    fn the_address_comes_when_the_server_is_ready() {
        let log = reading(
            "[7] [INF] Starting nats-server\n\
             [7] [INF] Listening for client connections on 127.0.0.1:40123\n\
             [7] [INF] Server is ready\n",
        );
        let address = log.ready().recv().unwrap();
        assert_eq!(address, "127.0.0.1:40123".parse().unwrap());
    }

    #[test]
    fn a_server_that_ends_before_it_is_ready_gives_no_address() {
        let log = reading("[7] [INF] Listening for client connections on 127.0.0.1:40123\n");
        assert!(log.ready().recv().is_err());
        let log = reading("[7] [INF] Server is ready\n");
        assert!(log.ready().recv().is_err());
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut text: String = (0..100).map(|line| format!("line {line}\n\n")).collect();
        text.push_str("no newline");
        let kept = log_of(&text).to_string();
        let lines: Vec<&str> = kept.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines[..2], ["line 91", "line 92"]);
        assert_eq!(lines[KEPT - 1], "no newline");
        assert_eq!(log_of("").to_string(), "it has said nothing");
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_whole() {
        let kept = log_of(&"x".repeat(1 << 20)).to_string();
        assert!(kept.len() < (KEPT + 1) * (LONGEST as usize + 8));
    }
}
