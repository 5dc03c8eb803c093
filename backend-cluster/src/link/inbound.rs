//! One lane, seen from where messages arrive.

use std::collections::VecDeque;

use super::LENGTH;
use super::frame::{LaneState, Malformed};

/// What has arrived of a lane.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// How many bytes were taken.
    taken: u64,
    /// How many the other side has said to have sent.
    told: u64,
    /// The round of the other side's in which something is missing.
    missed: Option<u32>,
    /// The beginning of a message.
    partial: Vec<u8>,
    /// How many bytes of it are still to come.
    rest: usize,
    messages: VecDeque<Vec<u8>>,
}

/// What a frame was for a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// So many bytes were taken. None: nothing is new.
    Taken(usize),
    /// It shows that something is missing, as was not known.
    Gap,
}

impl Inbound {
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn missed(&self) -> Option<u32> {
        self.missed
    }

    pub(super) fn has_gap(&self) -> bool {
        self.told > self.taken
    }

    pub(super) fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.messages.pop_front()
    }

    /// What a frame says of this lane, with what it carries for it. A message has at most
    /// `limit` bytes.
    pub(super) fn receive(
        &mut self,
        state: &LaneState,
        payload: &[u8],
        limit: u64,
    ) -> Result<Arrival, Malformed> {
        let LaneState { at, round, .. } = *state;
        let end = at + payload.len() as u64;
        self.told = self.told.max(end);
        let Some(known) = self.taken.checked_sub(at) else {
            let is_new = self.missed.replace(round) != Some(round);
            return Ok(if is_new {
                Arrival::Gap
            } else {
                Arrival::Taken(0)
            });
        };
        self.missed = None;
        // What goes again may be cut in another way, so that only its end is new.
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let new = payload.get(known..).unwrap_or(&[]);
        self.take(new, limit)?;
        Ok(Arrival::Taken(new.len()))
    }

    /// The same of what comes too early: it is to go again, unless it is known.
    pub(super) fn refuse(&mut self, state: &LaneState, payload: &[u8]) -> Arrival {
        let end = state.at + payload.len() as u64;
        self.told = self.told.max(end);
        let is_new = end > self.taken && self.missed.replace(state.round) != Some(state.round);
        if is_new {
            Arrival::Gap
        } else {
            Arrival::Taken(0)
        }
    }

    fn take(&mut self, mut bytes: &[u8], limit: u64) -> Result<(), Malformed> {
        // At the end of a message that was begun, or of the frame.
        let (end, after) = bytes.split_at(self.rest.min(bytes.len()));
        if !end.is_empty() {
            self.append(end);
            bytes = after;
        }
        while !bytes.is_empty() {
            let (length, after) = bytes.split_first_chunk().ok_or(Malformed::Length)?;
            let length = u64::from_le_bytes(*length);
            if length > limit {
                return Err(Malformed::Message);
            }
            let length = usize::try_from(length).map_err(|_| Malformed::Message)?;
            self.taken += LENGTH as u64;
            if let Some((message, after)) = after.split_at_checked(length) {
                self.taken += length as u64;
                self.messages.push_back(message.to_vec());
                bytes = after;
            } else {
                self.rest = length;
                self.append(after);
                break;
            }
        }
        Ok(())
    }

    /// Puts more to the message that was begun.
    fn append(&mut self, bytes: &[u8]) {
        let length = self.partial.len() + bytes.len();
        if length > self.partial.capacity() {
            // Twice what is there: so the memory is as large as what has arrived, whatever length
            // was said, and each byte moves about once.
            let whole = self.partial.len() + self.rest;
            let capacity = whole.min(2 * length);
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
        self.taken += bytes.len() as u64;
        self.rest -= bytes.len();
        if self.rest == 0 {
            self.messages.push_back(std::mem::take(&mut self.partial));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u64) -> LaneState {
        LaneState {
            at,
            ..LaneState::default()
        }
    }

    #[test]
    fn memory_grows_with_what_arrives() {
        let mut inbound = Inbound::default();
        let claim = (1_u64 << 40).to_le_bytes();
        let arrival = inbound.receive(&at(0), &claim, u64::MAX);
        assert_eq!(arrival, Ok(Arrival::Taken(8)));
        assert_eq!(inbound.partial.capacity(), 0);
        let mut length = 0;
        for piece in [1, 10, 1000, 5, 70_000, 3] {
            let arrival = inbound.receive(&at(8 + length as u64), &vec![0; piece], u64::MAX);
            assert_eq!(arrival, Ok(Arrival::Taken(piece)));
            length += piece;
            assert!(inbound.partial.capacity() <= 2 * length);
        }
        assert_eq!(inbound.poll_message(), None);
    }

    #[test]
    fn a_message_has_no_more_memory_than_it_needs() {
        let mut inbound = Inbound::default();
        let mut bytes = 1000_u64.to_le_bytes().to_vec();
        bytes.resize(1008, 7);
        for (index, piece) in bytes.chunks(300).enumerate() {
            let arrival = inbound.receive(&at(300 * index as u64), piece, u64::MAX);
            assert_eq!(arrival, Ok(Arrival::Taken(piece.len())));
        }
        let message = inbound.poll_message().expect("it is whole");
        assert_eq!((message.len(), message.capacity()), (1000, 1000));
    }

    #[test]
    fn what_goes_again_may_be_cut_in_another_way() {
        let mut inbound = Inbound::default();
        let mut bytes = Vec::new();
        for length in [3_u8, 0, 9] {
            bytes.extend_from_slice(&u64::from(length).to_le_bytes());
            bytes.resize(bytes.len() + usize::from(length), length);
        }
        let first = inbound.receive(&at(0), &bytes[..10], u64::MAX);
        assert_eq!(first, Ok(Arrival::Taken(10)));
        let all = inbound.receive(&at(0), &bytes, u64::MAX);
        assert_eq!(all, Ok(Arrival::Taken(bytes.len() - 10)));
        let again = inbound.receive(&at(0), &bytes, u64::MAX);
        assert_eq!(again, Ok(Arrival::Taken(0)));
        let messages: Vec<_> = std::iter::from_fn(|| inbound.poll_message()).collect();
        assert_eq!(messages, [vec![3; 3], vec![], vec![9; 9]]);
    }
}
