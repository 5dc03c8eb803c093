//! What reads bytes that a worker or a stranger wrote, as functions for fuzzing: any input must do.

use std::io::{self, Read};

use ipc_channel::ipc::IpcOneShotServer;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use crate::handover::{Setup, adopt, guard};
use crate::hello::{FRAME_BYTES, Heard, Inbox, Message};
use crate::summons::Summons;

/// A doorbell that gives its bytes in pieces, and then has no more for now.
struct Bell<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl Read for Bell<'_> {
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
pub fn hello(input: &[u8]) {
    let (piece, bytes) = input.split_first().unwrap_or((&0, &[]));
    let mut bell = Bell {
        bytes,
        piece: usize::from(*piece).max(1),
    };
    let mut inbox = Inbox::default();
    while let Ok(heard) = inbox.listen(&mut bell) {
        assert!(inbox.memory() <= 2 * FRAME_BYTES, "a message is short");
        match heard {
            Heard::Message(Message::Failed(_)) => {}
            Heard::Message(message) => {
                let again = message.encode();
                let mut again = Bell {
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
/// When a summons comes out that is written in another way.
pub fn summons(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(summons) = Summons::parse(text)
        && summons.secret.is_some()
    {
        assert_eq!(Summons::parse(&summons.to_string()), Some(summons));
    }
}

/// What a stranger sends to a worker's server: messages, each with its length in a byte before it.
/// (Without descriptors: ipc-channel believes every length in a message that has some.)
///
/// # Panics
/// When the system refuses a socket, or a region comes out.
pub fn setup(input: &[u8]) {
    let (server, name) = IpcOneShotServer::<Setup>::new().expect("a server");
    {
        let stranger = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket");
        let address = SocketAddrUnix::new(&*name).expect("a short path");
        connect(&stranger, &address).expect("it listens");
        let mut rest = input;
        while let Some((length, after)) = rest.split_first() {
            let (message, after) = after.split_at(usize::from(*length).min(after.len()));
            rest = after;
            if !message.is_empty() {
                // What there is no room for is not sent; but it is little.
                let _ = send(
                    &stranger,
                    message,
                    SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                );
            }
        }
    }
    let hook = cfg!(fuzzing).then(std::panic::take_hook);
    if hook.is_some() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let met = guard(|| server.accept());
    if let Some(hook) = hook {
        std::panic::set_hook(hook);
    }
    if let Ok(Ok((_connection, setup))) = met {
        // Its nonce may be right only if it is the parent's. Its memory is none.
        assert!(adopt(setup.memory).is_err(), "no memory was sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a target on all inputs that are kept for it.
    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/");
        let entries = std::fs::read_dir(format!("{corpus}{target}")).expect("a corpus");
        let mut count = 0;
        for entry in entries.flatten() {
            // Should it panic, this says for which.
            println!("{}", entry.path().display());
            run(&std::fs::read(entry.path()).expect("it was there a moment ago"));
            count += 1;
        }
        assert!(count > 0, "nothing is kept");
    }

    #[test]
    fn the_corpus_of_hello_is_survived() {
        replay("hello", hello);
    }

    #[test]
    fn the_corpus_of_summons_is_survived() {
        replay("summons", summons);
    }

    #[test]
    fn the_corpus_of_setup_is_survived() {
        replay("setup", setup);
    }
}
