//! Frames of one session: each message arrives once and in order, although frames are lost.
//!
//! What carries them keeps their order while it is connected, and may lose any, and repeat any.
//! Each lane is a stream of bytes, and each frame says for both lanes where in it its sender is: so
//! the receiver sees with the next frame that something is missing, and says so at once; then the
//! sender goes back to what it knows to have arrived. If the last frame is lost there is no next
//! one: who has waited for an acknowledgement for a while sends a frame without payload, which
//! asks. Nothing goes again merely because it is late.
//!
//! No socket, no clock, no thread: `now` is the caller's clock, since whatever moment it likes. It
//! calls [`Link::poll_frame`] until there is none: when it has sent, asked, received or
//! reconnected, and when [`Link::next_timer`] has come. A link with nothing under way has no timer.

mod frame;
mod inbound;
mod outbound;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::frame::{Header, LaneState, to_nanos};
pub(crate) use self::frame::{Malformed, OVERHEAD, session_of};
use self::inbound::{Arrival, Inbound};
use self::outbound::Outbound;

/// Bytes before each message: its length.
const LENGTH: usize = 8;

/// How many bytes a frame has, a window, and a message, at most.
const FRAME: usize = 256 * 1024;
const WINDOW: usize = 8 << 20;
const MESSAGE: u64 = 1 << 36;

/// How long an acknowledgement waits for a frame to go with.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(20);
/// How long to wait for an acknowledgement before asking, at first, and at most.
const ASK_AFTER: Duration = Duration::from_millis(100);
const ASK_AFTER_AT_MOST: Duration = Duration::from_secs(1);

/// Which of the two streams of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Goes first, and is heard first: what was sent in it before something in the other lane.
    Control,
    /// For what may be large. Control may overtake it.
    Data,
}

/// How much at once. Both sides have the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of payload in a frame, which is longer by [`OVERHEAD`].
    pub(crate) frame: usize,
    /// Bytes in a lane that are sent and not acknowledged.
    pub(crate) window: usize,
    /// Bytes of a message. A longer one is refused where it arrives.
    pub(crate) message: u64,
}

/// One side of a session.
#[derive(Debug)]
pub(crate) struct Link {
    session: u32,
    limits: Limits,
    /// Both by [`Lane::index`].
    outbound: [Outbound; 2],
    inbound: [Inbound; 2],
    /// Our latest clock that a frame has carried.
    clock: u64,
    /// The other side's latest clock that we have heard.
    their_clock: Option<u64>,
    echo: Option<u64>,
    heard: Option<Duration>,
    asked_since: Option<Duration>,
    /// The next frame asks.
    wants_answer: bool,
    /// A frame is due, with payload or without.
    is_frame_due: bool,
    /// Bytes that were taken and not acknowledged, and until when they may wait.
    unacknowledged: usize,
    acknowledge_at: Option<Duration>,
    /// When to ask, and how long to wait after that.
    ask_at: Option<Duration>,
    ask_after: Duration,
}

impl Lane {
    const ALL: [Self; 2] = [Self::Control, Self::Data];

    fn index(self) -> usize {
        self as usize
    }
}

impl Limits {
    /// What a frame and a window need to get anything through.
    const LEAST: usize = 2 * LENGTH;

    /// Those of a link whose frames travel in messages of this size, with a little around them.
    pub(crate) fn of_payload(max_payload: usize) -> Self {
        let room = max_payload.saturating_sub(OVERHEAD + 16);
        Self {
            frame: room.min(FRAME),
            window: WINDOW,
            message: MESSAGE,
        }
    }
}

impl Link {
    pub(crate) fn new(session: u32, limits: Limits) -> Self {
        let frame = limits.frame.max(Limits::LEAST);
        Self {
            session,
            limits: Limits {
                frame,
                window: limits.window.max(frame),
                ..limits
            },
            outbound: Default::default(),
            inbound: Default::default(),
            clock: 0,
            their_clock: None,
            echo: None,
            heard: None,
            asked_since: None,
            wants_answer: false,
            is_frame_due: false,
            unacknowledged: 0,
            acknowledge_at: None,
            ask_at: None,
            ask_after: ASK_AFTER,
        }
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, lane: Lane, message: Vec<u8>) {
        self.outbound[lane.index()].push(message);
    }

