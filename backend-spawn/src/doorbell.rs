//! What a worker says through its doorbell before it is one.
//!
//! The bytes come from another process and are validated: no bytes make the parent panic, or hold
//! more than [`FRAME_BYTES`].

use std::error::Error;
use std::fmt;
use std::io::{self, Read};

/// A message from a worker that is being launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The worker has the region and has said hello. The last message: what follows are the rings
    /// of the doorbell.
    Ready,
    /// The bootstrap failed, and this is why.
    Failed(String),
    /// The process came to build a pool of its own without having met `init`.
    MissingInit,
}

/// The longest message in bytes. Below what a pipe takes in one piece (`PIPE_BUF`, 4096), so that
/// a message is never written half.
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + BODY_BYTES;

/// Mark, kind, and the body's length in two bytes.
const HEADER_BYTES: usize = MARK.len() + 3;
const BODY_BYTES: usize = 2048;

/// Begins every message. Not text, and unlike the rings of the doorbell.
const MARK: [u8; 4] = [0xf1, b'p', b'p', 0];

const READY: u8 = 1;
const FAILED: u8 = 2;
const MISSING_INIT: u8 = 3;

impl Message {
    /// The bytes to write, in one piece. Text that is too long is cut.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, body): (_, &[u8]) = match self {
            Self::Ready => (READY, &[]),
            Self::Failed(reason) => (FAILED, reason.as_bytes()),
            Self::MissingInit => (MISSING_INIT, &[]),
        };
        let body = &body[..body.len().min(BODY_BYTES)];
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.extend(MARK);
        frame.push(kind);
        frame.extend((body.len() as u16).to_le_bytes());
        frame.extend(body);
        frame
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Self, Malformed> {
        match kind {
            READY if body.is_empty() => Ok(Self::Ready),
            FAILED => Ok(Self::Failed(String::from_utf8_lossy(body).into_owned())),
            MISSING_INIT if body.is_empty() => Ok(Self::MissingInit),
            _ => Err(Malformed),
        }
    }
}

/// Puts messages together from a doorbell, and never takes a byte more than the message that it
/// answers: what follows the last one belongs to the engine.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Vec<u8>);

/// The answer of [`Inbox::listen`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Not a whole message yet.
    Nothing,
    /// This.
    Message(Message),
    /// Nobody holds the other end any more.
    Closed,
}

impl Inbox {
    /// Reads on from a doorbell that does not block.
    ///
    /// # Errors
    /// Of kind `InvalidData` when the bytes are no message of a worker; else those of reading.
    pub(crate) fn listen(&mut self, mut doorbell: impl Read) -> io::Result<Heard> {
        let mut bytes = [0; FRAME_BYTES];
        loop {
            let wanted = match self.missing()? {
                0 => return Ok(Heard::Message(self.take()?)),
                wanted => &mut bytes[..wanted],
            };
            match doorbell.read(wanted) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(count) => self.0.extend(&wanted[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Heard::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes of memory that it holds.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn memory(&self) -> usize {
        self.0.capacity()
    }

    /// How many bytes the message lacks, as far as can be said; 0 when it is complete.
    fn missing(&self) -> Result<usize, Malformed> {
        let marked = self.0.len().min(MARK.len());
        if self.0[..marked] != MARK[..marked] {
            return Err(Malformed);
        }
        let Some((header, body)) = self.0.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(HEADER_BYTES - self.0.len());
        };
        let [.., low, high] = *header;
        let length = usize::from(u16::from_le_bytes([low, high]));
        if length > BODY_BYTES {
            return Err(Malformed);
        }
        Ok(length.saturating_sub(body.len()))
    }

    fn take(&mut self) -> Result<Message, Malformed> {
        let frame = std::mem::take(&mut self.0);
        let (header, body) = frame.split_at_checked(HEADER_BYTES).ok_or(Malformed)?;
        Message::decode(header[MARK.len()], body)
    }
}

/// The bytes are no message of a worker.
#[derive(Debug)]
pub(crate) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a worker's doorbell said something that is no message")
    }
}

impl Error for Malformed {}

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::{BODY_BYTES, FRAME_BYTES, Heard, Inbox, MARK, Message};
    use proptest::prelude::*;
    use std::io::{self, Read};

