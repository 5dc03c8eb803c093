//! What reads bytes from the network, as functions for fuzzing: any input must do.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Envelope;
use crate::link::{Lane, Limits, Link, OVERHEAD};
use crate::message::{Delivery, ToAgent, ToClient, from_bytes, to_bytes};

const SESSION: u32 = 7;

/// Frames at a link that has something to say itself.
///
/// # Panics
/// When more comes out than was put in, or the link writes a frame that is too long.
pub fn frames(input: &[u8]) {
    let limits = Limits {
        frame: 1 << 10,
        window: 1 << 13,
        message: 1 << 16,
    };
    let mut link = Link::new(SESSION, limits);
    link.send(Lane::Control, vec![1; 100]);
    link.send(Lane::Data, vec![2; 20_000]);
    let (mut now, mut arrived, mut heard) = (Duration::ZERO, 0, 0);
    let mut rest = input;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)) % 2048;
        let (frame, after) = after.split_at(length.min(after.len()));
        rest = after;
        now += Duration::from_millis(30);
        // Whoever has heard a frame knows the session's number.
        let frame = [&SESSION.to_le_bytes(), frame].concat();
        arrived += frame.len();
        if link.receive(&frame, now).is_err() {
            return;
        }
        while let Some(message) = link.poll_message() {
            heard += message.len() + size_of::<u64>();
        }
        assert!(heard <= arrived, "{heard} bytes of {arrived}");
        while let Some(frame) = link.poll_frame(now) {
            assert!(frame.len() <= OVERHEAD + limits.frame);
        }
    }
}

/// What two sides of a session say to each other, and what comes from the queue.
///
/// # Panics
/// When what was understood is understood otherwise when it is said again.
pub fn messages(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => says_the_same::<ToAgent>(bytes),
        1 => says_the_same::<ToClient>(bytes),
        2 => says_the_same::<Delivery>(bytes),
        _ => drop(Envelope::open(bytes)),
    }
}

fn says_the_same<T: Serialize + DeserializeOwned + 'static>(bytes: &[u8]) {
    let Some(message) = from_bytes::<T>(bytes) else {
        return;
    };
    let again = to_bytes(&message);
    let understood = from_bytes::<T>(&again).expect("it was understood");
    assert_eq!(to_bytes(&understood), again);
}

#[cfg(test)]
mod tests {
    use procpool_testing::corpus::replay;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_message_is_survived(input in prop::collection::vec(any::<u8>(), 0..200)) {
            messages(&input);
        }
    }

    #[test]
    fn the_corpus_of_frames_is_survived() {
        replay("frames", frames);
    }

    #[test]
    fn the_corpus_of_cluster_messages_is_survived() {
        replay("cluster_messages", messages);
    }
}