    /// How many bytes are queued or not acknowledged: who sends much holds back.
    pub(crate) fn backlog(&self) -> usize {
        let bytes: u64 = self.outbound.iter().map(Outbound::backlog).sum();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The next frame asks for an answer. If there is nothing to send, it has no payload.
    pub(crate) fn ask(&mut self) {
        self.wants_answer = true;
    }

    /// A frame that is to be sent now.
    pub(crate) fn poll_frame(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.ask_at.is_some_and(|at| at <= now) {
            self.wants_answer = true;
            self.ask_after = (self.ask_after * 2).min(ASK_AFTER_AT_MOST);
            self.ask_at = Some(now + self.ask_after);
        }
        let Limits { frame, window, .. } = self.limits;
        // What waits in one lane also holds up those behind it: nothing overtakes control.
        let waits = |lane: &Lane| self.outbound[lane.index()].waits();
        let payload = Lane::ALL.into_iter().find(waits).and_then(|lane| {
            let sendable = self.outbound[lane.index()].sendable(frame, window);
            (sendable > 0).then_some((lane, sendable))
        });
        let is_late = self.acknowledge_at.is_some_and(|at| at <= now);
        if payload.is_none() && !self.wants_answer && !self.is_frame_due && !is_late {
            return None;
        }
        let (lane, sendable) = payload.unwrap_or((Lane::Control, 0));
        // With room for a byte of who carries it.
        let mut bytes = Vec::with_capacity(OVERHEAD + sendable + 1);
        self.header(lane, now).encode(&mut bytes);
        if sendable > 0 {
            self.outbound[lane.index()].fill(&mut bytes, sendable);
            self.ask_at.get_or_insert(now + self.ask_after);
        }
        if self.wants_answer {
            self.asked_since.get_or_insert(now);
        }
        self.wants_answer = false;
        self.is_frame_due = false;
        self.unacknowledged = 0;
        self.acknowledge_at = None;
        Some(bytes)
    }

    fn header(&mut self, lane: Lane, now: Duration) -> Header {
        self.clock = self.clock.max(to_nanos(now));
        Header {
            session: self.session,
            lane,
            asks: self.wants_answer,
            lanes: Lane::ALL.map(|lane| {
                let (outbound, inbound) =
                    (&self.outbound[lane.index()], &self.inbound[lane.index()]);
                LaneState {
                    at: outbound.next(),
                    round: outbound.round(),
                    taken: inbound.taken(),
                    missed: inbound.missed(),
                }
            }),
            clock: self.clock,
            echo: self.their_clock,
        }
    }

    /// Takes a frame. The caller takes the messages that are there then: nothing else bounds them.
    ///
    /// # Errors
    /// The other side does not keep to the form. The session is to be given up.
    pub(crate) fn receive(&mut self, frame: &[u8], now: Duration) -> Result<(), Malformed> {
        let (header, payload) = Header::decode(frame)?;
        self.check(&header, payload)?;
        self.heard = Some(now);
        self.asked_since = None;
        self.their_clock = self.their_clock.max(Some(header.clock));
        self.echo = self.echo.max(header.echo);
        self.is_frame_due |= header.asks;
        self.hear_acknowledgements(&header, now)?;
        for lane in Lane::ALL {
            let payload = if lane == header.lane { payload } else { &[] };
            let state = &header.lanes[lane.index()];
            let limit = self.limits.message;
            let is_early = lane == Lane::Data && self.inbound[Lane::Control.index()].has_gap();
            let inbound = &mut self.inbound[lane.index()];
            let arrival = if is_early {
                inbound.refuse(state, payload)
            } else {
                inbound.receive(state, payload, limit)?
            };
            match arrival {
                Arrival::Gap => self.is_frame_due = true,
                Arrival::Taken(bytes) => self.unacknowledged += bytes,
            }
        }
        // Also when nothing of it is new: the other side does not know yet that we have it.
        if !payload.is_empty() {
            self.acknowledge_at.get_or_insert(now + ACKNOWLEDGE_AFTER);
        }
        self.is_frame_due |= self.unacknowledged >= self.limits.window / 4;
        Ok(())
    }

    /// Is that what the other side can say? Nothing has changed if not.
    fn check(&self, header: &Header, payload: &[u8]) -> Result<(), Malformed> {
        if header.session != self.session {
            return Err(Malformed::Session);
        }
        if header.echo.is_some_and(|echo| echo > self.clock) {
            return Err(Malformed::Echo);
        }
        for (outbound, state) in self.outbound.iter().zip(&header.lanes) {
            outbound.check(state.taken)?;
            let end = state.at.checked_add(payload.len() as u64);
            end.ok_or(Malformed::Position)?;
        }
        Ok(())
    }

    fn hear_acknowledgements(&mut self, header: &Header, now: Duration) -> Result<(), Malformed> {
        let mut is_progress = false;
        for (outbound, state) in self.outbound.iter_mut().zip(&header.lanes) {
            is_progress |= outbound.acknowledge(state.taken)?;
            if let Some(round) = state.missed {
                outbound.miss(round);
            }
        }
        if is_progress {
            self.ask_after = ASK_AFTER;
            let is_under_way = self.outbound.iter().any(Outbound::is_under_way);
            self.ask_at = is_under_way.then_some(now + ASK_AFTER);
        }
        Ok(())
    }

    /// A message that has arrived: in the order of its lane; those of control first.
    pub(crate) fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.inbound.iter_mut().find_map(Inbound::poll_message)
    }

    /// What was under way may be lost: all that is not acknowledged goes again.
    pub(crate) fn reconnected(&mut self) {
        for outbound in &mut self.outbound {
            outbound.go_back();
        }
        self.ask_after = ASK_AFTER;
        self.ask_at = None; // It is set when something goes again.
    }

    /// When the last frame has come.
    pub(crate) fn heard(&self) -> Option<Duration> {
        self.heard
    }

    /// The latest of our clocks that the other side says to have heard.
    pub(crate) fn echo(&self) -> Option<Duration> {
        self.echo.map(Duration::from_nanos)
    }

    /// Since when the other side has been silent although it was asked: the first time that a
    /// frame has asked after the last one was heard.
    pub(crate) fn asked_since(&self) -> Option<Duration> {
        self.asked_since
    }

    /// What was asked does not count: this side was not there to hear the answer.
    pub(crate) fn forget_asking(&mut self) {
        self.asked_since = None;
    }

    /// Something is missing of what the other side says to have sent.
    pub(crate) fn has_gap(&self) -> bool {
        self.inbound.iter().any(Inbound::has_gap)
    }

    /// When [`poll_frame`](Self::poll_frame) may have one next, if nothing else happens.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        [self.acknowledge_at, self.ask_at]
            .into_iter()
            .flatten()
            .min()
    }
}
