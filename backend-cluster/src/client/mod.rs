//! The client: a thread that has the connection, and does what the dispatcher says.

mod command;
mod envelope;
mod gathering;
mod job;
mod outbox;
mod printer;
mod session;
mod shared;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use async_nats::{Event, Message, Subscriber};
use futures_util::StreamExt;
use procpool_core::{
    BroadcastContent, CallId, Completion, Dump, EncodedChunk, Outcome, OutcomeBatch, Output,
    TaskError, TaskErrorKind,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

pub(crate) use self::command::Command;
pub(crate) use self::envelope::Envelope;
use self::gathering::{Gathered, Gatherings};
use self::job::{Job, Outcomes};
use self::outbox::Outbox;
use self::printer::Printer;
use self::session::Session;
pub(crate) use self::shared::{Shared, THREAD};
use crate::agent_info::AgentInfo;
use crate::clock;
use crate::dispatcher::{Action, Dispatcher, JobId, Loss, Terms, Verdict};
use crate::link::{Lane, Limits, Link, OVERHEAD, session_of};
use crate::message::{
    AgentCard, AgentId, Blob, ClientId, Delivery, DeliveryId, Piece, PieceId, Printed, ToAgent,
    ToClient, from_bytes, to_bytes,
};
use crate::nats::{Connection, Subjects, is_unheard, last_number, make_queue};
use crate::programs::{ASK_PROGRAMS, Manifest, PROGRAM, publish};

/// How often an agent is asked that has work.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long after it was asked in vain an agent is given up: longer than its lease.
const GIVE_UP: Duration = Duration::from_secs(6);
/// How long the session of an agent that has left is kept, so that this is acknowledged.
const HEARS_LEFT: Duration = Duration::from_secs(1);
/// How long agents have to answer a question. They ask their workers, who may take their time:
/// stacks are given names.
pub(crate) const GATHER_LIMIT: Duration = Duration::from_secs(10);
/// How long an input may collect items, once asked, while a worker has nothing to do.
const ASK_INPUTS_AFTER: Duration = Duration::from_micros(500);
/// How long an acknowledgement of the queue's is waited for.
const PUBLISH_LIMIT: Duration = Duration::from_secs(5);
/// What is larger is not sent through the queue.
const INLINE: usize = 512 * 1024;
/// The most that an agent's message may be.
const MESSAGE: u64 = 1 << 36;

/// What a pool was built with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) agents_timeout: Duration,
    pub(crate) server_timeout: Duration,
    pub(crate) in_file: bool,
    /// `WorkerOptions`, encoded.
    pub(crate) options: Vec<u8>,
    pub(crate) contents: Vec<BroadcastContent>,
    pub(crate) url: String,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// This program, if it is published.
    pub(crate) program: Option<Manifest>,
}

/// The client's thread.
pub(crate) struct Client {
    id: ClientId,
    subjects: Subjects,
    settings: Settings,
    connection: Connection,
    /// How often the connection was made.
    connections: u64,
    /// Since when there is none.
    down_since: Option<Duration>,
    /// Since when there is work and no connection.
    stranded_since: Option<Duration>,
    /// Since when there is work and no agent.
    alone_since: Option<Duration>,
    is_queue_made: bool,
    makes_queue: bool,
    dispatcher: Dispatcher,
    jobs: HashMap<JobId, Job>,
    /// When the calls of some of them end.
    deadlines: BTreeSet<(Duration, JobId)>,
    /// Those that are not dispatched yet, by when they are due.
    delayed: BTreeSet<(Duration, JobId)>,
    /// When inputs are to be asked.
    ask_inputs_at: Option<Duration>,
    calls: HashMap<CallId, HashSet<JobId>>,
    last_job: JobId,
    sessions: HashMap<u64, Session>,
    last_key: u64,
    by_agent: HashMap<AgentId, u64>,
    /// The last session of each agent that was given up.
    refused: HashMap<AgentId, u32>,
    /// The machines of sessions that were given up, and with which something may be lost yet.
    lost_machines: HashMap<u64, String>,
    /// Publishes that were not acknowledged, and since when.
    publishes: HashMap<DeliveryId, Duration>,
    /// Publishing waits until then, since the queue is full.
    full_until: Duration,
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    is_closing: bool,
    is_joined: bool,
    is_over: bool,
    last_tick: Duration,
    other_builds: Vec<String>,
    /// Where it is said that the pool is ready, or why there is none.
    ready: Option<Ready>,
    /// What the server has refused last.
    refusal: Option<String>,
    /// The queue was made anew, and agents do not know it.
    is_queue_new: bool,
    /// When it was asked last whether there are agents of other builds, since there is none.
    others_asked: Duration,
    asks_others: bool,
    /// Agents for any program are to be told of this one.
    says_program: bool,
    /// The server was this pool's own, and has ended like this.
    server_end: Option<String>,
    gatherings: Gatherings,
    printer: Option<Printer>,
}

/// Tells who builds a pool.
pub(crate) type Ready = std::sync::mpsc::Sender<Result<(), String>>;

/// Says that an item's reader may have made room.
struct RoomWaker {
    job: JobId,
    commands: UnboundedSender<Command>,
}

impl Wake for RoomWaker {
    fn wake(self: Arc<Self>) {
        // Without a thread there is nobody to tell.
        let _ = self.commands.send(Command::Room(self.job));
    }
}

