//! Clients' and agents' parts of the protocol, run against a network and a queue that go wrong.
//!
//! Time is in milliseconds. A session is what the link makes of it: messages arrive in order and
//! once, or never again, if one of the two ends is gone. The queue forgets, repeats, and gives out
//! again. Agents stop, go on, die, and lose their connection. Everything follows from a seed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use crate::dispatcher::{self, Dispatcher, Loss, Terms, Verdict};
use crate::intake::{self, Arrival, End, Intake, LEASE};
use crate::message::{DeliveryId, PieceId};

const CLIENT: u64 = 7;
const ACK_WAIT: u64 = 3_000;
const GIVE_UP: u64 = 6_000;

/// xorshift: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

#[derive(Debug, Clone)]
enum Said {
    // By the agent.
    /// The first of a session: how many slots, and in which connection.
    Hello(usize, u64),
    Ask(DeliveryId, u64),
    Begun(DeliveryId),
    Kept(u64),
    Sync(u64),
    Returned(DeliveryId),
    Outcome(PieceId, usize, bool),
    // By the client.
    Epoch(u64),
    Synced(u64, u64),
    Verdict(DeliveryId, bool),
    Sent(DeliveryId),
    Recall(PieceId),
    Cancel(PieceId),
    Gone,
    Ping,
    // By either: nothing but an answer.
    Pong,
}

/// A frame: when it is there, what it says, the sender's clock, and the clock it has heard.
#[derive(Debug, Clone)]
struct Frame {
    session: u64,
    at: u64,
    said: Said,
    clock: u64,
    echo: u64,
}

struct Stored {
    delivery: DeliveryId,
    epoch: u64,
    pieces: Vec<PieceId>,
    last: bool,
    times: u64,
    /// Given out then, and not acknowledged.
    given: Option<u64>,
}

struct Running {
    piece: PieceId,
    items: VecDeque<usize>,
    ends: u64,
}

struct Agent {
    /// The number of its session; another one after each end.
    session: u64,
    intake: Intake,
    stopped_until: u64,
    is_dead: bool,
    /// Nothing gets through until then.
    cut_until: u64,
    heard_clock: u64,
    from_client: VecDeque<Frame>,
    to_client: VecDeque<Frame>,
    /// Deliveries on their way from the queue.
    arriving: VecDeque<(u64, Arrival)>,
    /// Those that come without it: when, for which session, what, and the oldest that is open.
    direct: VecDeque<(u64, u64, Arrival, DeliveryId)>,
    /// When the last one of those that are in order is there.
    direct_until: u64,
    /// When they come back, when they were sent, and which.
    notes: VecDeque<(u64, u64, u64)>,
    /// What was said until then is at the server.
    noted: u64,
    running: Vec<Running>,
    /// What workers have done and the agent does not know: the piece, the item, whether its worker
    /// has died, and whether the piece is through.
    done: VecDeque<(PieceId, usize, bool, bool)>,
    wants: u64,
    /// It dies as soon as it has begun something.
    is_doomed: bool,
}

struct Session {
    agent: usize,
    heard_clock: u64,
    asked: Option<u64>,
    /// Something of it has arrived, and something before it has not.
    has_gap: bool,
}

