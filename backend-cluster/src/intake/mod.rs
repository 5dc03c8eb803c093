//! What an agent decides: which deliveries it begins, asks for, or drops, and whose work it ends.
//! See `README.md` for why nothing begins twice.
//!
//! It is pure: it is told what has happened, and says what is to be done by
//! [`poll_action`](Intake::poll_action).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::message::{ClientId, Delivery, DeliveryId, PieceId};

/// How long an agent goes on without having heard of the client.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// Deliveries that take less than this are taken ahead: one for each worker, so that it has the
/// next one when it has done one.
const QUICK: Duration = Duration::from_millis(100);

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the client whether this may begin.
    Ask {
        client: ClientId,
        delivery: DeliveryId,
        time: u64,
    },
    /// Say to the client that this has begun.
    SayBegun {
        client: ClientId,
        delivery: DeliveryId,
    },
    /// Say to the queue that it need not give this out again.
    Acknowledge {
        client: ClientId,
        delivery: DeliveryId,
    },
    /// Ask the client to [answer](Intake::synced) this number, in this session.
    Sync { client: ClientId, connection: u64 },
    /// Send a note to oneself, behind everything said so far.
    Note(u64),
    /// Run this.
    Run { client: ClientId, piece: PieceId },
    /// Say to the client that this has not begun, and does not begin here.
    Return {
        client: ClientId,
        delivery: DeliveryId,
    },
    /// What was kept of this is not needed: it is not run.
    Discard { client: ClientId, piece: PieceId },
    /// Say to the client that this epoch is kept.
    Kept { client: ClientId, epoch: u64 },
    /// Kill this, and say nothing of it.
    Kill { client: ClientId, piece: PieceId },
    /// The session with this client has ended: whatever it was about is dropped and killed.
    End { client: ClientId },
}

/// A delivery that the queue has given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) client: ClientId,
    pub(crate) delivery: DeliveryId,
    pub(crate) epoch: u64,
    pub(crate) pieces: Vec<PieceId>,
    /// One of the pieces must not run twice.
    pub(crate) has_last_attempt: bool,
    /// The queue gives it out for the nth time.
    pub(crate) time: u64,
}

impl Arrival {
    pub(crate) fn new(client: ClientId, delivery: &Delivery, time: u64) -> Self {
        Self {
            client,
            delivery: delivery.id,
            epoch: delivery.epoch,
            pieces: delivery.pieces.iter().map(|it| it.id).collect(),
            has_last_attempt: delivery.pieces.iter().any(|it| it.is_last_attempt),
            time,
        }
    }
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client is no more.
    Dead,
    /// The client has given this agent up.
    Refused,
    /// Nothing is heard of the client.
    Expired,
}

/// A delivery that takes a slot.
#[derive(Debug)]
struct Held {
    state: State,
    pieces: Vec<PieceId>,
    /// Those that have not ended.
    left: HashSet<PieceId>,
    /// When it came to its slot.
    since: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The client was asked, then.
    Asking {
        since: Duration,
        time: u64,
    },
    /// The client was told that it has begun, and this note says when the server has that.
    Noting(u64),
    Running,
}

/// A session with a client.
#[derive(Debug, Default)]
struct Client {
    epoch: u64,
    /// Until when the client has not given this agent up.
    lease: Duration,
    /// The client was heard of in this connection, so that the epoch is its own: a server that has
    /// restarted may give out again what was begun.
    is_synced: bool,
    held: BTreeSet<DeliveryId>,
    /// Whether each delivery is not begun here, for good, that has come without the queue, or was
    /// asked for: until the client says that there is no older one than this.
    declined: BTreeMap<DeliveryId, bool>,
    oldest: DeliveryId,
}

/// The agent's part of the protocol.
#[derive(Debug)]
pub(crate) struct Intake {
    slots: usize,
    is_leaving: bool,
    clients: BTreeMap<ClientId, Client>,
    held: BTreeMap<(ClientId, DeliveryId), Held>,
    /// What was taken ahead, and waits for a slot. It has not begun.
    ahead: VecDeque<(Arrival, Duration)>,
    /// About how long a delivery takes its slot.
    takes: Option<Duration>,
    /// The delivery of each piece that has not ended.
    pieces: HashMap<(ClientId, PieceId), DeliveryId>,
    last_note: u64,
    /// How often there was a connection to the server before this one.
    connection: u64,
    actions: VecDeque<Action>,
}

