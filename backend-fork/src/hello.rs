//! The first message in a doorbell: the server's, about the worker that is to ring it.

use rustix::io::Errno;

/// Marks the hello among the rings, which the worker may give at any time, even before.
const MARKER: [u8; 4] = *b"\xffpp\xff";

/// A ring of the worker.
const RING: u8 = 1;

/// A pipe takes this many bytes at once or not at all.
pub(crate) const HELLO_BYTES: usize = 12;

/// How a launch went: the worker's process identifier, or why it could not be forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello(pub(crate) Result<u32, Errno>);

impl Hello {
    pub(crate) fn encode(self) -> [u8; HELLO_BYTES] {
        let (errno, pid) = match self.0 {
            Ok(pid) => (0, pid),
            Err(errno) => (errno.raw_os_error(), 0),
        };
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&MARKER);
        bytes[4..8].copy_from_slice(&errno.to_le_bytes());
        bytes[8..].copy_from_slice(&pid.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let [m0, m1, m2, m3, e0, e1, e2, e3, p0, p1, p2, p3] = *bytes;
        let errno = i32::from_le_bytes([e0, e1, e2, e3]);
        let pid = i32::from_le_bytes([p0, p1, p2, p3]);
        if [m0, m1, m2, m3] != MARKER {
            return None;
        }
        match (errno, pid) {
            (0, 1..) => Some(Self(Ok(pid.cast_unsigned()))),
            // The kernel's range.
            (1..4096, 0) => Some(Self(Err(Errno::from_raw_os_error(errno)))),
            _ => None,
        }
    }
}

/// Finds the hello in what comes out of a doorbell, in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct HelloReader {
    bytes: [u8; HELLO_BYTES],
    count: usize,
}

impl HelloReader {
    /// Takes the next piece. `None`: the hello is not complete. What follows it in the piece is
    /// ignored: rings, and the receiver of the hello looks at the region in any case.
    ///
    /// # Errors
    /// When this is something else than rings and a hello.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<Option<Hello>, NoHello> {
        for &byte in piece {
            if self.count == 0 && byte == RING {
                continue;
            }
            self.bytes[self.count] = byte;
            self.count += 1;
            if self.count <= MARKER.len() && byte != MARKER[self.count - 1] {
                return Err(NoHello);
            }
            if self.count == HELLO_BYTES {
                self.count = 0;
                return Hello::decode(&self.bytes).map(Some).ok_or(NoHello);
            }
        }
        Ok(None)
    }
}

/// Something wrote rubbish into a doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoHello;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, prop_assert_eq, prop_oneof, proptest};

    fn hello() -> impl Strategy<Value = Hello> {
        prop_oneof![
            (1..=i32::MAX as u32).prop_map(|pid| Hello(Ok(pid))),
            (1..4096).prop_map(|errno| Hello(Err(Errno::from_raw_os_error(errno)))),
        ]
    }

    proptest! {
        #[test]
        fn is_found_among_rings_in_any_pieces(
            hello in hello(),
            before in 0_usize..100,
            after in 0_usize..100,
            piece in 1_usize..64,
        ) {
            let bytes = [&vec![RING; before][..], &hello.encode(), &vec![RING; after]].concat();
            let mut reader = HelloReader::default();
            let found = bytes
                .chunks(piece)
                .find_map(|piece| reader.feed(piece).expect("only rings and a hello"));
            prop_assert_eq!(found, Some(hello));
        }

        #[test]
        fn rubbish_never_panics(pieces: Vec<Vec<u8>>) {
            let mut reader = HelloReader::default();
            for piece in pieces {
                let _ = reader.feed(&piece);
            }
        }

        #[test]
        fn a_damaged_hello_is_refused_or_still_a_valid_one(
            hello in hello(),
            at in 0..HELLO_BYTES,
            byte: u8,
        ) {
            let mut bytes = hello.encode();
            bytes[at] = byte;
            if let Ok(Some(Hello(Ok(pid)))) = HelloReader::default().feed(&bytes) {
                assert!(i32::try_from(pid).is_ok_and(|pid| pid > 0));
            }
        }

        #[test]
        fn rings_alone_are_no_hello(rings in 0_usize..1000) {
            prop_assert_eq!(HelloReader::default().feed(&vec![RING; rings]), Ok(None));
        }
    }

    #[test]
    fn no_process_has_the_identifier_zero_or_a_negative_one() {
        for pid in [0, -1, i32::MIN] {
            let mut bytes = Hello(Ok(1)).encode();
            bytes[8..].copy_from_slice(&pid.to_le_bytes());
            assert_eq!(HelloReader::default().feed(&bytes), Err(NoHello));
        }
    }
}