struct World {
    now: u64,
    dice: Dice,
    queue: Vec<Stored>,
    client: Dispatcher,
    sessions: BTreeMap<u64, Session>,
    agents: Vec<Agent>,
    next_session: u64,
    client_cut_until: u64,
    /// When the client has made the queue anew.
    queue_made_at: Option<u64>,
    specs: BTreeMap<u64, u32>,
    runs: HashMap<(u64, usize), u32>,
    /// What began: in which session, as which piece, and which item of which job.
    begun: Vec<(u64, PieceId, (u64, usize))>,
    /// Since when and until when the client has waited for each item.
    waited: HashMap<(u64, usize), (u64, u64)>,
    /// Which session was missed, since when and until when: nobody answered, or it was given up.
    missed: Vec<(u64, u64, u64)>,
    /// The epochs that pieces were published in.
    epochs: HashMap<PieceId, u64>,
    /// Of which pieces the client knows that a session has begun them.
    known: HashSet<(u64, PieceId)>,
    /// When the client hears that nobody was there, in this session, to take this.
    unheard: VecDeque<(u64, u64, DeliveryId)>,
    /// What may come to an agent when it was told of something that was said later.
    late: HashSet<PieceId>,
    /// What the client has back from a session.
    returned: HashSet<(u64, PieceId)>,
    outcomes: HashMap<(u64, usize), u32>,
    cancelled: HashSet<u64>,
    pieces: HashMap<PieceId, (u64, Vec<usize>)>,
    deliveries: HashMap<DeliveryId, Vec<PieceId>>,
    trouble: u64,
    /// How many milliseconds an item may take.
    longest: u64,
    lost: u64,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, agents: usize, slots: usize, trouble: u64) -> Self {
        let mut world = Self {
            now: 1_000,
            dice: Dice(seed | 1),
            queue: Vec::new(),
            client: Dispatcher::new(),
            sessions: BTreeMap::new(),
            agents: Vec::new(),
            next_session: 1,
            client_cut_until: 0,
            queue_made_at: None,
            specs: BTreeMap::new(),
            runs: HashMap::new(),
            begun: Vec::new(),
            waited: HashMap::new(),
            missed: Vec::new(),
            epochs: HashMap::new(),
            known: HashSet::new(),
            unheard: VecDeque::new(),
            late: HashSet::new(),
            returned: HashSet::new(),
            outcomes: HashMap::new(),
            cancelled: HashSet::new(),
            pieces: HashMap::new(),
            deliveries: HashMap::new(),
            trouble,
            longest: if seed.is_multiple_of(3) { 400 } else { 40 },
            lost: 0,
            log: Vec::new(),
        };
        for _ in 0..agents {
            world.start_agent(slots);
        }
        world
    }

    fn note(&mut self, text: String) {
        self.log.push(format!("{:>7} {text}", self.now));
    }

    fn start_agent(&mut self, slots: usize) {
        let at = self.agents.len();
        self.agents.push(Agent {
            session: 0,
            intake: Intake::new(slots),
            stopped_until: 0,
            is_dead: false,
            cut_until: 0,
            heard_clock: 0,
            from_client: VecDeque::new(),
            to_client: VecDeque::new(),
            arriving: VecDeque::new(),
            direct: VecDeque::new(),
            direct_until: 0,
            notes: VecDeque::new(),
            noted: 0,
            running: Vec::new(),
            done: VecDeque::new(),
            wants: 0,
            is_doomed: false,
        });
        self.open_session(at, slots);
    }

    /// A new session, of which the client hears by its first frame.
    fn open_session(&mut self, at: usize, slots: usize) {
        self.lose_words(at);
        let agent = &mut self.agents[at];
        agent.session = self.next_session;
        self.next_session += 1;
        agent.heard_clock = 0;
        agent.from_client.clear();
        agent.running.clear();
        agent.done.clear();
        let connection = agent.intake.connection();
        self.say_to_client(at, Said::Hello(slots, connection));
    }

    /// The client hears of a session, and gives up the one before.
    fn welcome(&mut self, session: u64, at: usize, slots: usize, connection: u64) {
        let before = self.sessions.iter().find(|(_, it)| it.agent == at);
        if let Some((old, _)) = before {
            self.give_up(*old);
        }
        self.client.joined(session, slots);
        self.sessions.insert(
            session,
            Session {
                agent: at,
                heard_clock: 0,
                asked: None,
                has_gap: false,
            },
        );
        let epoch = self.client.epoch();
        self.say_to_agent(session, Said::Synced(epoch, connection));
    }

    fn give_up(&mut self, session: u64) {
        if let Some(it) = self.sessions.remove(&session) {
            let has_gap = it.has_gap;
            self.found(session);
            self.missed.push((session, self.now, self.now));
            self.note(format!("client gives up session {session}, gap {has_gap}"));
            self.client.given_up(session, has_gap);
        }
    }

    /// The session is not missed any more.
    fn found(&mut self, session: u64) {
        let mut missed = self.missed.iter_mut();
        let open = missed.find(|(of, _, until)| *of == session && *until == u64::MAX);
        if let Some((.., until)) = open {
            *until = self.now;
        }
    }

    fn say_to_client(&mut self, at: usize, said: Said) {
        let delay = 1 + self.dice.roll(5);
        let agent = &mut self.agents[at];
        let after = agent.to_client.back().map_or(0, |it| it.at);
        agent.to_client.push_back(Frame {
            session: agent.session,
            at: (self.now + delay).max(after),
            said,
            clock: self.now,
            echo: agent.heard_clock,
        });
    }

    fn say_to_agent(&mut self, session: u64, said: Said) {
        let Some(it) = self.sessions.get(&session) else {
            return;
        };
        let (at, echo) = (it.agent, it.heard_clock);
        let delay = 1 + self.dice.roll(5);
        let agent = &mut self.agents[at];
        if agent.session != session {
            return;
        }
        let after = agent.from_client.back().map_or(0, |it| it.at);
        let after = after.max(agent.direct_until);
        agent.from_client.push_back(Frame {
            session,
            at: (self.now + delay).max(after),
            said,
            clock: self.now,
            echo,
        });
    }

    fn submit(&mut self, job: u64, items: usize, retries: u32, known: bool) {
        self.specs.insert(job, retries);
        for index in 0..items {
            self.outcomes.insert((job, index), 0);
            self.waited.insert((job, index), (self.now, u64::MAX));
        }
        let terms = Terms {
            function: u64::from(known),
            priority: 0,
            retries,
            bytes: 10,
        };
        self.client.submit(job, 0..items, terms);
    }

    fn deliver(&mut self, job: u64, index: usize) {
        self.note(format!("outcome of {index} of job {job}"));
        let count = self.outcomes.get_mut(&(job, index)).expect("an item");
        *count += 1;
        assert_eq!(*count, 1, "item {index} of {job} has two outcomes");
        self.waited.get_mut(&(job, index)).expect("an item").1 = self.now;
    }

    fn client_acts(&mut self) {
        self.client_loses();
        while let Some(action) = self.client.poll_action(true) {
            match action {
                dispatcher::Action::Publish {
                    delivery,
                    epoch,
                    pieces,
                } => {
                    let last = self.sends(delivery, epoch, &pieces);
                    if self.dice.one_in(200 * self.trouble) {
                        // The acknowledgement is lost, and perhaps the delivery.
                        if self.dice.one_in(2) {
                            self.store(delivery, epoch, pieces, last);
                        }
                        self.client.raise();
                    } else {
                        self.store(delivery, epoch, pieces, last);
                    }
                }
                dispatcher::Action::Send {
                    agent,
                    delivery,
                    oldest,
                    epoch,
                    piece,
                } => self.send_directly(agent, delivery, oldest, epoch, piece),
                dispatcher::Action::TellEpoch { agent, epoch } => {
                    self.say_to_agent(agent, Said::Epoch(epoch));
                }
                dispatcher::Action::Recall { agent, piece } => {
                    self.say_to_agent(agent, Said::Recall(piece));
                }
                dispatcher::Action::Cancel { agent, piece, .. } => {
                    self.say_to_agent(agent, Said::Cancel(piece));
                }
            }
        }
    }

    /// The client sends this. Says whether something of it must not run twice.
    fn sends(&mut self, delivery: DeliveryId, epoch: u64, pieces: &[PieceId]) -> bool {
        self.deliveries.insert(delivery, pieces.to_vec());
        let mut last = false;
        for piece in pieces {
            let (job, items, attempt, retries) = self.client.piece(*piece).expect("it is sent");
            last |= attempt >= retries;
            self.pieces.insert(*piece, (job, items.collect()));
            self.epochs.insert(*piece, epoch);
        }
        last
    }

    /// It arrives, or is lost, or the server says that nobody is there.
    fn send_directly(
        &mut self,
        session: u64,
        delivery: DeliveryId,
        oldest: DeliveryId,
        epoch: u64,
        piece: PieceId,
    ) {
        let last = self.sends(delivery, epoch, &[piece]);
        self.note(format!("delivery {delivery} goes to session {session}"));
        self.known.insert((session, piece));
        let Some(it) = self.sessions.get(&session) else {
            return;
        };
        let at = it.agent;
        let delay = 1 + self.dice.roll(5);
        let is_lost = self.dice.one_in(20 * self.trouble);
        let is_noticed = self.dice.one_in(2);
        let agent = &mut self.agents[at];
        if agent.is_dead || agent.cut_until > self.now && is_noticed {
            self.unheard
                .push_back((self.now + delay, session, delivery));
        } else if agent.cut_until <= self.now && !is_lost {
            let arrival = Arrival {
                client: CLIENT,
                delivery,
                epoch,
                pieces: vec![piece],
                has_last_attempt: last,
                time: 1,
            };
            let mut when = (self.now + delay).max(agent.direct_until);
            if self.dice.one_in(20 * self.trouble) {
                // Other messages overtake it.
                when += self.dice.roll(15_000);
                self.late.insert(piece);
            } else {
                agent.direct_until = when;
            }
            let place = agent.direct.partition_point(|it| it.0 <= when);
            agent.direct.insert(place, (when, session, arrival, oldest));
        }
    }

    /// The client has it back from this session.
    fn returns(&mut self, session: u64, delivery: DeliveryId) {
        if self.client.was_sent_to(delivery) == Some(session) {
            for piece in &self.deliveries[&delivery] {
                self.known.remove(&(session, *piece));
                self.returned.insert((session, *piece));
            }
        }
        for (job, items) in self.client.returned(session, delivery) {
            assert!(self.cancelled.contains(&job));
            for index in items {
                self.deliver(job, index);
            }
        }
    }

    fn client_loses(&mut self) {
        while let Some(Loss {
            agent, job, items, ..
        }) = self.client.poll_loss()
        {
            assert!(
                agent < self.next_session && !self.sessions.contains_key(&agent),
                "items are lost with session {agent}, which was not given up"
            );
            self.lost += items.len() as u64;
            for index in items {
                self.deliver(job, index);
            }
        }
    }

    fn store(&mut self, delivery: DeliveryId, epoch: u64, pieces: Vec<PieceId>, last: bool) {
        self.queue.push(Stored {
            delivery,
            epoch,
            pieces,
            last,
            times: 0,
            given: None,
        });
    }

    fn queue_gives(&mut self) {
        for at in 0..self.agents.len() {
            let agent = &self.agents[at];
            if agent.is_dead || agent.cut_until > self.now {
                continue;
            }
            // What a stopped agent has asked for is given out all the same.
            let wants = agent.wants;
            if agent.arriving.len() as u64 >= wants {
                continue;
            }
            let now = self.now;
            let free = self
                .queue
                .iter_mut()
                .find(|it| it.given.is_none_or(|then| now > then + ACK_WAIT));
            if let Some(it) = free {
                it.times += 1;
                it.given = Some(now);
                let arrival = Arrival {
                    client: CLIENT,
                    delivery: it.delivery,
                    epoch: it.epoch,
                    pieces: it.pieces.clone(),
                    has_last_attempt: it.last,
                    time: it.times,
                };
                let delay = 1 + self.dice.roll(3);
                let agent = &mut self.agents[at];
                agent.wants -= 1;
                agent.arriving.push_back((now + delay, arrival));
            }
        }
    }

    fn agent_acts(&mut self, at: usize) {
        while let Some(action) = self.agents[at].intake.poll_action() {
            match action {
                intake::Action::Ask { delivery, time, .. } => {
                    self.say_to_client(at, Said::Ask(delivery, time));
                }
                intake::Action::SayBegun { delivery, .. } => {
                    self.say_to_client(at, Said::Begun(delivery));
                }
                intake::Action::Acknowledge { delivery, .. } => {
                    if !self.dice.one_in(50 * self.trouble) {
                        self.queue.retain(|it| it.delivery != delivery);
                    }
                }
                intake::Action::Return { delivery, .. } => {
                    self.say_to_client(at, Said::Returned(delivery));
                }
                intake::Action::Sync { connection, .. } => {
                    self.say_to_client(at, Said::Sync(connection));
                }
                intake::Action::Note(note) => {
                    let delay = 1 + self.dice.roll(4);
                    let note = (self.now + delay, self.now, note);
                    self.agents[at].notes.push_back(note);
                }
                intake::Action::Run { piece, .. } => {
                    let (_, items) = self.pieces[&piece].clone();
                    let ends = self.now + 1 + self.dice.roll(self.longest);
                    self.agents[at].running.push(Running {
                        piece,
                        items: items.into(),
                        ends,
                    });
                    self.begin_item(piece, at);
                    self.agents[at].is_doomed |= self.dice.one_in(40 * self.trouble);
                }
                intake::Action::Kept { epoch, .. } => self.say_to_client(at, Said::Kept(epoch)),
                intake::Action::Kill { piece, .. } => {
                    self.agents[at].running.retain(|it| it.piece != piece);
                }
                intake::Action::Discard { .. } => {}
                intake::Action::End { .. } => {
                    self.note(format!("agent {at} ends its session"));
                    let slots = 2;
                    self.open_session(at, slots);
                }
            }
        }
        let agent = &mut self.agents[at];
        agent.wants = (agent.intake.free() as u64).saturating_sub(agent.arriving.len() as u64);
    }

    /// The first item of this piece begins to run.
    fn begin_item(&mut self, piece: PieceId, at: usize) {
        let (job, _) = self.pieces[&piece];
        let running = self.agents[at].running.iter().find(|it| it.piece == piece);
        if let Some(index) = running.and_then(|it| it.items.front().copied()) {
            let runs = self.runs.entry((job, index)).or_default();
            *runs += 1;
            let runs = *runs;
            let session = self.agents[at].session;
            assert!(
                !self.returned.contains(&(session, piece)),
                "agent {at} begins piece {piece}, which it has given back\n{}",
                self.log.join("\n")
            );
            self.begun.push((session, piece, (job, index)));
            // Nobody can tell a stopped agent, whose workers go on, or one that is cut off.
            let agent = &self.agents[at];
            let mut to_come = agent.from_client.iter();
            let is_untold = self.late.contains(&piece)
                || agent.stopped_until > self.now
                || agent.cut_until > self.now
                || self.client_cut_until > self.now
                || to_come.any(|it| match it.said {
                    Said::Recall(it) => it == piece,
                    Said::Epoch(epoch) => epoch > self.epochs[&piece],
                    _ => false,
                });
            assert!(
                self.outcomes[&(job, index)] == 0 || is_untold || self.cancelled.contains(&job),
                "item {index} of {job} begins late at agent {at}, piece {piece}\n{}",
                self.log.join("\n")
            );
            self.note(format!(
                "agent {at} runs {index} of job {job}, piece {piece}"
            ));
            assert!(
                runs == 1 || self.specs[&job] > 0,
                "item {index} of {job} ran again\n{}",
                self.log.join("\n")
            );
        }
    }

    /// As often as was allowed, and more often only without the client's knowledge: by an agent
    /// that was missed meanwhile, and once each time that one was.
    fn check_attempts(&self) {
        let mut known: HashMap<(u64, usize), usize> = HashMap::new();
        let mut unknown: HashMap<(u64, usize), usize> = HashMap::new();
        for (session, piece, item) in &self.begun {
            if self.known.contains(&(*session, *piece)) {
                *known.entry(*item).or_default() += 1;
                continue;
            }
            *unknown.entry(*item).or_default() += 1;
            let is_given_up = !self.sessions.contains_key(session);
            let is_missed = self.missed_meanwhile(*item).any(|it| it == *session);
            let may_run_twice = self.specs[&item.0] > 0;
            assert!(
                is_given_up || is_missed && may_run_twice || self.cancelled.contains(&item.0),
                "{item:?} ran as {piece} without a word\n{}",
                self.log.join("\n")
            );
        }
        for (item, runs) in known {
            let most = 1 + self.specs[&item.0] as usize;
            assert!(
                runs <= most,
                "{item:?} ran {runs} times for {most}\n{}",
                self.log.join("\n")
            );
        }
        for (item, runs) in unknown {
            let most = self.missed_meanwhile(item).count();
            assert!(
                runs <= most || self.cancelled.contains(&item.0),
                "{item:?} ran {runs} times without a word, and {most} were missed\n{}",
                self.log.join("\n")
            );
        }
    }

    /// The sessions that were missed while the client waited for this item.
    fn missed_meanwhile(&self, item: (u64, usize)) -> impl Iterator<Item = u64> {
        let (since, until) = self.waited[&item];
        let missed = self.missed.iter();
        let meanwhile = missed.filter(move |(_, from, to)| *from <= until && since <= *to);
        meanwhile.map(|(session, ..)| *session)
    }

    fn workers_work(&mut self, at: usize) {
        if self.agents[at].is_dead {
            return;
        }
        let now = self.now;
        let done: Vec<PieceId> = self.agents[at]
            .running
            .iter()
            .filter(|it| it.ends <= now)
            .map(|it| it.piece)
            .collect();
        for piece in done {
            let takes = 1 + self.dice.roll(self.longest);
            let dies = self.dice.one_in(40 * self.trouble);
            let agent = &mut self.agents[at];
            let place = agent.running.iter().position(|it| it.piece == piece);
            let running = &mut agent.running[place.expect("it runs")];
            let index = running.items.pop_front().expect("it had an item");
            running.ends = now + takes;
            let is_over = running.items.is_empty();
            if is_over {
                agent.running.retain(|it| it.piece != piece);
            }
            agent.done.push_back((piece, index, dies, is_over));
            if !is_over {
                self.begin_item(piece, at);
            }
        }
    }

    fn step(&mut self, with_trouble: bool) {
        self.now += 1;
        if with_trouble {
            self.make_trouble();
        }
        self.queue_gives();
        if self.queue_made_at.is_some_and(|at| at <= self.now) {
            self.queue_made_at = None;
            self.client.has_queue();
        }
        for at in 0..self.agents.len() {
            // Workers go on while the agent is stopped; what they have waits in its memory.
            self.workers_work(at);
            self.agent_steps(at);
        }
        if self.client_cut_until == self.now {
            self.client_is_back();
        }
        if self.client_cut_until <= self.now {
            self.client_steps();
            self.client_acts();
        }
    }

    fn agent_steps(&mut self, at: usize) {
        let now = self.now;
        if self.agents[at].is_dead || self.agents[at].stopped_until > now {
            return;
        }
        let clock = Duration::from_millis(now);
        self.direct_ones_arrive(at);
        while let Some((piece, index, dies, is_over)) = self.agents[at].done.pop_front() {
            if is_over {
                self.agents[at].intake.ended(CLIENT, piece, clock);
            }
            self.say_to_client(at, Said::Outcome(piece, index, dies));
        }
        self.agents[at].intake.expire(clock);
        self.agent_acts(at);
        if self.agents[at].cut_until <= now {
            loop {
                let agent = &mut self.agents[at];
                let Some(frame) = agent.from_client.front().cloned() else {
                    break;
                };
                if frame.at > now {
                    break;
                }
                agent.from_client.pop_front();
                if frame.session != agent.session {
                    continue;
                }
                agent.heard_clock = agent.heard_clock.max(frame.clock);
                if frame.echo > 0 {
                    let until = Duration::from_millis(frame.echo) + LEASE;
                    agent.intake.lease(CLIENT, until);
                }
                let mut recalled = None;
                match frame.said {
                    Said::Synced(epoch, connection) => {
                        agent.intake.synced(CLIENT, epoch, connection);
                    }
                    Said::Epoch(epoch) => agent.intake.epoch(CLIENT, epoch),
                    Said::Sent(delivery) => agent.intake.was_sent(CLIENT, delivery),
                    Said::Verdict(delivery, granted) => {
                        agent.intake.verdict(CLIENT, delivery, granted, clock);
                    }
                    Said::Recall(piece) => agent.intake.recall(CLIENT, piece, clock),
                    Said::Cancel(piece) => recalled = Some(piece),
                    Said::Gone => agent.intake.end(CLIENT, End::Refused, clock),
                    Said::Ping => self.say_to_client(at, Said::Pong),
                    _ => {}
                }
                if let Some(piece) = recalled {
                    self.cancel_running(at, piece);
                }
                self.agent_acts(at);
            }
            loop {
                let agent = &mut self.agents[at];
                match agent.arriving.front() {
                    Some((when, _)) if *when <= now => {}
                    _ => break,
                }
                let (_, arrival) = agent.arriving.pop_front().expect("it was seen");
                agent.intake.arrived(arrival, clock);
                self.agent_acts(at);
            }
            loop {
                let agent = &mut self.agents[at];
                match agent.notes.front() {
                    Some((when, ..)) if *when <= now => {}
                    _ => break,
                }
                let (_, sent, note) = agent.notes.pop_front().expect("it was seen");
                agent.noted = agent.noted.max(sent);
                agent.intake.noted(note, clock);
                self.agent_acts(at);
            }
        }
        self.agent_acts(at);
    }

    fn direct_ones_arrive(&mut self, at: usize) {
        let now = self.now;
        let agent = &mut self.agents[at];
        if agent.cut_until > now {
            // Some of them were with the server.
            let keeps = self.dice.roll(agent.direct.len() as u64 + 1) as usize;
            agent.direct.truncate(keeps);
            return;
        }
        while self.agents[at].direct.front().is_some_and(|it| it.0 <= now) {
            let agent = &mut self.agents[at];
            let (_, session, arrival, oldest) = agent.direct.pop_front().expect("it was seen");
            if agent.session == session {
                let clock = Duration::from_millis(now);
                agent.intake.arrived_directly(arrival, oldest, clock);
                self.agent_acts(at);
            }
        }
    }

    /// Whatever of the piece has not run fails, and is said to.
    fn cancel_running(&mut self, at: usize, piece: PieceId) {
        let place = self.agents[at]
            .running
            .iter()
            .position(|it| it.piece == piece);
        if let Some(place) = place {
            let running = self.agents[at].running.remove(place);
            self.agents[at]
                .intake
                .ended(CLIENT, piece, Duration::from_millis(self.now));
            for index in running.items {
                self.say_to_client(at, Said::Outcome(piece, index, false));
            }
        }
    }

    fn client_steps(&mut self) {
        let now = self.now;
        for at in 0..self.agents.len() {
            loop {
                let agent = &mut self.agents[at];
                let Some(frame) = agent.to_client.front().cloned() else {
                    break;
                };
                // What the server has, the agent's link does not hold up.
                let is_cut = agent.cut_until > now && frame.clock > agent.noted;
                if is_cut || frame.at > now {
                    break;
                }
                agent.to_client.pop_front();
                let key = frame.session;
                if let Said::Hello(slots, connection) = frame.said {
                    self.welcome(key, at, slots, connection);
                }
                let Some(session) = self.sessions.get_mut(&key) else {
                    // It was given up.
                    if !self.agents[at].is_dead && self.agents[at].session == key {
                        self.agents[at].from_client.push_back(Frame {
                            session: key,
                            at: now + 1,
                            said: Said::Gone,
                            clock: now,
                            echo: 0,
                        });
                    }
                    continue;
                };
                session.asked = None;
                session.heard_clock = session.heard_clock.max(frame.clock);
                if self.client.reachable(key) {
                    self.found(key);
                }
                self.client_hears(key, frame.said);
                self.client_acts();
            }
        }
        while self.unheard.front().is_some_and(|it| it.0 <= now) {
            let (_, session, delivery) = self.unheard.pop_front().expect("it was seen");
            if self.client.was_sent_to(delivery) == Some(session) {
                self.note(format!("nobody was there for delivery {delivery}"));
                self.returns(session, delivery);
                self.unheard_of(session);
            }
        }
        let mut given_up = Vec::new();
        let mut to_ask = Vec::new();
        for (key, session) in &mut self.sessions {
            if !self.client.watches(*key) {
                session.asked = None;
                continue;
            }
            if now.is_multiple_of(50) {
                session.asked.get_or_insert(now);
                to_ask.push(*key);
            }
            if session.asked.is_some_and(|asked| now > asked + GIVE_UP) {
                given_up.push(*key);
            }
        }
        for key in to_ask {
            let at = self.sessions[&key].agent;
            let agent = &self.agents[at];
            // The server may know that the agent's connection is lost. It may be back before the
            // agent has noticed.
            let is_unheard = agent.is_dead
                || agent.cut_until > now && self.dice.one_in(20)
                || self.dice.one_in(200 * self.trouble);
            if is_unheard {
                self.unheard_of(key);
            } else {
                self.say_to_agent(key, Said::Ping);
            }
            for delivery in self.client.take_unconfirmed(key) {
                self.say_to_agent(key, Said::Sent(delivery));
            }
        }
        for key in given_up {
            self.give_up(key);
        }
    }

    /// The server says that nobody is there.
    fn unheard_of(&mut self, session: u64) {
        if self.client.unreachable(session) {
            self.missed.push((session, self.now, u64::MAX));
            self.note(format!("nobody answers in session {session}"));
        }
    }

    fn knows(&mut self, session: u64, delivery: DeliveryId, has_begun: bool) {
        if has_begun {
            let pieces = self.deliveries[&delivery].iter();
            self.known.extend(pieces.map(|it| (session, *it)));
        }
    }

    fn client_hears(&mut self, key: u64, said: Said) {
        self.note(format!("client hears of {key}: {said:?}"));
        match said {
            Said::Ask(delivery, time) => {
                let granted = self.client.asked(key, delivery, time);
                self.knows(key, delivery, granted);
                self.say_to_agent(key, Said::Verdict(delivery, granted));
            }
            Said::Begun(delivery) => {
                let may_run = self.client.begun(key, delivery);
                self.knows(key, delivery, may_run);
                if !may_run {
                    self.say_to_agent(key, Said::Verdict(delivery, false));
                }
            }
            Said::Kept(epoch) => self.client.kept(key, epoch),
            Said::Returned(delivery) => self.returns(key, delivery),
            Said::Sync(connection) => {
                let epoch = self.client.epoch();
                self.say_to_agent(key, Said::Synced(epoch, connection));
            }
            Said::Outcome(piece, index, dies) => {
                match self.client.outcome(key, piece, index, dies, 1_000_000) {
                    Verdict::Deliver { job, .. } => self.deliver(job, index),
                    Verdict::Retry | Verdict::Drop => {}
                }
            }
            _ => {}
        }
    }

    fn make_trouble(&mut self) {
        let trouble = self.trouble;
        let count = self.agents.len() as u64;
        let at = self.dice.roll(count) as usize;
        let long = 1 + self.dice.roll(12_000);
        if self.dice.one_in(1_500 * trouble) && !self.agents[at].is_dead {
            self.note(format!("agent {at} stops for {long}"));
            self.agents[at].stopped_until = self.now + long;
        }
        if self.dice.one_in(1_500 * trouble) && !self.agents[at].is_dead {
            self.note(format!("agent {at} is cut off for {long}"));
            self.agents[at].cut_until = self.now + long;
        }
        for at in 0..self.agents.len() {
            let is_doomed = std::mem::take(&mut self.agents[at].is_doomed);
            if (is_doomed || self.dice.one_in(3_000 * count * trouble)) && !self.agents[at].is_dead
            {
                self.kill_agent(at);
            }
        }
        if self.dice.one_in(4_000 * trouble) {
            self.server_restarts();
        }
        if self.dice.one_in(3_000 * trouble) && self.client_cut_until <= self.now {
            let long = 1 + self.dice.roll(8_000);
            self.note(format!("the client is cut off for {long}"));
            self.client_cut_until = self.now + long;
            self.client.disconnected();
        }
        if self.dice.one_in(1_000 * trouble) {
            let jobs: Vec<u64> = self.specs.keys().copied().collect();
            if !jobs.is_empty() {
                let job = jobs[self.dice.roll(jobs.len() as u64) as usize];
                self.cancelled.insert(job);
                for range in self.client.cancel(job, true) {
                    for index in range {
                        self.deliver(job, index);
                    }
                }
            }
        }
    }

    /// Of what it has said, the server has everything that a note which came back was behind; of
    /// the rest, some. A word that the client misses is before some that it has.
    fn kill_agent(&mut self, at: usize) {
        self.note(format!("agent {at} dies"));
        let agent = &mut self.agents[at];
        agent.is_dead = true;
        agent.running.clear();
        agent.done.clear();
        self.lose_words(at);
        self.start_agent(2);
    }

    /// The agent's session ends, and its link with it.
    fn lose_words(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let noted = agent.noted;
        let mut certain = agent.to_client.iter();
        let certain = certain.position(|it| it.clock > noted);
        let certain = certain.unwrap_or(agent.to_client.len());
        let more = (agent.to_client.len() - certain) as u64;
        let keeps = certain + self.dice.roll(more + 1) as usize;
        let mut lost = agent.to_client.drain(keeps..);
        let has_gap = lost.any(|it| it.clock <= noted);
        drop(lost);
        if let Some(session) = self.sessions.get_mut(&agent.session) {
            session.has_gap |= has_gap;
        }
    }

    /// The client has another connection. What was said to it meanwhile is lost, and said again by
    /// those who live.
    fn client_is_back(&mut self) {
        self.note("the client is back".into());
        for at in 0..self.agents.len() {
            self.send_again(at);
            let comes = self.agents[at].direct.len() as u64;
            let keeps = self.dice.roll(comes + 1) as usize;
            self.agents[at].direct.truncate(keeps);
        }
        self.client.reconnected();
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.found(session);
        }
        // Nobody could answer meanwhile.
        for session in self.sessions.values_mut() {
            session.asked = None;
        }
        self.queue_made_at = Some(self.now + self.dice.roll(200));
    }

    /// What is under way between the client and this agent was lost.
    fn send_again(&mut self, at: usize) {
        let back = self.now + 1 + self.dice.roll(100);
        let agent = &mut self.agents[at];
        if agent.is_dead {
            // Nobody sends it again.
            agent.to_client.clear();
            return;
        }
        // The links send everything again, in order.
        for frame in agent.to_client.iter_mut().chain(&mut agent.from_client) {
            frame.at = frame.at.max(back);
        }
        for frame in &mut agent.to_client {
            frame.clock = frame.clock.max(back);
        }
    }

    /// All connections break. Of a queue in memory nothing is left; one in a file may have
    /// forgotten that it gave something out, or that something was acknowledged.
    fn server_restarts(&mut self) {
        self.note("the server restarts".into());
        self.client.disconnected();
        if self.dice.one_in(2) {
            self.queue.clear();
        } else {
            for it in &mut self.queue {
                if self.dice.one_in(3) {
                    it.given = None;
                    it.times = 0;
                }
            }
        }
        for at in 0..self.agents.len() {
            let agent = &mut self.agents[at];
            agent.arriving.clear();
            agent.direct.clear();
            agent.notes.clear();
            agent.wants = 0;
            if !agent.is_dead {
                agent.intake.reconnected();
            }
        }
        // Unless it is cut off anyway.
        if self.client_cut_until <= self.now {
            self.client_is_back();
        }
        for at in 0..self.agents.len() {
            if !self.agents[at].is_dead {
                self.agent_acts(at);
            }
        }
    }

    fn finish(&mut self) {
        for agent in &mut self.agents {
            agent.stopped_until = agent.stopped_until.min(self.now + 20_000);
            agent.cut_until = agent.cut_until.min(self.now + 20_000);
        }
        self.client_cut_until = self.client_cut_until.min(self.now + 20_000);
        let end = self.now + 600_000;
        while !self.client.is_idle() && self.now < end {
            self.step(false);
        }
        let open: Vec<_> = self.outcomes.iter().filter(|(_, it)| **it != 1).collect();
        assert!(
            open.is_empty() && self.client.is_idle(),
            "no outcome: {open:?} {:?}\n{}",
            self.client,
            self.log.join("\n")
        );
        self.check_attempts();
    }
}

