//! One lane, seen from where messages are sent.

use std::collections::VecDeque;

use super::LENGTH;
use super::frame::Malformed;

/// A lane is a stream of bytes: each message behind its length. Positions in it count from the
/// beginning of the session.
///
/// Messages are kept, not frames: what goes again is cut anew, with what has come in between.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// From the first of which a byte is not acknowledged.
    messages: VecDeque<Vec<u8>>,
    /// Where the first of them begins.
    start: u64,
    /// Where the last of them ends.
    end: u64,
    acknowledged: u64,
    /// What is sent next.
    next: u64,
    /// The message that `next` is in, and where that begins.
    current: usize,
    current_start: u64,
    /// As far as it was ever sent.
    sent: u64,
    /// How often it has gone back. A gap that was seen in an earlier round was seen to already.
    round: u32,
}

impl Outbound {
    pub(super) fn push(&mut self, message: Vec<u8>) {
        self.end += length(&message);
        self.messages.push_back(message);
    }

    /// How many bytes wait or are not acknowledged.
    pub(super) fn backlog(&self) -> u64 {
        self.end - self.acknowledged
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn round(&self) -> u32 {
        self.round
    }

    /// Was something sent that is not acknowledged?
    pub(super) fn is_under_way(&self) -> bool {
        self.sent > self.acknowledged
    }

    /// Whether something is to be sent.
    pub(super) fn waits(&self) -> bool {
        self.next < self.end
    }

    /// How many bytes [`fill`](Self::fill) may append, about: none if it appends none.
    pub(super) fn sendable(&self, frame: usize, window: usize) -> usize {
        let used = self.next - self.acknowledged;
        let room = (window as u64).saturating_sub(used).min(frame as u64);
        let is_at_length = self.next == self.current_start;
        if is_at_length && room < LENGTH as u64 {
            return 0; // A length is not cut.
        }
        room.min(self.end - self.next) as usize
    }

    /// Appends what is sent next, at most `room` bytes.
    pub(super) fn fill(&mut self, frame: &mut Vec<u8>, mut room: usize) {
        while let Some(message) = self.messages.get(self.current) {
            let mut done = (self.next - self.current_start) as usize;
            if done == 0 {
                if room < LENGTH {
                    break;
                }
                frame.extend_from_slice(&(message.len() as u64).to_le_bytes());
                done = LENGTH;
                room -= LENGTH;
                self.next += LENGTH as u64;
            }
            let rest = &message[done - LENGTH..];
            let taken = rest.len().min(room);
            frame.extend_from_slice(&rest[..taken]);
            room -= taken;
            self.next += taken as u64;
            if taken < rest.len() {
                break;
            }
            self.current += 1;
            self.current_start = self.next;
        }
        self.sent = self.sent.max(self.next);
    }

    /// Can the other side have so much?
    pub(super) fn check(&self, taken: u64) -> Result<(), Malformed> {
        if taken > self.sent {
            return Err(Malformed::Acknowledgement);
        }
        Ok(())
    }

    /// The other side has so much. Is it more than before?
    pub(super) fn acknowledge(&mut self, taken: u64) -> Result<bool, Malformed> {
        if taken <= self.acknowledged {
            return Ok(false);
        }
        while let Some(message) = self.messages.front()
            && self.start + length(message) <= taken
        {
            self.start += length(message);
            self.messages.pop_front();
            self.current = self.current.saturating_sub(1);
        }
        let is_in_length = taken > self.start && taken < self.start + LENGTH as u64;
        self.acknowledged = if is_in_length { self.start } else { taken };
        if self.acknowledged > self.next {
            // It had gone back, and need not have.
            self.rewind();
        }
        if is_in_length {
            return Err(Malformed::Acknowledgement); // A length is not cut.
        }
        Ok(true)
    }

    /// The other side misses something that was sent in this round.
    pub(super) fn miss(&mut self, round: u32) {
        if round == self.round {
            self.go_back();
        }
    }

    /// All that is not acknowledged goes again.
    pub(super) fn go_back(&mut self) {
        if self.is_under_way() {
            self.rewind();
            self.round = self.round.wrapping_add(1);
        }
    }

    fn rewind(&mut self) {
        self.next = self.acknowledged;
        self.current = 0;
        self.current_start = self.start;
    }
}

/// How many bytes a message has in its lane.
fn length(message: &[u8]) -> u64 {
    (LENGTH + message.len()) as u64
}
