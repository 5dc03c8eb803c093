//! What the client decides: which pieces are where, and what becomes of those that are lost. See
//! `README.md` for why nothing begins twice.
//!
//! It is pure: it is told what has happened, and says what is to be done by
//! [`poll_action`](Dispatcher::poll_action).

mod batches;
mod direct;
mod durations;
mod losing;
mod pending;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;

use self::direct::Direct;
use self::durations::Durations;
use self::pending::Pending;
use crate::message::{AgentId, DeliveryId, PieceId};

/// The number of a chunk that was submitted, which is what pieces are of.
pub(crate) type JobId = u64;

/// What is to be known of a piece to dispatch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// What its function is called: pieces of one take about as long.
    pub(crate) function: u64,
    /// What is higher goes first.
    pub(crate) priority: i32,
    /// How often an item is tried again.
    pub(crate) retries: u32,
    /// How long the encoded chunk is.
    pub(crate) bytes: usize,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Publish these pieces to the queue, under this name. The next publish of them has another.
    Publish {
        delivery: DeliveryId,
        epoch: u64,
        pieces: Vec<PieceId>,
    },
    /// Send this piece to the agent itself, under this name. Of those that were sent to it before,
    /// none is open that is older than the `oldest`.
    Send {
        agent: AgentId,
        delivery: DeliveryId,
        oldest: DeliveryId,
        epoch: u64,
        piece: PieceId,
    },
    /// Tell the agent of the epoch.
    TellEpoch { agent: AgentId, epoch: u64 },
    /// The agent is to end this piece, whose outcomes nobody takes any more.
    Recall { agent: AgentId, piece: PieceId },
    /// The agent is to end this piece, and to say what has become of it.
    Cancel {
        agent: AgentId,
        piece: PieceId,
        kill: bool,
    },
}

/// These items have no outcome, and get none from an agent: the last one was lost with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The agent that has begun them, or may have.
    pub(crate) agent: AgentId,
    pub(crate) job: JobId,
    pub(crate) items: Range<usize>,
    /// How many attempts there were.
    pub(crate) attempts: u32,
}

/// What becomes of an outcome that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the item's, after so many lost attempts.
    Deliver { job: JobId, losses: u32 },
    /// The item is tried again.
    Retry,
    /// Nobody waits for it: the piece was given to another agent, or has its outcome.
    Drop,
}

/// Some items of a job on their way through one attempt.
#[derive(Debug)]
struct Piece {
    job: JobId,
    items: Range<usize>,
    /// How many attempts were lost before this one.
    attempt: u32,
    terms: Terms,
    state: PieceState,
    pending: Pending,
    /// It has emitted a value, so that it is not tried again.
    has_emitted: bool,
    /// An agent has given it back, to which it was sent without the queue.
    is_for_queue: bool,
    /// Nobody wants it, unless an agent has begun it.
    is_withdrawn: bool,
}

