//! A piece that an agent has.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use procpool_core::{Cancel, ContentId, EncodedChunk, Outcome, OutcomeBatch, TaskError};
use tokio::sync::mpsc::UnboundedSender;

use super::host::Running;
use crate::message::{ClientId, Line, PieceId, ToClient};

/// What local pools say to the agent's thread.
pub(crate) enum Report {
    Outcomes {
        client: ClientId,
        session: u32,
        piece: PieceId,
        batch: OutcomeBatch,
    },
    /// An item may have emitted a value.
    Value { client: ClientId, piece: PieceId },
    /// The answer to a client's question.
    Answer(ClientId, Box<ToClient>),
    /// A worker for this client has printed it.
    Line(ClientId, Line),
    /// The local pools have ended in good order, or have taken too long.
    Finished,
}

/// See the module.
pub(super) struct Work {
    /// It may run: the client knows.
    is_allowed: bool,
    bytes: Option<Bytes>,
    /// What waits for values that handles in it mean.
    chunk: Option<EncodedChunk>,
    needs: HashSet<ContentId>,
    lacks_values: bool,
    running: Option<Running>,
    items: Range<usize>,
    left: usize,
    outcomes: VecDeque<OutcomeBatch>,
    /// How many values may be sent. `None`: it emits none.
    room: Option<u32>,
    has_all_values: bool,
    /// What the client has sent itself.
    sent: Vec<ContentId>,
}

struct ValueWaker {
    client: ClientId,
    piece: PieceId,
    reports: UnboundedSender<Report>,
}

impl Wake for ValueWaker {
    fn wake(self: Arc<Self>) {
        // Without an agent there is nobody to tell.
        let _ = self.reports.send(Report::Value {
            client: self.client,
            piece: self.piece,
        });
    }
}

impl Work {
    pub(super) fn waiting(bytes: Option<Bytes>) -> Self {
        Self {
            is_allowed: false,
            bytes,
            chunk: None,
            needs: HashSet::new(),
            lacks_values: false,
            running: None,
            items: 0..0,
            left: 0,
            outcomes: VecDeque::new(),
            room: None,
            has_all_values: false,
            sent: Vec::new(),
        }
    }

    pub(super) fn allow(&mut self) {
        self.is_allowed = true;
    }

    pub(super) fn may_run(&self) -> bool {
        self.is_allowed
    }

    pub(super) fn set_chunk(&mut self, bytes: Bytes) {
        self.bytes = Some(bytes);
    }

    /// What is to run. `None`: it is not here.
    pub(super) fn take_chunk(&mut self) -> Option<Result<EncodedChunk, TaskError>> {
        if let Some(chunk) = self.chunk.take() {
            return Some(Ok(chunk));
        }
        self.bytes
            .take()
            .map(|bytes| EncodedChunk::from_bytes(&bytes))
    }

    pub(super) fn wait_for(&mut self, chunk: EncodedChunk, needs: HashSet<ContentId>) {
        self.chunk = Some(chunk);
        self.needs = needs;
    }

    /// Whether it waits for this value.
    pub(super) fn needs(&self, id: ContentId) -> bool {
        self.needs.contains(&id)
    }

    /// A value has come, or does not come. Says whether that was the last one that it waited for.
    pub(super) fn has_come(&mut self, id: ContentId, is_there: bool) -> bool {
        let is_needed = self.needs.remove(&id);
        self.lacks_values |= is_needed && !is_there;
        is_needed && self.needs.is_empty()
    }

    /// Whether some of what it needs does not come.
    pub(super) fn lacks_values(&self) -> bool {
        self.lacks_values
    }

    pub(super) fn run(
        &mut self,
        running: Running,
        items: Range<usize>,
        emits: Option<u32>,
        sent: Vec<ContentId>,
    ) {
        self.left = items.len();
        self.items = items;
        self.running = Some(running);
        self.room = emits;
        self.has_all_values = emits.is_none();
        self.sent = sent;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn cancel(&self, how: Cancel) {
        if let Some(running) = &self.running {
            running.cancel(how);
        }
    }

    pub(super) fn add_room(&mut self, values: u32) {
        if let Some(room) = &mut self.room {
            *room = room.saturating_add(values);
        }
    }

    /// The next value that its item has emitted, if there is room for it.
    pub(super) fn next_value(
        &mut self,
        reports: &UnboundedSender<Report>,
        client: ClientId,
        piece: PieceId,
    ) -> Option<Outcome> {
        let running = self.running.as_ref()?;
        let room = self.room.as_mut()?;
        if *room == 0 || self.has_all_values {
            return None;
        }
        let waker = Waker::from(Arc::new(ValueWaker {
            client,
            piece,
            reports: reports.clone(),
        }));
        match running.poll_value(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(value)) => {
                *room -= 1;
                Some(value)
            }
            Poll::Ready(None) => {
                self.has_all_values = true;
                None
            }
            Poll::Pending => None,
        }
    }

    pub(super) fn has_sent(&self, id: ContentId) -> bool {
        self.sent.contains(&id)
    }

    pub(super) fn add_outcomes(&mut self, batch: OutcomeBatch) {
        self.outcomes.push_back(batch);
    }

    /// The next outcomes; none before all values are sent.
    pub(super) fn next_outcomes(&mut self) -> Option<OutcomeBatch> {
        if !self.has_all_values {
            return None;
        }
        let batch = self.outcomes.pop_front()?;
        self.left -= batch.indices().len().min(self.left);
        Some(batch)
    }

    /// Whether everything is sent.
    pub(super) fn is_through(&self) -> bool {
        self.running.is_some() && self.left == 0 && self.outcomes.is_empty()
    }
}