fn run(seed: u64, trouble: u64, agents: usize) -> u64 {
    let mut world = World::new(seed, agents, 2, trouble);
    for job in 0..30 {
        let items = 1 + world.dice.roll(6) as usize;
        let retries = world.dice.roll(3) as u32;
        let known = world.dice.one_in(2);
        world.submit(job, items, retries, known);
        for _ in 0..world.dice.roll(500) {
            world.step(true);
        }
    }
    world.finish();
    world.lost
}

/// More by the variable that proptest knows.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|it| it.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn each_item_ends_once_and_none_runs_too_often(
        seed in any::<u64>(),
        trouble in 1_u64..6,
        agents in 1_usize..4,
    ) {
        run(seed, trouble, agents);
    }
}

/// No trouble, but for what a test makes.
const NONE: u64 = u64::MAX / 10_000;

impl World {
    /// What this agent has of the queue, or is about to have.
    fn taken(&self, at: usize) -> Vec<DeliveryId> {
        let agent = &self.agents[at];
        let comes = |id| {
            let mut direct = agent.direct.iter();
            agent.arriving.iter().any(|(_, it)| it.delivery == id)
                || direct.any(|(_, _, it, _)| it.delivery == id)
        };
        let all = self.deliveries.keys().copied();
        all.filter(|id| agent.intake.holds(CLIENT, *id) || comes(*id))
            .collect()
    }