/// The subscriptions of a client.
pub(crate) struct Subscriptions {
    answers: Subscriber,
    frames: Subscriber,
    hellos: Subscriber,
    /// Whether programs are published, where this one is.
    which: Option<Subscriber>,
}

impl Client {
    pub(crate) async fn new(
        connection: Connection,
        answers: Subscriber,
        settings: Settings,
        shared: Arc<Shared>,
        commands: UnboundedSender<Command>,
        ready: Ready,
    ) -> Result<(Self, Subscriptions), String> {
        let id = clock::draw_number();
        let subjects = Subjects::of_this_build();
        let client = connection.client();
        let gone = |error: async_nats::SubscribeError| format!("the server is gone: {error}");
        let frames = client.subscribe(subjects.for_client(id)).await;
        let hellos = client.subscribe(subjects.hello()).await;
        let which = match settings.program {
            Some(_) => Some(client.subscribe(ASK_PROGRAMS).await.map_err(gone)?),
            None => None,
        };
        let subscriptions = Subscriptions {
            answers,
            frames: frames.map_err(gone)?,
            hellos: hellos.map_err(gone)?,
            which,
        };
        let printer = Printer::new(settings.stdout.clone(), settings.stderr.clone());
        let client = Self {
            id,
            subjects,
            settings,
            connection,
            connections: 0,
            down_since: None,
            stranded_since: None,
            alone_since: None,
            is_queue_made: false,
            makes_queue: false,
            dispatcher: Dispatcher::new(),
            jobs: HashMap::new(),
            deadlines: BTreeSet::new(),
            delayed: BTreeSet::new(),
            ask_inputs_at: None,
            calls: HashMap::new(),
            last_job: 0,
            sessions: HashMap::new(),
            last_key: 0,
            by_agent: HashMap::new(),
            refused: HashMap::new(),
            lost_machines: HashMap::new(),
            publishes: HashMap::new(),
            full_until: Duration::ZERO,
            shared,
            commands,
            is_closing: false,
            is_joined: false,
            is_over: false,
            last_tick: clock::now(),
            other_builds: Vec::new(),
            ready: Some(ready),
            refusal: None,
            is_queue_new: false,
            others_asked: Duration::ZERO,
            asks_others: false,
            says_program: true,
            server_end: None,
            gatherings: Gatherings::default(),
            printer,
        };
        Ok((client, subscriptions))
    }

    /// The thread's life: until the pool is terminated, or closed and done.
    pub(crate) async fn run(
        mut self,
        mut subscriptions: Subscriptions,
        mut commands: UnboundedReceiver<Command>,
    ) {
        self.make_queue();
        self.look_for_agents(false).await;
        while !self.is_over {
            let wake = self.next_wake();
            let Subscriptions {
                answers,
                frames,
                hellos,
                which,
            } = &mut subscriptions;
            tokio::select! {
                biased;
                Some(command) = commands.recv() => {
                    self.notice_connection().await;
                    self.obey(command);
                    // Many at once are dispatched together.
                    while let Ok(command) = commands.try_recv() {
                        self.obey(command);
                    }
                }
                Some(message) = frames.next() => {
                    self.notice_connection().await;
                    self.frame(&message).await;
                }
                Some(message) = answers.next() => {
                    self.notice_connection().await;
                    self.answer(&message);
                }
                Some(message) = hellos.next() => self.hello(&message).await,
                Some(_) = next_of(which) => self.says_program = true,
                event = self.connection.event() => self.event(event),
                () = sleep_until(wake) => {}
            }
            self.notice_connection().await;
            if std::mem::take(&mut self.is_queue_new) {
                self.look_for_agents(true).await;
            }
            self.tick();
            if std::mem::take(&mut self.asks_others) {
                let other = Subjects::other().to_owned();
                self.connection.request(other, "o", Vec::new()).await;
            }
            if std::mem::take(&mut self.says_program)
                && let Some(manifest) = &self.settings.program
            {
                self.connection
                    .send(PROGRAM.to_owned(), manifest.to_bytes())
                    .await;
            }
            self.act().await;
            self.shared.ask_inputs(false);
            // What is tried again is a command first.
            self.is_over |= self.is_closing && self.jobs.is_empty() && commands.is_empty();
        }
        self.leave().await;
        commands.close();
        while let Ok(command) = commands.try_recv() {
            if let Command::Submit { completion, .. } = command {
                completion.finish(&terminated());
            }
        }
    }

    /// When there is something to do though nothing has happened.
    fn next_wake(&self) -> Option<Duration> {
        let busy = !self.jobs.is_empty();
        let now = clock::now();
        let tick = busy.then(|| now + ASK_EVERY / 2);
        let links = self.sessions.values().filter_map(|it| it.link.next_timer());
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let due = self.delayed.first().map(|(at, _)| *at);
        let left = self.sessions.values().filter_map(|it| it.left_at);
        let left = left.map(|at| at + HEARS_LEFT).min();
        let times = tick.into_iter().chain(links).chain(deadline).chain(left);
        times
            .chain(due)
            .chain(self.ask_inputs_at)
            .chain(self.gatherings.next_expiry())
            .min()
    }

    fn make_queue(&mut self) {
        if std::mem::replace(&mut self.makes_queue, true) {
            return;
        }
        let client = self.connection.client().clone();
        let (subjects, in_file) = (self.subjects.clone(), self.settings.in_file);
        let (commands, connection) = (self.commands.clone(), self.connections);
        tokio::task::spawn_local(async move {
            let made = make_queue(client, subjects, in_file).await;
            let _ = commands.send(Command::Made { connection, made });
        });
    }

