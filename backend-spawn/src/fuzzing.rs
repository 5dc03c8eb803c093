//! What reads bytes that a worker or a stranger wrote, as functions for fuzzing: any input must do.

use std::io::{self, Read};

use rustix::net::{SendFlags, send};

use crate::bootstrap_env::BootstrapEnv;
use crate::doorbell::{FRAME_BYTES, Heard, Inbox, Message};
use crate::hello::connection;

/// A doorbell that gives its bytes in pieces, and then has no more for now.
struct Doorbell<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl Read for Doorbell<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.bytes.len().min(into.len()).min(self.piece);
        let (now, later) = self.bytes.split_at(count);
        into[..count].copy_from_slice(now);
        self.bytes = later;
        Ok(count)
    }
}

/// A worker's first words in its doorbell, and what the parent makes of them.
///
/// # Panics
/// When a message comes out that is written in another way, or one takes too much memory.
pub fn doorbell(input: &[u8]) {
    let (piece, bytes) = input.split_first().unwrap_or((&0, &[]));
    let mut doorbell = Doorbell {
        bytes,
        piece: usize::from(*piece).max(1),
    };
    let mut inbox = Inbox::default();
    while let Ok(heard) = inbox.listen(&mut doorbell) {
        assert!(inbox.memory() <= 2 * FRAME_BYTES, "a message is short");
        match heard {
            Heard::Message(Message::Failed(_)) => {}
            Heard::Message(message) => {
                let again = message.encode();
                let mut again = Doorbell {
                    bytes: &again,
                    piece: FRAME_BYTES,
                };
                let back = Inbox::default().listen(&mut again);
                assert_eq!(back.expect("it was written here"), Heard::Message(message));
            }
            Heard::Nothing | Heard::Closed => break,
        }
    }
}

/// The variable by which a process is called to be a worker.
///
/// # Panics
/// When a call comes out that is written in another way.
pub fn bootstrap_env(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(called) = BootstrapEnv::parse(text)
        && called.launch.is_some()
    {
        assert_eq!(BootstrapEnv::parse(&called.to_string()), Some(called));
    }
}

/// What a worker sends in place of a hello: messages, each with its length in a byte before it.
///
/// # Panics
/// When the system refuses a socket.
pub fn hello(input: &[u8]) {
    let (receiver, stranger) = connection().expect("sockets");
    let mut rest = input;
    while let Some((length, after)) = rest.split_first() {
        let (message, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        // What there is no room for is not sent; but it is little.
        let _ = send(
            &stranger,
            message,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        );
    }
    drop(stranger);
    for _ in 0..=input.len() {
        match receiver.try_recv() {
            Ok(_) => {}
            // The link gives up at the first one.
            Err(_) => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use procpool_testing::corpus::replay;

    use super::*;

    #[test]
    fn the_corpus_of_doorbell_is_survived() {
        replay("doorbell", doorbell);
    }

    #[test]
    fn the_corpus_of_bootstrap_env_is_survived() {
        replay("bootstrap_env", bootstrap_env);
    }

    #[test]
    fn the_corpus_of_hello_is_survived() {
        replay("hello", hello);
    }
}