    /// Whether the item is in one of these.
    fn is_in(&self, deliveries: &[DeliveryId], (job, index): (u64, usize)) -> bool {
        let mut pieces = deliveries.iter().flat_map(|it| &self.deliveries[it]);
        pieces.any(|it| self.pieces[it].0 == job && self.pieces[it].1.contains(&index))
    }
}

/// When it is given up, nothing is left to do but what it had taken and must not run twice.
#[test]
fn only_what_must_not_run_twice_waits_until_a_dead_agent_is_given_up() {
    let mut waiting = 0;
    for seed in 1..300 {
        let mut world = World::new(seed, 2, 2, NONE);
        for job in 0..20 {
            let items = 1 + world.dice.roll(4) as usize;
            let retries = world.dice.roll(2) as u32;
            let known = world.dice.one_in(2);
            world.submit(job, items, retries, known);
        }
        for _ in 0..10 + world.dice.roll(300) {
            world.step(false);
        }
        let session = world.agents[0].session;
        let taken = world.taken(0);
        world.kill_agent(0);
        while world.sessions.contains_key(&session) && !world.client.is_idle() {
            world.step(false);
        }
        for (item, outcomes) in &world.outcomes {
            if *outcomes == 0 {
                let is_due = world.specs[&item.0] == 0 && world.is_in(&taken, *item);
                assert!(is_due, "{item:?}, seed {seed}\n{}", world.log.join("\n"));
                waiting += 1;
            }
        }
        world.finish();
    }
    assert!(waiting > 0, "the test is none");
}

#[test]
fn without_trouble_nothing_is_lost() {
    let mut world = World::new(3, 2, 2, NONE);
    for job in 0..50 {
        world.submit(job, 3, 0, true);
    }
    world.finish();
    assert_eq!(world.lost, 0);
    assert!(world.runs.values().all(|it| *it == 1));
}