impl Piece {
    /// It may run twice: what is lost of it is tried again.
    fn is_tried_again(&self) -> bool {
        self.attempt < self.terms.retries && !self.has_emitted
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PieceState {
    /// It waits here, at this place.
    Ready(Place),
    /// It is in this delivery.
    Sent(DeliveryId),
}

/// Where a piece stands in the line: by priority, then by age.
type Place = (Reverse<i32>, PieceId);

#[derive(Debug)]
struct Sent {
    epoch: u64,
    /// All of them may run twice, or none.
    pieces: Vec<PieceId>,
    may_run_twice: bool,
    /// How many of them are not through.
    left: usize,
    /// The agent that has begun it, or was sent it. `None`: it is queued.
    agent: Option<AgentId>,
}

#[derive(Debug)]
struct Agent {
    slots: usize,
    /// The epoch that it keeps.
    kept: u64,
    /// It takes no more.
    is_leaving: bool,
    /// What it has begun.
    begun: BTreeSet<DeliveryId>,
    /// What of it did not come by the queue.
    direct: Direct,
    /// Nobody answers, so that what may be tried again was given to others.
    is_unreachable: bool,
}

/// The client's part of the protocol.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    epoch: u64,
    /// Of deliveries up to this epoch, an agent that was given up may have begun some without the
    /// client's knowledge.
    doubt: u64,
    /// The last one of those agents.
    doubted: Option<AgentId>,
    /// The epoch in which this connection began.
    connected_in: u64,
    next_delivery: DeliveryId,
    next_piece: PieceId,
    pieces: HashMap<PieceId, Piece>,
    ready: BTreeMap<Place, PieceId>,
    sent: HashMap<DeliveryId, Sent>,
    /// How many of them are queued.
    queued: usize,
    agents: BTreeMap<AgentId, Agent>,
    /// The pieces of each job, some of which may be gone.
    jobs: HashMap<JobId, Vec<PieceId>>,
    durations: Durations,
    actions: VecDeque<Action>,
    losses: VecDeque<Loss>,
    is_connected: bool,
}

impl Dispatcher {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            doubt: 0,
            doubted: None,
            connected_in: 1,
            next_delivery: 1,
            next_piece: 1,
            pieces: HashMap::new(),
            ready: BTreeMap::new(),
            sent: HashMap::new(),
            queued: 0,
            agents: BTreeMap::new(),
            jobs: HashMap::new(),
            durations: Durations::default(),
            actions: VecDeque::new(),
            losses: VecDeque::new(),
            is_connected: true,
        }
    }

    /// What is to be done next; to be asked until there is nothing. Nothing is published unless it
    /// `may_publish`.
    pub(crate) fn poll_action(&mut self, may_publish: bool) -> Option<Action> {
        if self.actions.is_empty() && may_publish {
            self.send_some();
        }
        self.actions.pop_front()
    }

    /// What is lost; to be asked until there is nothing.
    pub(crate) fn poll_loss(&mut self) -> Option<Loss> {
        self.losses.pop_front()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many items can run at the same time.
    pub(crate) fn slots(&self) -> usize {
        let agents = self.agents.values();
        let taking = agents.filter(|it| !it.is_leaving && !it.is_unreachable);
        taking.map(|it| it.slots).sum()
    }

    /// Whether there is anything that has no outcome.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many items no agent has begun.
    pub(crate) fn waiting(&self) -> u64 {
        let waiting = (self.pieces.iter()).filter(|(id, _)| self.agent_of(**id).is_none());
        waiting.map(|(_, piece)| piece.pending.left() as u64).sum()
    }

    /// Whether the agent is to be asked if it lives: it has work, or may have, or may be back and
    /// could have some.
    pub(crate) fn watches(&self, agent: AgentId) -> bool {
        let is_missed = |it: &Agent| it.is_unreachable && !self.ready.is_empty();
        let agent = self.agents.get(&agent);
        self.queued > 0 || agent.is_some_and(|it| !it.begun.is_empty() || is_missed(it))
    }

    /// The job and the attempt of a piece, and its items.
    pub(crate) fn piece(&self, piece: PieceId) -> Option<(JobId, Range<usize>, u32, u32)> {
        let it = self.pieces.get(&piece)?;
        Some((it.job, it.items.clone(), it.attempt, it.terms.retries))
    }

    /// The agent that has begun this piece.
    pub(crate) fn agent_of(&self, piece: PieceId) -> Option<AgentId> {
        match self.pieces.get(&piece)?.state {
            PieceState::Sent(delivery) => self.sent.get(&delivery)?.agent,
            PieceState::Ready(_) => None,
        }
    }

    /// These items of a new job are to run.
    pub(crate) fn submit(&mut self, job: JobId, items: Range<usize>, terms: Terms) {
        self.add(job, items, 0, terms);
    }

    fn add(&mut self, job: JobId, items: Range<usize>, attempt: u32, terms: Terms) {
        let id = self.next_piece;
        self.next_piece += 1;
        let place = (Reverse(terms.priority), id);
        let piece = Piece {
            job,
            pending: Pending::new(items.clone()),
            items,
            attempt,
            terms,
            state: PieceState::Ready(place),
            has_emitted: false,
            is_for_queue: false,
            is_withdrawn: false,
        };
        self.pieces.insert(id, piece);
        self.ready.insert(place, id);
        self.jobs.entry(job).or_default().push(id);
    }

    /// An agent has come, in a new session that keeps the epoch that it is welcomed with.
    pub(crate) fn joined(&mut self, agent: AgentId, slots: usize) {
        let it = Agent {
            slots,
            kept: self.epoch,
            is_leaving: false,
            begun: BTreeSet::new(),
            direct: Direct::default(),
            is_unreachable: false,
        };
        let before = self.agents.insert(agent, it);
        debug_assert!(before.is_none(), "the old session was given up before");
    }

    /// The agent takes no more.
    pub(crate) fn leaving(&mut self, agent: AgentId) {
        if let Some(it) = self.agents.get_mut(&agent) {
            it.is_leaving = true;
        }
    }

    /// The agent keeps this epoch.
    pub(crate) fn kept(&mut self, agent: AgentId, epoch: u64) {
        if let Some(it) = self.agents.get_mut(&agent)
            && epoch <= self.epoch
        {
            it.kept = it.kept.max(epoch);
            self.settle();
        }
    }

    /// The agent asks whether it may begin this, which the queue has given out for the nth time.
    pub(crate) fn asked(&mut self, agent: AgentId, delivery: DeliveryId, time: u64) -> bool {
        let Some(sent) = self.sent.get(&delivery) else {
            return false;
        };
        let is_current = sent.epoch == self.epoch;
        if self.was_sent_to(delivery) == Some(agent) {
            return true;
        }
        let is_taken = sent.agent.is_some() || !self.is_remembered(sent);
        if is_taken || !self.agents.contains_key(&agent) {
            return false;
        }
        if time == 1 {
            return self.begun(agent, delivery);
        }
        // Somebody else has it, or had. Of an older epoch, that is being found out.
        if is_current {
            self.raise();
        }
        false
    }

    /// The agent has begun this. `false`: it is not to, or not any more.
    pub(crate) fn begun(&mut self, agent: AgentId, delivery: DeliveryId) -> bool {
        let Some(it) = self.agents.get_mut(&agent) else {
            return false;
        };
        match self.sent.get_mut(&delivery) {
            Some(sent) if sent.agent.is_none() => {
                sent.agent = Some(agent);
                it.begun.insert(delivery);
                it.direct.declines = false;
                self.queued -= 1;
                true
            }
            Some(sent) => sent.agent == Some(agent),
            None => false,
        }
    }

    /// An outcome of an item has arrived from this agent. `may_retry`: it is of a kind that is
    /// tried again. `took`: how long it ran, in nanoseconds, if that is known.
    pub(crate) fn outcome(
        &mut self,
        agent: AgentId,
        piece: PieceId,
        index: usize,
        may_retry: bool,
        took: u64,
    ) -> Verdict {
        if self.agent_of(piece) != Some(agent) {
            return Verdict::Drop;
        }
        let Some(it) = self.pieces.get_mut(&piece) else {
            return Verdict::Drop;
        };
        if !it.pending.take(index) {
            return Verdict::Drop;
        }
        let (job, attempt) = (it.job, it.attempt);
        if took > 0 && !may_retry {
            self.durations.note(it.terms.function, took);
        }
        let is_through = it.pending.is_empty();
        let again = (may_retry && it.is_tried_again()).then(|| it.terms.clone());
        if is_through {
            self.end(piece);
        }
        match again {
            Some(terms) => {
                self.add(job, index..index + 1, attempt + 1, terms);
                Verdict::Retry
            }
            None => Verdict::Deliver {
                job,
                losses: attempt,
            },
        }
    }

    /// The same of items that follow each other and have values. Says whose they are, and how many
    /// attempts were lost before, if none of them has an outcome; otherwise nothing has changed.
    pub(crate) fn outcomes(
        &mut self,
        agent: AgentId,
        piece: PieceId,
        items: Range<usize>,
        took: u64,
    ) -> Option<(JobId, u32)> {
        if self.agent_of(piece) != Some(agent) {
            return None;
        }
        let it = self.pieces.get_mut(&piece)?;
        if !it.pending.take_range(items) {
            return None;
        }
        let of = (it.job, it.attempt);
        if took > 0 {
            self.durations.note(it.terms.function, took);
        }
        if it.pending.is_empty() {
            self.end(piece);
        }
        Some(of)
    }

    /// An agent cannot run this. Says which items have no outcome.
    pub(crate) fn failed(
        &mut self,
        agent: AgentId,
        piece: PieceId,
    ) -> Option<(JobId, Vec<Range<usize>>)> {
        if self.agent_of(piece) != Some(agent) {
            return None;
        }
        let it = self.pieces.get_mut(&piece)?;
        let failed = (it.job, it.pending.take_all());
        self.end(piece);
        Some(failed)
    }

    /// A value that the item of this piece has emitted has arrived from this agent. `None`: nobody
    /// wants it.
    pub(crate) fn emitted(&mut self, agent: AgentId, piece: PieceId) -> Option<JobId> {
        if self.agent_of(piece) != Some(agent) {
            return None;
        }
        let it = self.pieces.get_mut(&piece)?;
        it.has_emitted = true;
        Some(it.job)
    }

    /// A publish was refused, or whoever has the delivery gives it back: it is with nobody, and its
    /// pieces go back to the front. If the queue may have forgotten it, it may be with somebody
    /// else, too, and waits for all to answer.
    pub(crate) fn refused(&mut self, delivery: DeliveryId) {
        let sent = self.sent.get(&delivery);
        if sent.is_some_and(|it| it.agent.is_none() && self.is_remembered(it)) {
            self.take_back(delivery);
        }
    }

    /// Whether the queue knows if it has given this out. Of what was published before this
    /// connection, it may have forgotten that.
    fn is_remembered(&self, sent: &Sent) -> bool {
        sent.epoch >= self.connected_in
    }

    /// What of the job waits here is forgotten, and so is what is queued; what runs is asked to
    /// end, or killed. Says which items get no outcome from an agent.
    pub(crate) fn cancel(&mut self, job: JobId, kill: bool) -> Vec<Range<usize>> {
        let ended = self.withdraw(job);
        for piece in self.jobs.get(&job).cloned().unwrap_or_default() {
            if let Some(agent) = self.agent_of(piece) {
                self.actions
                    .push_back(Action::Cancel { agent, piece, kill });
            }
        }
        ended
    }

    /// What of the job waits here is forgotten, and so is what is queued, and nothing of it is
    /// tried again. Says which items get no outcome from an agent.
    pub(crate) fn withdraw(&mut self, job: JobId) -> Vec<Range<usize>> {
        let mut ended = Vec::new();
        for piece in self.jobs.get(&job).cloned().unwrap_or_default() {
            let has_begun = self.agent_of(piece).is_some();
            let Some(it) = self.pieces.get_mut(&piece) else {
                continue;
            };
            it.terms.retries = 0;
            it.is_withdrawn = true;
            if !has_begun {
                ended.extend(it.pending.take_all());
                self.end(piece);
            }
        }
        ended
    }

    /// Nobody waits for the job any more. Agents are told.
    pub(crate) fn forget(&mut self, job: JobId) {
        for piece in self.jobs.remove(&job).unwrap_or_default() {
            if !self.pieces.contains_key(&piece) {
                continue;
            }
            if let Some(agent) = self.agent_of(piece) {
                self.actions.push_back(Action::Recall { agent, piece });
            }
            self.end(piece);
        }
    }

    /// The pieces of these deliveries that are not through.
    fn pieces_of(&self, deliveries: &[DeliveryId]) -> Vec<PieceId> {
        let mut all: Vec<PieceId> = deliveries
            .iter()
            .filter_map(|it| self.sent.get(it))
            .flat_map(|it| it.pieces.iter().copied())
            .filter(|it| self.pieces.contains_key(it))
            .collect();
        all.sort_unstable();
        all
    }

    /// The piece is through, or forgotten.
    fn end(&mut self, piece: PieceId) {
        let Some(it) = self.pieces.remove(&piece) else {
            return;
        };
        if let Some(pieces) = self.jobs.get_mut(&it.job) {
            pieces.retain(|it| *it != piece);
            if pieces.is_empty() {
                self.jobs.remove(&it.job);
            }
        }
        match it.state {
            PieceState::Ready(place) => {
                self.ready.remove(&place);
            }
            PieceState::Sent(delivery) => {
                let Some(sent) = self.sent.get_mut(&delivery) else {
                    return;
                };
                sent.left -= 1;
                if sent.left == 0 {
                    self.forget_delivery(delivery);
                }
            }
        }
    }

    fn forget_delivery(&mut self, delivery: DeliveryId) -> Option<Sent> {
        let sent = self.sent.remove(&delivery)?;
        match sent.agent {
            None => self.queued -= 1,
            Some(agent) => {
                if let Some(it) = self.agents.get_mut(&agent) {
                    it.begun.remove(&delivery);
                    it.direct.forget(delivery);
                }
            }
        }
        Some(sent)
    }

    /// A delivery is with nobody: its pieces wait here again, as old as they were.
    fn take_back(&mut self, delivery: DeliveryId) {
        let Some(sent) = self.forget_delivery(delivery) else {
            return;
        };
        for piece in sent.pieces {
            let Some(it) = self.pieces.remove(&piece) else {
                continue;
            };
            if let Some(pieces) = self.jobs.get_mut(&it.job) {
                pieces.retain(|it| *it != piece);
            }
            // A number of its own, so that no answer to the old one is taken for one to this. It
            // goes before those that were submitted later, though.
            let id = self.next_piece;
            self.next_piece += 1;
            let place = (Reverse(it.terms.priority), piece);
            let state = PieceState::Ready(place);
            self.jobs.entry(it.job).or_default().push(id);
            self.ready.insert(place, id);
            self.pieces.insert(id, Piece { state, ..it });
        }
    }
}