    /// A non-blocking pipe that holds these bytes, and gives at most `piece` of them at a time.
    struct Pipe<'a> {
        bytes: &'a [u8],
        piece: usize,
        taken: usize,
    }

    impl Read for Pipe<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let left = &self.bytes[self.taken..];
            if left.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = left.len().min(into.len()).min(self.piece);
            into[..count].copy_from_slice(&left[..count]);
            self.taken += count;
            Ok(count)
        }
    }

    fn messages() -> impl Strategy<Value = Message> {
        prop_oneof![
            Just(Message::Ready),
            "\\PC{0,100}".prop_map(Message::Failed),
            Just(Message::MissingInit),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_what_follows_is_left(
            message in messages(),
            piece in 1_usize..64,
            rings in 0_usize..10,
        ) {
            let mut bytes = message.encode();
            prop_assert!(bytes.len() <= FRAME_BYTES);
            let frame = bytes.len();
            bytes.resize(frame + rings, 1);
            let mut pipe = Pipe { bytes: &bytes, piece, taken: 0 };
            let heard = Inbox::default().listen(&mut pipe).expect("a message");
            prop_assert_eq!(heard, Heard::Message(message));
            prop_assert_eq!(pipe.taken, frame);
        }

        #[test]
        fn a_message_may_come_in_two_parts(message in messages(), cut: prop::sample::Index) {
            let bytes = message.encode();
            let (first, second) = bytes.split_at(cut.index(bytes.len()));
            let mut inbox = Inbox::default();
            let mut pipe = Pipe { bytes: first, piece: 1, taken: 0 };
            prop_assert_eq!(inbox.listen(&mut pipe).expect("no error"), Heard::Nothing);
            let mut pipe = Pipe { bytes: second, piece: 1, taken: 0 };
            prop_assert_eq!(inbox.listen(&mut pipe).expect("a message"), Heard::Message(message));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, marked: bool, piece in 1_usize..64) {
            let bytes = if marked { [&MARK[..], &bytes].concat() } else { bytes };
            let mut inbox = Inbox::default();
            let mut pipe = Pipe { bytes: &bytes, piece, taken: 0 };
            while let Ok(Heard::Message(_)) = inbox.listen(&mut pipe) {}
            prop_assert!(inbox.0.capacity() <= 2 * FRAME_BYTES);
        }

        #[test]
        fn any_body_is_survived(
            kind in 0_u8..6,
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Message::decode(kind, &body);
        }
    }

    #[test]
    fn a_ring_before_any_message_is_an_error() {
        let mut pipe = Pipe {
            bytes: &[1],
            piece: 1,
            taken: 0,
        };
        let error = Inbox::default().listen(&mut pipe).expect_err("no message");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_long_length_is_refused_before_it_is_believed() {
        let mut bytes = Message::Ready.encode();
        let length = bytes.len();
        bytes[length - 2..].copy_from_slice(&(BODY_BYTES as u16 + 1).to_le_bytes());
        let mut pipe = Pipe {
            bytes: &bytes,
            piece: 64,
            taken: 0,
        };
        Inbox::default().listen(&mut pipe).expect_err("no message");
    }

    #[test]
    fn a_long_reason_is_cut() {
        let bytes = Message::Failed("ä".repeat(BODY_BYTES)).encode();
        assert_eq!(bytes.len(), FRAME_BYTES);
        let mut pipe = Pipe {
            bytes: &bytes,
            piece: 64,
            taken: 0,
        };
        let heard = Inbox::default().listen(&mut pipe).expect("a message");
        assert_eq!(
            heard,
            Heard::Message(Message::Failed("ä".repeat(BODY_BYTES / 2)))
        );
    }

    #[test]
    fn a_closed_bell_is_told_from_a_silent_one() {
        assert_eq!(
            Inbox::default().listen(io::empty()).expect("no error"),
            Heard::Closed
        );
    }
}
