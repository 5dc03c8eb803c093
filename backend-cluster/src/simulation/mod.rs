//! Clients' and agents' parts of the protocol, run against a network and a queue that go wrong.
//!
//! Time is in milliseconds. A session is what the link makes of it: messages arrive in order and
//! once, or never again, if one of the two ends is gone. The queue forgets, repeats, and gives out
//! again. Agents stop, go on, die, and lose their connection. Everything follows from a seed.

mod agents;
mod client;
mod oracle;
mod trouble;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use crate::dispatcher::{Dispatcher, Terms};
use crate::intake::{Arrival, Intake};
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
