//! What reads bytes that another process wrote, as functions for fuzzing: any input must do.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use procpool_core::ExitStatus;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::hello::HelloReader;
use crate::message::{Reply, Request};
use crate::server::serve_client;
use crate::socket::{Received, Socket};

/// A message between the parent and the fork server.
///
/// # Panics
/// When one comes out that is written in another way.
pub fn message(input: &[u8]) {
    if let Some(request) = Request::decode(input) {
        assert_eq!(request.encode(), input, "a request has one form");
    }
    if let Some(reply) = Reply::decode(input)
        && reply.status != ExitStatus::Unknown
    {
        assert_eq!(reply.encode(), input, "a reply has one form");
    }
}

/// What comes out of a doorbell before and with the server's hello, in pieces.
///
/// # Panics
/// When a hello comes out that no server writes.
pub fn hello(input: &[u8]) {
    let (piece, bytes) = input.split_first().unwrap_or((&0, &[]));
    let mut reader = HelloReader::default();
    for piece in bytes.chunks(usize::from(*piece).max(1)) {
        match reader.feed(piece) {
            Ok(None) => {}
            Ok(Some(hello)) => {
                let again = HelloReader::default().feed(&hello.encode());
                assert_eq!(again, Ok(Some(hello)));
            }
            Err(_) => break,
        }
    }
}

/// What a pool's connection brings to the fork server: messages, each behind a byte with its
/// length and one with its descriptors, none of which can be a worker's memory.
///
/// # Panics
/// When descriptors are left.
pub fn client(input: &[u8]) {
    let free = free_descriptor();
    {
        let (ours, theirs) = Socket::pair().expect("a socket");
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let mut server = serve_client(theirs);
        let mut rest = input;
        let mut is_open = true;
        while let [length, given, after @ ..] = rest {
            let (message, after) = after.split_at(usize::from(*length).min(after.len()));
            rest = after;
            // Two at most are sent at a time. (No sockets: one that travels over itself is left to
            // the kernel's garbage collection, which makes the next `close` wait.)
            let all = [writer.as_fd(), reader.as_fd(), writer.as_fd()];
            let given = &all[usize::from(given % 2)..][..usize::from(given / 2 % 3).min(2)];
            let _ = ours.send(message, given);
            is_open = is_open && server();
        }
        drop(server);
        while let Received::Message { bytes, descriptors } = ours.receive() {
            let reply = Reply::decode(&bytes).expect("the server speaks clearly");
            assert_eq!(reply.status, ExitStatus::Unknown, "it has no workers");
            assert!(descriptors.is_empty(), "nor descriptors for the parent");
        }
    }
    // Tests have threads that open some.
    if cfg!(fuzzing) {
        assert_eq!(free_descriptor(), free, "a descriptor is left");
    }
}

/// The number of the next descriptor that is opened.
fn free_descriptor() -> i32 {
    let copy: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3))
        .expect("standard output or error");
    copy.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use procpool_testing::corpus::replay;

    use super::*;

    #[test]
    fn the_corpus_of_message_is_survived() {
        replay("message", message);
    }

    #[test]
    fn the_corpus_of_client_is_survived() {
        replay("client", client);
    }

    #[test]
    fn the_corpus_of_fork_hello_is_survived() {
        replay("fork_hello", hello);
    }
}