impl Intake {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots,
            is_leaving: false,
            clients: BTreeMap::new(),
            held: BTreeMap::new(),
            ahead: VecDeque::new(),
            takes: None,
            pieces: HashMap::new(),
            last_note: 0,
            connection: 0,
            actions: VecDeque::new(),
        }
    }

    /// What is to be done next. Ask until there is nothing.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// How many deliveries it can take.
    pub(crate) fn free(&self) -> usize {
        if self.is_leaving {
            return 0;
        }
        let ahead = usize::from(self.is_quick()) * self.slots;
        (self.slots + ahead).saturating_sub(self.held.len() + self.ahead.len())
    }

    /// Whether a delivery takes its slot for a moment.
    fn is_quick(&self) -> bool {
        self.takes.is_some_and(|it| it < QUICK)
    }

    /// It takes no more, and gives back what it has taken ahead.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
        self.give_back(|_| true);
    }

    /// Gives back what it has taken ahead at such times: others may have nothing to do.
    fn give_back(&mut self, is_so: impl Fn(Duration) -> bool) {
        let ahead = std::mem::take(&mut self.ahead);
        for (arrival, at) in ahead {
            let (client, delivery) = (arrival.client, arrival.delivery);
            if is_so(at) {
                self.actions.push_back(Action::Return { client, delivery });
                self.actions
                    .push_back(Action::Acknowledge { client, delivery });
            } else {
                self.ahead.push_back((arrival, at));
            }
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.ahead.is_empty()
    }

    /// Whether this piece has not ended.
    pub(crate) fn has(&self, client: ClientId, piece: PieceId) -> bool {
        let mut ahead = self.ahead.iter();
        self.pieces.contains_key(&(client, piece))
            || ahead.any(|(it, _)| it.client == client && it.pieces.contains(&piece))
    }

    /// Whether this delivery takes a slot, or waits for one.
    pub(crate) fn holds(&self, client: ClientId, delivery: DeliveryId) -> bool {
        let mut ahead = self.ahead.iter();
        self.held.contains_key(&(client, delivery))
            || ahead.any(|(it, _)| it.client == client && it.delivery == delivery)
    }

    /// Whether something of this client's is under way.
    pub(crate) fn works_for(&self, client: ClientId) -> bool {
        (self.clients.get(&client)).is_some_and(|it| !it.held.is_empty())
    }

    /// The queue has given out a delivery.
    pub(crate) fn arrived(&mut self, arrival: Arrival, now: Duration) {
        let (client, delivery) = (arrival.client, arrival.delivery);
        if self.holds(client, delivery) {
            if self.held.contains_key(&(client, delivery)) {
                // The queue has given out again what is under way here.
                self.actions
                    .push_back(Action::Acknowledge { client, delivery });
            }
            return;
        }
        if self.is_leaving && arrival.time == 1 {
            // It was asked for before. Who has no session is not told, and finds it given out
            // again.
            if self.clients.contains_key(&client) {
                self.actions.push_back(Action::Return { client, delivery });
                self.actions
                    .push_back(Action::Acknowledge { client, delivery });
            }
            return;
        }
        if arrival.time > 1 {
            // Somebody else may have begun it: the client is to know at once.
            return self.admit(arrival, false, now);
        }
        self.ahead.push_back((arrival, now));
        self.promote(now);
        // What has come without the queue has taken the slot that this was asked for.
        if !self.is_quick() {
            self.give_back(|at| at == now);
        }
    }

    /// A delivery has come without the queue, in the client's session with this agent: see
    /// `dispatcher/direct.rs`. No older one than the `oldest` is open. Says whether it is taken:
    /// that is for good.
    pub(crate) fn arrived_directly(
        &mut self,
        arrival: Arrival,
        oldest: DeliveryId,
        now: Duration,
    ) -> bool {
        let (client, delivery) = (arrival.client, arrival.delivery);
        let is_taken = !self.is_leaving && self.held.len() < self.slots;
        let session = self.clients.entry(client).or_default();
        session.oldest = session.oldest.max(oldest);
        session.declined = session.declined.split_off(&session.oldest);
        if delivery < session.oldest || session.declined.contains_key(&delivery) {
            // It is late, and was given up.
            return false;
        }
        session.declined.insert(delivery, !is_taken);
        if is_taken {
            self.admit(arrival, true, now);
        } else {
            self.actions.push_back(Action::Return { client, delivery });
        }
        is_taken
    }

    /// The client has sent this a moment ago, without the queue. What has not come by now is not
    /// begun any more.
    pub(crate) fn was_sent(&mut self, client: ClientId, delivery: DeliveryId) {
        let session = self.clients.entry(client).or_default();
        if *session.declined.entry(delivery).or_insert(true) {
            self.actions.push_back(Action::Return { client, delivery });
        }
    }

    /// Gives free slots to what waits for them.
    fn promote(&mut self, now: Duration) {
        while self.held.len() < self.slots
            && let Some((arrival, _)) = self.ahead.pop_front()
        {
            self.admit(arrival, false, now);
        }
    }

    /// A delivery has a slot.
    fn admit(&mut self, arrival: Arrival, is_direct: bool, now: Duration) {
        let Arrival {
            client,
            delivery,
            epoch,
            pieces,
            has_last_attempt,
            time,
        } = arrival;
        let session = self.clients.entry(client).or_default();
        session.held.insert(delivery);
        for piece in &pieces {
            self.pieces.insert((client, *piece), delivery);
        }
        let has_lease = now < session.lease;
        let may_begin = time == 1 && epoch == session.epoch && session.is_synced && has_lease;
        let held = Held {
            state: State::Asking { since: now, time },
            left: pieces.iter().copied().collect(),
            pieces,
            since: now,
        };
        self.held.insert((client, delivery), held);
        if is_direct && has_lease {
            // The client knows.
            self.run(client, delivery);
        } else if may_begin && !is_direct {
            self.actions
                .push_back(Action::SayBegun { client, delivery });
            self.actions
                .push_back(Action::Acknowledge { client, delivery });
            if has_last_attempt {
                self.last_note += 1;
                self.set_state(client, delivery, State::Noting(self.last_note));
                self.actions.push_back(Action::Note(self.last_note));
            } else {
                self.run(client, delivery);
            }
        } else {
            self.actions.push_back(Action::Ask {
                client,
                delivery,
                time,
            });
        }
    }

    /// The client has answered a question.
    pub(crate) fn verdict(
        &mut self,
        client: ClientId,
        delivery: DeliveryId,
        is_granted: bool,
        now: Duration,
    ) {
        let Some(held) = self.held.get(&(client, delivery)) else {
            return;
        };
        match (held.state, is_granted) {
            (State::Asking { .. }, true) => {
                self.actions
                    .push_back(Action::Acknowledge { client, delivery });
                self.run(client, delivery);
            }
            (State::Asking { .. }, false) => {
                self.actions
                    .push_back(Action::Acknowledge { client, delivery });
                self.drop_delivery(client, delivery, now);
            }
            // What it has said to have begun, the client does not want.
            (State::Noting(_) | State::Running, false) => self.drop_delivery(client, delivery, now),
            (State::Noting(_) | State::Running, true) => {}
        }
    }

    /// A note has come back: the server has what was said before it.
    pub(crate) fn noted(&mut self, note: u64, now: Duration) {
        let ready: Vec<(ClientId, DeliveryId)> = self
            .held
            .iter()
            .filter(|(_, it)| matches!(it.state, State::Noting(at) if at <= note))
            .map(|(key, _)| *key)
            .collect();
        for (client, delivery) in ready {
            // Otherwise it ends with the lease.
            if self.clients.get(&client).is_some_and(|it| now < it.lease) {
                self.run(client, delivery);
            }
        }
    }

    /// The number of the connection to the server, to be answered by a client that welcomes this
    /// agent.
    pub(crate) fn connection(&self) -> u64 {
        self.connection
    }

    /// There was another connection to the server, perhaps to one that knows less. To be said
    /// before anything is that came in this one.
    pub(crate) fn reconnected(&mut self) {
        self.connection += 1;
        let connection = self.connection;
        for (client, session) in &mut self.clients {
            session.is_synced = false;
            let client = *client;
            self.actions.push_back(Action::Sync { client, connection });
        }
        // What was sent may not have arrived.
        let waits = self
            .held
            .values()
            .any(|it| matches!(it.state, State::Noting(_)));
        if waits {
            self.actions.push_back(Action::Note(self.last_note));
        }
    }

    /// The client does not give this agent up before then.
    pub(crate) fn lease(&mut self, client: ClientId, until: Duration) {
        let session = self.clients.entry(client).or_default();
        session.lease = session.lease.max(until);
    }

    /// The client has raised its epoch.
    pub(crate) fn epoch(&mut self, client: ClientId, epoch: u64) {
        let session = self.clients.entry(client).or_default();
        session.epoch = session.epoch.max(epoch);
        let epoch = session.epoch;
        self.actions.push_back(Action::Kept { client, epoch });
    }

    /// The client welcomes this agent in a session, or answers what it was asked for in this
    /// connection.
    pub(crate) fn synced(&mut self, client: ClientId, epoch: u64, connection: u64) {
        let session = self.clients.entry(client).or_default();
        session.epoch = session.epoch.max(epoch);
        session.is_synced |= connection == self.connection;
    }

    /// The piece has all its outcomes, or was recalled and killed.
    pub(crate) fn ended(&mut self, client: ClientId, piece: PieceId, now: Duration) {
        let Some(delivery) = self.pieces.remove(&(client, piece)) else {
            return;
        };
        let Some(held) = self.held.get_mut(&(client, delivery)) else {
            return;
        };
        held.left.remove(&piece);
        if held.left.is_empty() {
            let took = now.saturating_sub(held.since);
            // One that takes long counts at once.
            let before = self.takes.unwrap_or(took);
            self.takes = Some(took.max(before - before / 8 + took / 8));
            self.held.remove(&(client, delivery));
            if let Some(session) = self.clients.get_mut(&client) {
                session.held.remove(&delivery);
            }
            self.promote(now);
        }
    }

    /// The client takes no outcomes of this piece.
    pub(crate) fn recall(&mut self, client: ClientId, piece: PieceId, now: Duration) {
        let Some(delivery) = self.pieces.get(&(client, piece)) else {
            return;
        };
        let state = self.held.get(&(client, *delivery)).map(|it| it.state);
        self.actions.push_back(match state {
            Some(State::Running) => Action::Kill { client, piece },
            _ => Action::Discard { client, piece },
        });
        self.ended(client, piece, now);
    }

    /// When a session ends next, if nothing is heard of its client: see [`expire`](Self::expire).
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        let held = self.held.iter();
        let sessions = held.map(|((client, _), it)| self.expiry(*client, it));
        let ahead = self.ahead.iter().map(|(_, at)| *at + QUICK);
        sessions.chain(ahead).min()
    }

    /// Ends the sessions that have work under way and no lease, and those whose clients do not
    /// answer a question. The clients learn it from a new session. What was taken ahead and has
    /// waited for longer than it was thought to is given back.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.give_back(|at| at + QUICK <= now);
        let over: BTreeSet<ClientId> = self
            .held
            .iter()
            .filter(|((client, _), it)| self.expiry(*client, it) <= now)
            .map(|((client, _), _)| *client)
            .collect();
        for client in over {
            self.end(client, End::Expired, now);
        }
    }

    fn expiry(&self, client: ClientId, held: &Held) -> Duration {
        match held.state {
            State::Asking { since, .. } => since + LEASE,
            State::Noting(_) | State::Running => {
                let session = self.clients.get(&client);
                session.map(|it| it.lease).unwrap_or_default()
            }
        }
    }

    /// The session with this client is over.
    pub(crate) fn end(&mut self, client: ClientId, end: End, now: Duration) {
        let session = self.clients.remove(&client).unwrap_or_default();
        self.actions.push_back(Action::End { client });
        for delivery in session.held {
            let Some(held) = self.held.get(&(client, delivery)) else {
                continue;
            };
            if let State::Asking { time, .. } = held.state {
                match end {
                    End::Dead => self
                        .actions
                        .push_back(Action::Acknowledge { client, delivery }),
                    // It was asked in a session that the client knows nothing of.
                    End::Refused => {
                        let session = self.clients.entry(client).or_default();
                        session.held.insert(delivery);
                        self.actions.push_back(Action::Ask {
                            client,
                            delivery,
                            time,
                        });
                        continue;
                    }
                    // The queue gives it out again.
                    End::Expired => {}
                }
            }
            let held = self.held.remove(&(client, delivery));
            for piece in held.into_iter().flat_map(|it| it.pieces) {
                self.pieces.remove(&(client, piece));
            }
        }
        if end == End::Dead {
            self.ahead.retain(|(it, _)| {
                let is_dead = it.client == client;
                if is_dead {
                    let delivery = it.delivery;
                    self.actions
                        .push_back(Action::Acknowledge { client, delivery });
                }
                !is_dead
            });
        }
        self.promote(now);
    }

    fn set_state(&mut self, client: ClientId, delivery: DeliveryId, state: State) {
        if let Some(held) = self.held.get_mut(&(client, delivery)) {
            held.state = state;
        }
    }

    fn run(&mut self, client: ClientId, delivery: DeliveryId) {
        let Some(held) = self.held.get_mut(&(client, delivery)) else {
            return;
        };
        held.state = State::Running;
        for piece in held.pieces.iter().filter(|it| held.left.contains(it)) {
            let piece = *piece;
            self.actions.push_back(Action::Run { client, piece });
        }
    }

    fn drop_delivery(&mut self, client: ClientId, delivery: DeliveryId, now: Duration) {
        let Some(held) = self.held.get(&(client, delivery)) else {
            return;
        };
        for piece in held.pieces.clone() {
            self.recall(client, piece, now);
        }
    }
}
