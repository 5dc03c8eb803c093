//! A frame: what travels at once between the two sides of a session.

use std::time::Duration;

use super::Lane;

/// How many bytes a frame has besides its payload.
pub(crate) const OVERHEAD: usize = 4 + 1 + 2 * LANE + 8 + 8;
/// What it says of a lane.
const LANE: usize = 8 + 4 + 8 + 4;

/// The payload is of the lane for data.
const DATA: u8 = 1;
/// An answer is wanted.
const ASKS: u8 = 2;
/// There is an echo.
const ECHO: u8 = 4;
/// Something is missed in the lane for control.
const MISSED: [u8; 2] = [8, 16];

/// What a frame says besides its payload.
///
/// It speaks of both lanes, whatever it carries: so an empty one shows what was lost before it, in
/// either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) session: u32,
    /// Whose the payload is.
    pub(super) lane: Lane,
    /// An answer is wanted.
    pub(super) asks: bool,
    /// By [`Lane::index`].
    pub(super) lanes: [LaneState; 2],
    /// The sender's clock, in nanoseconds.
    pub(super) clock: u64,
    /// The latest clock of the receiver's that the sender has heard.
    pub(super) echo: Option<u64>,
}

/// What a frame says of one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LaneState {
    /// How many bytes were sent before this frame's payload.
    pub(super) at: u64,
    /// How often the sender has gone back.
    pub(super) round: u32,
    /// How many bytes the sender has taken of what the receiver has sent.
    pub(super) taken: u64,
    /// The receiver's round in which its sender misses something.
    pub(super) missed: Option<u32>,
}

/// Why a frame cannot be of this session's other side. Whoever sent it does not keep to the form:
/// there is no use in going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a frame is incomplete")]
    Short,
    #[error("a frame is of another session")]
    Session,
    #[error("a frame has unknown flags")]
    Flags,
    #[error("a frame is at a position that no byte has")]
    Position,
    #[error("a frame acknowledges what was not sent")]
    Acknowledgement,
    #[error("a frame has heard a clock that was not sent")]
    Echo,
    #[error("a message's length is cut by the end of a frame")]
    Length,
    #[error("a message is too long")]
    Message,
}

/// The session that a frame says to be of.
pub(crate) fn session_of(frame: &[u8]) -> Option<u32> {
    frame.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

impl Header {
    /// Appends it.
    pub(super) fn encode(&self, frame: &mut Vec<u8>) {
        let mut flags = 0;
        if self.lane == Lane::Data {
            flags |= DATA;
        }
        if self.asks {
            flags |= ASKS;
        }
        if self.echo.is_some() {
            flags |= ECHO;
        }
        for (state, flag) in self.lanes.iter().zip(MISSED) {
            if state.missed.is_some() {
                flags |= flag;
            }
        }
        frame.extend_from_slice(&self.session.to_le_bytes());
        frame.push(flags);
        for state in &self.lanes {
            frame.extend_from_slice(&state.at.to_le_bytes());
            frame.extend_from_slice(&state.round.to_le_bytes());
            frame.extend_from_slice(&state.taken.to_le_bytes());
            frame.extend_from_slice(&state.missed.unwrap_or(0).to_le_bytes());
        }
        frame.extend_from_slice(&self.clock.to_le_bytes());
        frame.extend_from_slice(&self.echo.unwrap_or(0).to_le_bytes());
    }

    /// The header of a frame, and its payload.
    pub(super) fn decode(frame: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut rest = frame;
        let session = u32::from_le_bytes(take(&mut rest)?);
        let [flags] = take(&mut rest)?;
        if flags & !(DATA | ASKS | ECHO | MISSED[0] | MISSED[1]) != 0 {
            return Err(Malformed::Flags);
        }
        let mut lanes = [LaneState::default(); 2];
        for (state, flag) in lanes.iter_mut().zip(MISSED) {
            state.at = u64::from_le_bytes(take(&mut rest)?);
            state.round = u32::from_le_bytes(take(&mut rest)?);
            state.taken = u64::from_le_bytes(take(&mut rest)?);
            let missed = u32::from_le_bytes(take(&mut rest)?);
            state.missed = (flags & flag != 0).then_some(missed);
        }
        let clock = u64::from_le_bytes(take(&mut rest)?);
        let echo = u64::from_le_bytes(take(&mut rest)?);
        let header = Self {
            session,
            lane: if flags & DATA != 0 {
                Lane::Data
            } else {
                Lane::Control
            },
            asks: flags & ASKS != 0,
            lanes,
            clock,
            echo: (flags & ECHO != 0).then_some(echo),
        };
        Ok((header, rest))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (bytes, after) = rest.split_first_chunk().ok_or(Malformed::Short)?;
    *rest = after;
    Ok(*bytes)
}

/// A clock as it travels. (It holds for 584 years.)
pub(super) fn to_nanos(clock: Duration) -> u64 {
    u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lane_states() -> impl Strategy<Value = LaneState> {
        any::<(u64, u32, u64, Option<u32>)>().prop_map(|(at, round, taken, missed)| LaneState {
            at,
            round,
            taken,
            missed,
        })
    }

    proptest! {
        #[test]
        fn a_header_comes_out_as_it_went_in(
            session: u32,
            is_data: bool,
            asks: bool,
            control in lane_states(),
            data in lane_states(),
            clock: u64,
            echo: Option<u64>,
            payload: Vec<u8>,
        ) {
            let lane = if is_data { Lane::Data } else { Lane::Control };
            let lanes = [control, data];
            let header = Header { session, lane, asks, lanes, clock, echo };
            let mut frame = Vec::new();
            header.encode(&mut frame);
            prop_assert_eq!(frame.len(), OVERHEAD);
            frame.extend_from_slice(&payload);
            prop_assert_eq!(session_of(&frame), Some(session));
            prop_assert_eq!(Header::decode(&frame), Ok((header, &payload[..])));
            for length in 0..OVERHEAD {
                prop_assert_eq!(Header::decode(&frame[..length]), Err(Malformed::Short));
            }
        }
    }

    #[test]
    fn what_is_too_short_is_of_no_session() {
        assert_eq!(session_of(&[1, 2, 3]), None);
        assert_eq!(session_of(&[1, 0, 0, 0]), Some(1));
    }
}