    /// Puts this program into the server's store again, if that has forgotten it.
    fn publish_program(&self) {
        if let Some(manifest) = self.settings.program.clone() {
            let (client, commands) = (self.connection.client().clone(), self.commands.clone());
            tokio::task::spawn_local(async move {
                // Without a thread there is nobody to tell.
                let _ = commands.send(Command::Published(publish(client, manifest).await));
            });
        }
    }

    /// Asks who is there. `is_new`: the queue has forgotten what agents have asked it for.
    async fn look_for_agents(&mut self, is_new: bool) {
        let mut question = self.id.to_le_bytes().to_vec();
        question.push(u8::from(is_new));
        self.connection.send(self.subjects.who(), question).await;
    }

    /// What is to be done first in a new connection.
    async fn notice_connection(&mut self) {
        if !self.connection.is_new() {
            return;
        }
        self.connections += 1;
        self.down_since = None;
        self.is_queue_made = false;
        self.publishes.clear();
        self.dispatcher.reconnected();
        self.agents_changed();
        for session in self.sessions.values_mut() {
            session.link.reconnected();
            // Nobody could answer meanwhile.
            session.link.forget_asking();
        }
        self.make_queue();
        self.publish_program();
        self.look_for_agents(false).await;
    }

    fn event(&mut self, event: Option<Event>) {
        match event {
            // If there is another one already, this is old news, and must not stop anything.
            Some(Event::Disconnected) if !self.connection.is_up() => {
                self.dispatcher.disconnected();
                self.down_since.get_or_insert_with(clock::now);
            }
            Some(Event::ServerError(error)) => {
                let text = error.to_string();
                if text.to_lowercase().contains("permissions violation") {
                    let url = &self.settings.url;
                    let text = format!("the NATS server at {url} does not permit it: {text}");
                    self.refuse(&text);
                }
            }
            _ => {}
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit { chunk, completion } => self.submit(chunk, completion),
            Command::Cancel { call, kill } => self.cancel(call, kill),
            Command::Room(job) => self.emit(job),
            // The server that has said it is gone.
            Command::Made { connection, .. } if connection != self.connections => {
                self.makes_queue = false;
                self.make_queue();
            }
            Command::Made {
                made: Ok(is_new), ..
            } => {
                // The server has said by now what it does not permit.
                while let Some(event) = self.connection.said() {
                    self.event(Some(event));
                }
                self.makes_queue = false;
                self.is_queue_made = true;
                self.is_queue_new |= is_new;
                self.dispatcher.has_queue();
                if let Some(ready) = self.ready.take() {
                    // Who has built the pool waits for that.
                    let _ = ready.send(Ok(()));
                }
            }
            Command::Made {
                made: Err(text), ..
            } => {
                self.makes_queue = false;
                // Otherwise it is made in the next connection.
                if self.connection.is_up() {
                    let url = &self.settings.url;
                    self.refuse(&format!("at the NATS server {url}, {text}"));
                }
            }
            Command::Published(Ok(())) => self.says_program = true,
            Command::Published(Err(text)) => self.refusal = Some(text),
            Command::Dump(sender) => self.gather(Gathered::Dump(Dump::default(), sender)),
            Command::Stats(sender) => {
                let stats = self.shared.stats(self.dispatcher.waiting());
                self.gather(Gathered::Stats(Box::new(stats), sender));
            }
            Command::AskInputs => {
                self.ask_inputs_at = Some(clock::now() + ASK_INPUTS_AFTER);
            }
            Command::Close => self.is_closing = true,
            Command::Join => {
                self.is_joined = true;
                for job in self.jobs.values().filter(|it| it.emits) {
                    job.completion.keep_unread();
                }
            }
            Command::Terminate => {
                self.finish_all(&terminated());
                self.is_over = true;
            }
            Command::ServerEnded(status) => {
                self.server_end = Some(format!(
                    "the NATS server that this pool has started has ended ({status}), and its \
                     queue with it: build another pool"
                ));
            }
            Command::Died { pid } => {
                let keys: Vec<u64> = self
                    .sessions
                    .iter()
                    .filter(|(_, it)| it.card.as_ref().is_some_and(|card| card.pid == pid))
                    .map(|(key, _)| *key)
                    .collect();
                for key in keys {
                    self.give_up(key);
                }
            }
        }
    }

    fn submit(&mut self, chunk: EncodedChunk, completion: Completion) {
        self.last_job += 1;
        let (job, call) = (self.last_job, completion.call());
        let items = completion.indices();
        if completion.is_abandoned() {
            self.shared.chunk_ended();
            completion.finish(&cancelled());
            return;
        }
        let options = chunk.options();
        let due = (!options.delay.is_zero()).then(|| clock::now() + options.delay);
        if self.is_joined && options.emits.is_some() {
            completion.keep_unread();
        }
        self.calls.entry(call).or_default().insert(job);
        let deadline = options.deadline.map(|left| clock::now() + left);
        if let Some(at) = deadline {
            self.deadlines.insert((at, job));
        }
        let it = Job {
            call,
            deadline,
            due,
            emits: options.emits.is_some(),
            chunk,
            left: items.len(),
            completion,
            values: Default::default(),
            last: None,
        };
        self.jobs.insert(job, it);
        match due {
            None => self.dispatch(job),
            Some(at) => {
                self.delayed.insert((at, job));
                // It keeps no worker.
                self.shared.chunk_ended();
            }
        }
    }

    fn dispatch(&mut self, job: JobId) {
        let Some(it) = self.jobs.get(&job) else {
            return;
        };
        let options = it.chunk.options();
        let terms = Terms {
            function: it.chunk.function().map_or(0, |it| it.number()),
            priority: options.priority,
            retries: options.retries,
            bytes: it.chunk.size(),
        };
        self.dispatcher.submit(job, it.completion.indices(), terms);
    }

    /// The job is not delayed any more. Says whether it was.
    fn undelay(&mut self, job: JobId) -> bool {
        let due = self.jobs.get_mut(&job).and_then(|it| it.due.take());
        let Some(at) = due else {
            return false;
        };
        self.delayed.remove(&(at, job));
        self.shared.chunk_begins();
        true
    }

    /// What of the job has not begun gets this error. What has begun goes on.
    fn withdraw(&mut self, job: JobId, error: &TaskError) {
        if self.undelay(job) {
            let items = self.jobs[&job].completion.indices();
            return self.fail(job, items, error);
        }
        for items in self.dispatcher.withdraw(job) {
            self.fail(job, items, error);
        }
    }

    fn cancel(&mut self, call: CallId, kill: bool) {
        for job in self.calls.get(&call).cloned().unwrap_or_default() {
            self.withdraw(job, &cancelled());
            for items in self.dispatcher.cancel(job, kill) {
                self.fail(job, items, &cancelled());
            }
        }
    }

    /// These items end with this error.
    fn fail(&mut self, job: JobId, items: std::ops::Range<usize>, error: &TaskError) {
        let batch = OutcomeBatch::failed(items, error.clone());
        self.deliver(job, Outcomes::Batch(batch));
    }

    fn deliver(&mut self, job: JobId, outcomes: Outcomes) {
        let Some(it) = self.jobs.get_mut(&job) else {
            return;
        };
        if !it.values.is_empty() {
            // Behind what its item has emitted.
            it.last = Some(outcomes);
            return;
        }
        let count = match &outcomes {
            Outcomes::Batch(batch) => batch.indices().len(),
            Outcomes::One(..) => 1,
        };
        it.left -= count.min(it.left);
        let is_through = it.left == 0;
        // What has an outcome is refused: the dispatcher lets no second one through.
        let _ = match outcomes {
            Outcomes::Batch(batch) => it.completion.complete_batch(batch),
            Outcomes::One(index, outcome) => it.completion.complete(index, outcome),
        };
        if is_through {
            self.forget(job);
        }
    }

    fn forget(&mut self, job: JobId) {
        let removed = self.jobs.remove(&job);
        if removed.is_some() {
            self.shared.chunk_ended();
        }
        if let Some(at) = removed.as_ref().and_then(|it| it.deadline) {
            self.deadlines.remove(&(at, job));
        }
        if let Some(it) = removed
            && let Some(jobs) = self.calls.get_mut(&it.call)
        {
            jobs.remove(&job);
            if jobs.is_empty() {
                self.calls.remove(&it.call);
            }
        }
        self.dispatcher.forget(job);
    }

    /// The server does not do what this needs.
    fn refuse(&mut self, text: &str) {
        match self.ready.take() {
            Some(ready) => {
                // Who has built the pool gets none.
                let _ = ready.send(Err(text.to_owned()));
                self.is_over = true;
            }
            None => self.fail_all(text),
        }
        self.refusal = Some(text.to_owned());
    }

    /// Whatever has no outcome fails so.
    fn fail_all(&mut self, text: &str) {
        let error = TaskError::other(TaskErrorKind::Launch, text);
        self.finish_all(&error);
    }

    fn finish_all(&mut self, error: &TaskError) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for job in jobs {
            self.undelay(job);
            if let Some(it) = self.jobs.remove(&job) {
                self.shared.chunk_ended();
                it.completion.finish(error);
            }
            self.dispatcher.forget(job);
        }
        self.calls.clear();
        self.deadlines.clear();
    }

    /// Gives emitted values to their reader, as far as there is room.
    fn emit(&mut self, job: JobId) {
        let waker = Waker::from(Arc::new(RoomWaker {
            job,
            commands: self.commands.clone(),
        }));
        let mut context = Context::from_waker(&waker);
        let Some(it) = self.jobs.get_mut(&job) else {
            return;
        };
        while !it.values.is_empty() && it.completion.poll_room(&mut context).is_ready() {
            let Some((piece, value)) = it.values.pop_front() else {
                break;
            };
            // Otherwise nobody wants it.
            let _ = it.completion.emit(value);
            if let Some(key) = self.dispatcher.agent_of(piece)
                && let Some(session) = self.sessions.get_mut(&key)
            {
                let room = ToAgent::Room { piece, values: 1 };
                session.link.send(Lane::Control, to_bytes(&room));
            }
        }
        if it.values.is_empty()
            && let Some(outcomes) = it.last.take()
        {
            self.deliver(job, outcomes);
        }
    }

    /// A frame of an agent's.
    async fn frame(&mut self, message: &Message) {
        let Some(agent) = last_number(&message.subject) else {
            return;
        };
        let Some(Envelope::Frame(frame)) = Envelope::open(&message.payload) else {
            return;
        };
        let Some(number) = session_of(frame) else {
            return;
        };
        let known = self.by_agent.get(&agent).copied();
        let current = known.map(|key| self.sessions[&key].number);
        let is_refused = (self.refused.get(&agent)).is_some_and(|last| number <= *last)
            || current.is_some_and(|current| number < current);
        if is_refused {
            let gone = Envelope::gone(number);
            let subject = self.subjects.to_agent(agent, self.id);
            return self.connection.send(subject, gone).await;
        }
        let key = match known {
            Some(key) if current == Some(number) => key,
            other => {
                if let Some(old) = other {
                    // It has begun anew: of the old session it says nothing more.
                    self.give_up(old);
                }
                self.open(agent, number)
            }
        };
        let now = clock::now();
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        if session.link.receive(frame, now).is_err() {
            return self.give_up(key);
        }
        if self.dispatcher.reachable(key) {
            self.agents_changed();
        }
        while let Some(message) = self
            .sessions
            .get_mut(&key)
            .and_then(|it| it.link.poll_message())
        {
            match from_bytes::<ToClient>(&message) {
                Some(message) => self.hear(key, message),
                None => return self.give_up(key),
            }
        }
    }

    fn open(&mut self, agent: AgentId, number: u32) -> u64 {
        self.last_key += 1;
        let key = self.last_key;
        let session = Session {
            agent,
            number,
            link: Link::new(number, self.limits()),
            card: None,
            asked: Duration::ZERO,
            contents: HashMap::new(),
            is_leaving: false,
            left_at: None,
            outbox: Outbox::default(),
        };
        self.sessions.insert(key, session);
        self.by_agent.insert(agent, key);
        key
    }

    fn limits(&self) -> Limits {
        limits(self.connection.max_payload())
    }

    /// An agent is no more, or says nothing.
    fn give_up(&mut self, key: u64) {
        let Some(session) = self.sessions.remove(&key) else {
            return;
        };
        self.gatherings.forget(key);
        self.by_agent.remove(&session.agent);
        self.refused.insert(session.agent, session.number);
        self.dispatcher.given_up(key, session.link.has_gap());
        self.lost_machines.insert(key, session.machine().to_owned());
        self.lose();
        self.lost_machines
            .retain(|key, _| self.dispatcher.doubts(*key));
        self.agents_changed();
    }

    /// Hands out what the dispatcher says is lost with an agent.
    fn lose(&mut self) {
        while let Some(Loss {
            agent,
            job,
            items,
            attempts,
        }) = self.dispatcher.poll_loss()
        {
            let mut error = TaskError::other(
                TaskErrorKind::WorkerLost,
                "the agent that ran it was lost: it has died, or nothing was heard of it",
            );
            if let Some(machine) = self.lost_machines.get(&agent) {
                error = error.with_machine(machine);
            }
            let losses = attempts.saturating_sub(1);
            for index in items {
                let lost = Outcome::from(error.clone()).with_losses(losses);
                self.deliver(job, Outcomes::One(index, lost));
            }
        }
    }

    fn agents_changed(&self) {
        let agents = self
            .sessions
            .iter()
            .filter(|(key, _)| !self.dispatcher.is_unreachable(**key))
            .filter_map(|(_, it)| {
                let card = it.card.as_ref()?;
                Some(AgentInfo {
                    machine: card.machine.clone(),
                    pid: card.pid,
                    processes: card.slots as usize,
                    up: card.up,
                    is_leaving: it.is_leaving,
                })
            })
            .collect();
        self.shared.set_agents(agents, self.dispatcher.slots());
    }

    fn say(&mut self, key: u64, lane: Lane, message: &ToAgent) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.link.send(lane, to_bytes(message));
        }
    }

    /// What an agent says.
    fn hear(&mut self, key: u64, message: ToClient) {
        match message {
            ToClient::Hello { card, connection } => self.welcome(key, card, connection),
            ToClient::Sync { connection } => {
                let epoch = self.dispatcher.epoch();
                self.say(key, Lane::Control, &ToAgent::Synced { epoch, connection });
            }
            ToClient::Kept(epoch) => self.dispatcher.kept(key, epoch),
            ToClient::Ask { delivery, time } => {
                let is_granted = self.dispatcher.asked(key, delivery, time);
                let verdict = ToAgent::Verdict {
                    delivery,
                    is_granted,
                };
                self.say(key, Lane::Control, &verdict);
            }
            ToClient::Begun { delivery } => {
                if !self.dispatcher.begun(key, delivery) {
                    let verdict = ToAgent::Verdict {
                        delivery,
                        is_granted: false,
                    };
                    self.say(key, Lane::Control, &verdict);
                }
            }
            ToClient::Returned { delivery } => self.dispatcher.refused(delivery),
            ToClient::Fetch { piece } => {
                if let Some(chunk) = self.encode(piece)
                    && let Some(session) = self.sessions.get_mut(&key)
                {
                    session.outbox.add_body(piece, chunk.0);
                }
            }
            ToClient::Need { piece, contents } => self.provide(key, piece, &contents),
            ToClient::Outcomes { piece, batch } => self.outcomes(key, piece, batch),
            ToClient::Failed { piece, error } => {
                if let Some((job, ranges)) = self.dispatcher.failed(key, piece) {
                    for items in ranges {
                        self.fail(job, items, &error);
                    }
                }
            }
            ToClient::Value { piece, value } => {
                let value = self.with_contents(key, piece, value);
                if let Some(job) = self.dispatcher.emitted(key, piece)
                    && let Some(it) = self.jobs.get_mut(&job)
                {
                    it.values.push_back((piece, value));
                    self.emit(job);
                }
            }
            ToClient::Content { id, bytes } => {
                if let Ok(content) = BroadcastContent::new(&bytes.0)
                    && content.id() == id
                    && let Some(session) = self.sessions.get_mut(&key)
                {
                    session.contents.insert(id, content);
                }
            }
            ToClient::Leaving => {
                self.dispatcher.leaving(key);
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.is_leaving = true;
                }
                self.agents_changed();
            }
            ToClient::Left => {
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.left_at = Some(clock::now());
                }
                self.gatherings.forget(key);
            }
            ToClient::Lines(lines) => {
                if let Some(printer) = &mut self.printer {
                    let lost: u64 = lines.into_iter().map(|line| printer.print(line)).sum();
                    self.shared.lock().lines_dropped += lost;
                }
            }
            ToClient::Dump { ticket, dump } => {
                self.gatherings.add_dump(ticket, key, dump);
            }
            ToClient::Stats { ticket, stats } => {
                self.gatherings.add_stats(ticket, key, stats);
            }
        }
    }

    /// Asks all agents that can be reached.
    fn gather(&mut self, so_far: Gathered) {
        let dump = matches!(so_far, Gathered::Dump(..));
        let sessions = self.sessions.iter().filter(|(key, session)| {
            let is_there = session.card.is_some() && session.left_at.is_none();
            is_there && !self.dispatcher.is_unreachable(**key)
        });
        let asked: HashSet<u64> = sessions.map(|(key, _)| *key).collect();
        let until = clock::now() + GATHER_LIMIT;
        let ticket = self.gatherings.begin(so_far, asked.clone(), until);
        for key in asked {
            self.say(key, Lane::Control, &ToAgent::Report { ticket, dump });
        }
    }

    fn welcome(&mut self, key: u64, card: AgentCard, connection: u64) {
        let slots = card.slots.max(1) as usize;
        if let Some(session) = self.sessions.get_mut(&key) {
            if session.card.is_some() {
                return;
            }
            session.card = Some(card);
        }
        let welcome = ToAgent::Welcome {
            epoch: self.dispatcher.epoch(),
            connection,
            options: Blob(self.settings.options.clone()),
            stdout: printed(&self.settings.stdout),
            stderr: printed(&self.settings.stderr),
        };
        self.say(key, Lane::Control, &welcome);
        self.dispatcher.joined(key, slots);
        self.agents_changed();
    }

    /// The values that an agent needs for a piece.
    fn provide(&mut self, key: u64, piece: PieceId, ids: &[procpool_core::ContentId]) {
        let of_job = self
            .dispatcher
            .piece(piece)
            .and_then(|it| self.jobs.get(&it.0))
            .map(|it| it.chunk.contents())
            .unwrap_or_default();
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        for id in ids {
            let mut all = of_job.iter().chain(&self.settings.contents);
            match all.find(|it| it.id() == *id) {
                Some(content) => session.outbox.add_content(content),
                None => {
                    let message = to_bytes(&ToAgent::NoContent(*id));
                    session.link.send(Lane::Data, message);
                }
            }
        }
    }

    /// The outcome with the values that came before it.
    fn with_contents(&self, key: u64, piece: PieceId, mut outcome: Outcome) -> Outcome {
        let job = self.dispatcher.piece(piece).map(|it| it.0);
        let completion = job.and_then(|job| Some(&self.jobs.get(&job)?.completion));
        if let (Some(completion), Some(session)) = (completion, self.sessions.get(&key)) {
            for id in completion.missing(&outcome) {
                if let Some(content) = session.contents.get(&id) {
                    outcome.provide(content);
                }
            }
        }
        outcome
    }

    fn outcomes(&mut self, key: u64, piece: PieceId, mut batch: OutcomeBatch) {
        let job = self.dispatcher.piece(piece).map(|it| it.0);
        let completion = job.and_then(|job| Some(&self.jobs.get(&job)?.completion));
        if let Some(session) = self.sessions.get_mut(&key) {
            let missing = completion.map(|it| it.missing_in(&batch));
            for id in missing.into_iter().flatten() {
                if let Some(content) = session.contents.get(&id) {
                    batch.provide(content);
                }
            }
            // Also those of a call that nobody waits for any more.
            session.contents.clear();
        }
        let count = batch.indices().len();
        let took = u64::try_from(batch.took().as_nanos()).unwrap_or(u64::MAX) / count as u64;
        if batch.errors().next().is_none()
            && let Some((job, losses)) = self.dispatcher.outcomes(key, piece, batch.indices(), took)
        {
            if losses == 0 {
                return self.deliver(job, Outcomes::Batch(batch));
            }
            for (index, outcome) in batch.into_each() {
                self.deliver(job, Outcomes::One(index, outcome.with_losses(losses)));
            }
            return;
        }
        for (index, outcome) in batch.into_each() {
            let may_retry = outcome.error().is_some_and(|it| it.kind().is_retried());
            match self.dispatcher.outcome(key, piece, index, may_retry, took) {
                Verdict::Deliver { job, losses } => {
                    self.deliver(job, Outcomes::One(index, outcome.with_losses(losses)));
                }
                Verdict::Retry | Verdict::Drop => {}
            }
        }
    }

    /// A piece as it travels.
    fn encode(&self, piece: PieceId) -> Option<Blob> {
        let (job, items, ..) = self.dispatcher.piece(piece)?;
        let chunk = &self.jobs.get(&job)?.chunk;
        let part = if items.len() == chunk.count() {
            chunk.clone()
        } else {
            chunk.part(items)
        };
        Some(Blob(part.with_retries(0).without_delay().to_bytes()))
    }

    /// An answer of the server's.
    fn answer(&mut self, message: &Message) {
        let Some(token) = self.connection.token(message) else {
            return;
        };
        if token == "o" {
            // An agent, of whatever build.
            if let Ok(build) = std::str::from_utf8(&message.payload)
                && message.status.is_none()
                && build != self.subjects.build()
                && build.len() <= 64
                && self.other_builds.len() < 8
                && build.bytes().all(|it| it.is_ascii_alphanumeric())
                && !self.other_builds.iter().any(|it| it == build)
            {
                self.other_builds.push(build.to_owned());
            }
            return;
        }
        let number = token.get(1..).and_then(|it| it.parse::<u64>().ok());
        match (token.as_bytes().first(), number) {
            // An agent was asked, and is not there.
            (Some(b'a'), Some(key)) if is_unheard(message) => {
                if self.dispatcher.unreachable(key) {
                    self.agents_changed();
                }
                // Nothing is lost for good: it may live.
                self.gatherings.forget(key);
            }
            (Some(b'd'), Some(delivery)) => {
                if self.publishes.remove(&delivery).is_none() {
                    return;
                }
                if is_unheard(message) {
                    // There is no queue, and nothing in it.
                    self.dispatcher.reconnected();
                    self.agents_changed();
                    self.make_queue();
                } else if let Some(error) = PublishError::of(&message.payload) {
                    if error.is_full {
                        self.full_until = clock::now() + ASK_EVERY;
                        self.dispatcher.refused(delivery);
                    } else {
                        self.fail_all(&format!("the queue refuses it: {}", error.text));
                    }
                }
            }
            _ => {}
        }
    }

    /// An agent says that it is there.
    async fn hello(&mut self, message: &Message) {
        let Ok(bytes) = <[u8; 8]>::try_from(&message.payload[..]) else {
            return;
        };
        let agent = u64::from_le_bytes(bytes);
        if !self.by_agent.contains_key(&agent) {
            let subject = self.subjects.to_agent(agent, self.id);
            self.connection.send(subject, Envelope::knock()).await;
        }
    }

    /// What time brings.
    fn tick(&mut self) {
        let now = clock::now();
        // This process was stopped, or had no processor: agents have not been asked meanwhile.
        let has_slept = now.saturating_sub(self.last_tick) > GIVE_UP / 6;
        self.last_tick = now;
        while let Some((at, job)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            let text = "the deadline of the call came before it could begin";
            let error = TaskError::other(TaskErrorKind::DeadlineExceeded, text);
            self.withdraw(job, &error);
        }
        while let Some((at, job)) = self.delayed.first().copied()
            && at <= now
        {
            self.undelay(job);
            self.dispatch(job);
        }
        if self.ask_inputs_at.is_some_and(|at| at <= now) {
            self.ask_inputs_at = None;
            self.shared.ask_inputs(true);
        }
        self.gatherings.expire(now);
        let late = self.publishes.values().any(|at| now > *at + PUBLISH_LIMIT);
        if late && self.connection.is_up() {
            self.publishes.clear();
            self.dispatcher.raise();
        }
        let up = self.connection.is_up();
        if !up {
            self.down_since.get_or_insert(now);
        }
        let mut lost = Vec::new();
        for (key, session) in &mut self.sessions {
            // What was said to it and is not acknowledged is a reason, too.
            let is_watched = self.dispatcher.watches(*key) || session.link.backlog() > 0;
            // Nobody has heard what was answered meanwhile, or nobody has asked again.
            if has_slept || !is_watched {
                session.link.forget_asking();
            }
            if is_watched && up && now >= session.asked + ASK_EVERY {
                session.asked = now;
                session.link.ask();
            }
            let silent = session.link.asked_since();
            let is_silent = silent.is_some_and(|since| now > since + GIVE_UP);
            let has_left = session.left_at.is_some_and(|at| now >= at + HEARS_LEFT);
            if has_left || is_watched && up && is_silent {
                lost.push(*key);
            }
        }
        for key in lost {
            self.give_up(key);
        }
        let waits = !self.jobs.is_empty();
        if !waits || self.dispatcher.slots() > 0 {
            self.alone_since = None;
        } else {
            if self.alone_since.is_none() {
                self.other_builds.clear();
                self.others_asked = Duration::ZERO;
            }
            let since = *self.alone_since.get_or_insert(now);
            // Those, too, come at any time.
            if now > self.others_asked + self.settings.agents_timeout / 4 {
                self.others_asked = now;
                self.asks_others = true;
                self.says_program = true;
            }
            if now > since + self.settings.agents_timeout && self.down_since.is_none() {
                self.alone_since = None;
                let mut others = match &self.other_builds[..] {
                    [] => String::new(),
                    builds => format!("; there are agents of other builds: {}", builds.join(", ")),
                };
                if let Some(refusal) = &self.refusal {
                    others = format!("{others}; {refusal}");
                }
                self.fail_all(&format!(
                    "there was no agent for build {} at {} in {:?}: start this very executable \
                     with PROCPOOL_AGENT={} on some machine{others}",
                    self.subjects.build(),
                    self.settings.url,
                    self.settings.agents_timeout,
                    self.settings.url,
                ));
            }
        }
        if up || !waits {
            self.stranded_since = None;
        } else if let Some(end) = &self.server_end {
            let end = end.clone();
            self.fail_all(&end);
        } else if now > *self.stranded_since.get_or_insert(now) + self.settings.server_timeout {
            self.stranded_since = None;
            self.fail_all(&format!(
                "there was no connection to the NATS server at {} for {:?}",
                self.settings.url, self.settings.server_timeout
            ));
        }
    }

    /// Does what the dispatcher says, and sends what the links have.
    async fn act(&mut self) {
        if !self.connection.is_up() {
            return;
        }
        let may_publish = self.is_queue_made && clock::now() >= self.full_until;
        while let Some(action) = self.dispatcher.poll_action(may_publish) {
            match action {
                Action::Publish {
                    delivery,
                    epoch,
                    pieces,
                } => self.publish(delivery, epoch, &pieces).await,
                Action::TellEpoch { agent, epoch } => {
                    self.say(agent, Lane::Control, &ToAgent::Epoch(epoch));
                }
                Action::Recall { agent, piece } => {
                    self.say(agent, Lane::Control, &ToAgent::Recall { piece });
                }
                Action::Cancel { agent, piece, kill } => {
                    self.say(agent, Lane::Control, &ToAgent::Cancel { piece, kill });
                }
            }
        }
        self.lose();
        let now = clock::now();
        for (key, session) in &mut self.sessions {
            session.outbox.feed(&mut session.link);
            while let Some(frame) = session.link.poll_frame(now) {
                let subject = self.subjects.to_agent(session.agent, self.id);
                let token = format!("a{key}");
                let frame = Envelope::frame(&frame);
                self.connection.request(subject, &token, frame).await;
            }
        }
    }

    async fn publish(&mut self, delivery: DeliveryId, epoch: u64, pieces: &[PieceId]) {
        let most = INLINE.min(self.connection.max_payload() / 2);
        let mut bytes = 0;
        let mut sent = Vec::with_capacity(pieces.len());
        for id in pieces {
            let Some((_, _, attempt, retries)) = self.dispatcher.piece(*id) else {
                continue;
            };
            let Some(chunk) = self.encode(*id) else {
                continue;
            };
            bytes += chunk.0.len() + 64;
            sent.push(Piece {
                id: *id,
                is_last_attempt: attempt >= retries,
                chunk: (bytes <= most).then_some(chunk),
            });
        }
        let message = to_bytes(&Delivery {
            id: delivery,
            epoch,
            pieces: sent,
        });
        self.publishes.insert(delivery, clock::now());
        let token = format!("d{delivery}");
        let id = format!("{:016x}.{delivery}", self.id);
        let subject = self.subjects.work(self.id);
        self.connection.enqueue(subject, &token, &id, message).await;
    }

    /// Says goodbye.
    async fn leave(&mut self) {
        let error = TaskError::other(TaskErrorKind::Closed, "the pool is closed");
        self.finish_all(&error);
        if self.connection.is_up() {
            let now = clock::now();
            for session in self.sessions.values_mut() {
                session.link.send(Lane::Control, to_bytes(&ToAgent::Bye));
                while let Some(frame) = session.link.poll_frame(now) {
                    let subject = self.subjects.to_agent(session.agent, self.id);
                    let frame = Envelope::frame(&frame);
                    self.connection.send(subject, frame).await;
                }
                let subject = self.subjects.to_agent(session.agent, self.id);
                self.connection.send(subject, Envelope::bye()).await;
            }
            self.connection.flush(Duration::from_millis(500)).await;
        }
    }
}

fn printed(output: &Output) -> Printed {
    if output.wants_lines() {
        Printed::Sent
    } else if output.is_discarded() {
        Printed::Discarded
    } else {
        Printed::Inherited
    }
}

/// What a link may put into a message of this size.
pub(crate) fn limits(max_payload: usize) -> Limits {
    let room = max_payload.saturating_sub(OVERHEAD + 16);
    Limits {
        frame: room.min(256 * 1024),
        window: 8 << 20,
        message: MESSAGE,
    }
}

fn terminated() -> TaskError {
    TaskError::other(TaskErrorKind::Cancelled, "the pool was terminated")
}

fn cancelled() -> TaskError {
    TaskError::other(TaskErrorKind::Cancelled, "the task was cancelled")
}

/// The queue does not take a delivery.
struct PublishError {
    is_full: bool,
    text: String,
}

impl PublishError {
    fn of(answer: &[u8]) -> Option<Self> {
        let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
        let error = answer.get("error")?;
        let text = error.get("description").and_then(|it| it.as_str());
        let text = text.unwrap_or("it does not say why").to_owned();
        Some(Self {
            is_full: text.contains("maximum"),
            text,
        })
    }
}

/// The next message of a subscription, if there is one.
async fn next_of(subscription: &mut Option<Subscriber>) -> Option<Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => None,
    }
}

pub(crate) async fn sleep_until(when: Option<Duration>) {
    match when {
        None => std::future::pending().await,
        Some(when) => tokio::time::sleep(when.saturating_sub(clock::now())).await,
    }
}
