//! The client: a thread that has the connection, and does what the dispatcher says.

mod command;
mod envelope;
mod gathering;
mod job;
mod jobs;
mod outbox;
mod printer;
mod publishing;
mod session;
mod sessions;
mod settings;
mod shared;
mod timeouts;

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use async_nats::{Event, Message, Subscriber};
use futures_util::StreamExt;
use procpool_core::{
    BroadcastContent, CallId, Completion, Dump, EncodedChunk, Outcome, OutcomeBatch, TaskError,
    TaskErrorKind,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

pub(crate) use self::command::Command;
pub(crate) use self::envelope::Envelope;
use self::gathering::{Gathered, Gatherings};
use self::job::{Job, Outcomes};
use self::jobs::Jobs;
use self::printer::Printer;
use self::publishing::{PublishError, Publishing};
use self::sessions::{ASK_EVERY, Belongs, Key, Sessions};
pub(crate) use self::settings::Settings;
pub(crate) use self::shared::{Shared, THREAD};
use self::timeouts::{Situation, Timeouts};
use crate::clock::{self, sleep_until};
use crate::dispatcher::{Action, Dispatcher, JobId, Loss, Verdict};
use crate::link::{Lane, Limits, session_of};
use crate::message::{
    AgentCard, Blob, ClientId, Delivery, DeliveryId, Piece, PieceId, ToAgent, ToClient, from_bytes,
    to_bytes,
};
use crate::nats::{Connection, Subjects, is_unheard, last_number, make_queue};
use crate::programs::{ASK_PROGRAMS, PROGRAM, publish};

/// How long agents have to answer a question. They ask their workers, who may take their time:
/// stacks are given names.
pub(crate) const GATHER_LIMIT: Duration = Duration::from_secs(10);
/// How long an input may collect items, once asked, while a worker has nothing to do.
const ASK_INPUTS_AFTER: Duration = Duration::from_micros(500);
/// What is larger is not sent through the queue.
const INLINE: usize = 512 * 1024;
/// The client's thread.
pub(crate) struct Client {
    id: ClientId,
    subjects: Subjects,
    settings: Settings,
    connection: Connection,
    /// How often the connection was made.
    connections: u64,
    timeouts: Timeouts,
    publishing: Publishing,
    dispatcher: Dispatcher,
    jobs: Jobs,
    /// When inputs are to be asked.
    ask_inputs_at: Option<Duration>,
    sessions: Sessions,
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    is_closing: bool,
    is_joined: bool,
    is_over: bool,
    /// Where it is said that the pool is ready, or why there is none.
    ready: Option<Ready>,
    /// The queue was made anew, and agents do not know it.
    is_queue_new: bool,
    /// Agents for any program are to be told of this one.
    says_program: bool,
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
        let limits = (settings.agents_timeout, settings.server_timeout);
        let timeouts = Timeouts::new(limits, &settings.url, subjects.build());
        let printer = Printer::new(settings.stdout.clone(), settings.stderr.clone());
        let client = Self {
            id,
            subjects,
            settings,
            connection,
            connections: 0,
            timeouts,
            publishing: Publishing::default(),
            dispatcher: Dispatcher::new(),
            jobs: Jobs::default(),
            ask_inputs_at: None,
            sessions: Sessions::new(clock::now()),
            shared,
            commands,
            is_closing: false,
            is_joined: false,
            is_over: false,
            ready: Some(ready),
            is_queue_new: false,
            says_program: true,
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
            if self.timeouts.take_asks_builds() {
                self.says_program = true;
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
        let times = tick.into_iter().chain(self.jobs.next_time());
        times
            .chain(self.sessions.next_timer())
            .chain(self.ask_inputs_at)
            .chain(self.gatherings.next_expiry())
            .min()
    }

    fn make_queue(&mut self) {
        if self.publishing.make() {
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
        self.timeouts.reconnected();
        self.publishing.reconnected();
        self.dispatcher.reconnected();
        self.agents_changed();
        self.sessions.reconnected();
        self.make_queue();
        self.publish_program();
        self.look_for_agents(false).await;
    }

    fn event(&mut self, event: Option<Event>) {
        match event {
            // If there is another one already, this is old news, and must not stop anything.
            Some(Event::Disconnected) if !self.connection.is_up() => {
                self.dispatcher.disconnected();
                self.timeouts.disconnected(clock::now());
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
                self.publishing.made(false);
                self.make_queue();
            }
            Command::Made {
                made: Ok(is_new), ..
            } => {
                // The server has said by now what it does not permit.
                while let Some(event) = self.connection.said() {
                    self.event(Some(event));
                }
                self.publishing.made(true);
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
                self.publishing.made(false);
                // Otherwise it is made in the next connection.
                if self.connection.is_up() {
                    let url = &self.settings.url;
                    self.refuse(&format!("at the NATS server {url}, {text}"));
                }
            }
            Command::Published(Ok(())) => self.says_program = true,
            Command::Published(Err(text)) => self.timeouts.refused(&text),
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
                for (_, job) in self.jobs.all().filter(|(_, it)| it.emits) {
                    job.completion.keep_unread();
                }
            }
            Command::Terminate => {
                self.finish_all(&terminated());
                self.is_over = true;
            }
            Command::ServerEnded(status) => {
                self.timeouts.server_ended(&status);
            }
            Command::Died { pid } => {
                for key in self.sessions.of_process(pid) {
                    self.give_up(key);
                }
            }
        }
    }

    fn submit(&mut self, chunk: EncodedChunk, completion: Completion) {
        if completion.is_abandoned() {
            self.shared.chunk_ended();
            completion.finish(&cancelled());
            return;
        }
        let it = Job::new(chunk, completion, clock::now());
        if self.is_joined && it.emits {
            it.completion.keep_unread();
        }
        let is_delayed = it.due.is_some();
        let job = self.jobs.add(it);
        if is_delayed {
            // It keeps no worker.
            self.shared.chunk_ended();
        } else {
            self.dispatch(job);
        }
    }

    fn dispatch(&mut self, job: JobId) {
        if let Some(it) = self.jobs.get(job) {
            self.dispatcher
                .submit(job, it.completion.indices(), it.terms());
        }
    }

    /// The job is not delayed any more. Says whether it was.
    fn undelay(&mut self, job: JobId) -> bool {
        let was_delayed = self.jobs.undelay(job);
        if was_delayed {
            self.shared.chunk_begins();
        }
        was_delayed
    }

    /// What of the job has not begun gets this error. What has begun goes on.
    fn withdraw(&mut self, job: JobId, error: &TaskError) {
        if self.undelay(job)
            && let Some(it) = self.jobs.get(job)
        {
            let items = it.completion.indices();
            return self.fail(job, items, error);
        }
        for items in self.dispatcher.withdraw(job) {
            self.fail(job, items, error);
        }
    }

    fn cancel(&mut self, call: CallId, kill: bool) {
        for job in self.jobs.of_call(call) {
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
        let it = self.jobs.get_mut(job);
        if it.is_some_and(|it| it.deliver(outcomes)) {
            self.forget(job);
        }
    }

    fn forget(&mut self, job: JobId) {
        if self.jobs.remove(job).is_some() {
            self.shared.chunk_ended();
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
        self.timeouts.refused(text);
    }

    /// Whatever has no outcome fails so.
    fn fail_all(&mut self, text: &str) {
        let error = TaskError::other(TaskErrorKind::Launch, text);
        self.finish_all(&error);
    }

    fn finish_all(&mut self, error: &TaskError) {
        let jobs: Vec<JobId> = self.jobs.all().map(|(job, _)| job).collect();
        for job in jobs {
            self.undelay(job);
            if let Some(it) = self.jobs.remove(job) {
                self.shared.chunk_ended();
                it.completion.finish(error);
            }
            self.dispatcher.forget(job);
        }
    }

    /// Gives emitted values to their reader, as far as there is room.
    fn emit(&mut self, job: JobId) {
        let waker = Waker::from(Arc::new(RoomWaker {
            job,
            commands: self.commands.clone(),
        }));
        let mut context = Context::from_waker(&waker);
        let Some(it) = self.jobs.get_mut(job) else {
            return;
        };
        while let Some(piece) = it.emit(&mut context) {
            if let Some(key) = self.dispatcher.agent_of(piece) {
                let room = ToAgent::Room { piece, values: 1 };
                self.sessions.say(key, Lane::Control, &room);
            }
        }
        if let Some(outcomes) = it.take_last() {
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
        let key = match self.sessions.find(agent, number) {
            Belongs::To(key) => key,
            Belongs::ToThePast => {
                let gone = Envelope::gone(number);
                let subject = self.subjects.to_agent(agent, self.id);
                return self.connection.send(subject, gone).await;
            }
            Belongs::ToTheNext { old } => {
                if let Some(old) = old {
                    self.give_up(old);
                }
                let limits = Limits::of_payload(self.connection.max_payload());
                self.sessions.open(agent, number, limits)
            }
        };
        let now = clock::now();
        let Some(session) = self.sessions.get_mut(key) else {
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
            .get_mut(key)
            .and_then(|it| it.link.poll_message())
        {
            match from_bytes::<ToClient>(&message) {
                Some(message) => self.hear(key, message),
                None => return self.give_up(key),
            }
        }
    }

    /// An agent is no more, or says nothing.
    fn give_up(&mut self, key: Key) {
        let Some(session) = self.sessions.give_up(key) else {
            return;
        };
        self.gatherings.forget(key);
        self.dispatcher.given_up(key, session.link.has_gap());
        self.lose();
        let dispatcher = &self.dispatcher;
        self.sessions.retain_lost(|key| dispatcher.doubts(key));
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
            if let Some(machine) = self.sessions.lost_machine(agent) {
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
        let is_there = |key| !self.dispatcher.is_unreachable(key);
        let agents = self.sessions.infos(is_there);
        self.shared.set_agents(agents, self.dispatcher.slots());
    }

    /// What an agent says.
    fn hear(&mut self, key: Key, message: ToClient) {
        match message {
            ToClient::Hello { card, connection } => self.welcome(key, card, connection),
            ToClient::Sync { connection } => {
                let epoch = self.dispatcher.epoch();
                self.sessions
                    .say(key, Lane::Control, &ToAgent::Synced { epoch, connection });
            }
            ToClient::Kept(epoch) => self.dispatcher.kept(key, epoch),
            ToClient::Ask { delivery, time } => {
                let is_granted = self.dispatcher.asked(key, delivery, time);
                let verdict = ToAgent::Verdict {
                    delivery,
                    is_granted,
                };
                self.sessions.say(key, Lane::Control, &verdict);
            }
            ToClient::Begun { delivery } => {
                if !self.dispatcher.begun(key, delivery) {
                    let verdict = ToAgent::Verdict {
                        delivery,
                        is_granted: false,
                    };
                    self.sessions.say(key, Lane::Control, &verdict);
                }
            }
            ToClient::Returned { delivery } => self.dispatcher.refused(delivery),
            ToClient::Fetch { piece } => {
                if let Some(chunk) = self.encode(piece)
                    && let Some(session) = self.sessions.get_mut(key)
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
                    && let Some(it) = self.jobs.get_mut(job)
                {
                    it.values.push_back((piece, value));
                    self.emit(job);
                }
            }
            ToClient::Content { id, bytes } => {
                if let Ok(content) = BroadcastContent::new(&bytes.0)
                    && content.id() == id
                    && let Some(session) = self.sessions.get_mut(key)
                {
                    session.contents.insert(id, content);
                }
            }
            ToClient::Leaving => {
                self.dispatcher.leaving(key);
                if let Some(session) = self.sessions.get_mut(key) {
                    session.is_leaving = true;
                }
                self.agents_changed();
            }
            ToClient::Left => {
                if let Some(session) = self.sessions.get_mut(key) {
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
        let sessions = self.sessions.all().filter(|(key, session)| {
            let is_there = session.card.is_some() && session.left_at.is_none();
            is_there && !self.dispatcher.is_unreachable(*key)
        });
        let asked: HashSet<Key> = sessions.map(|(key, _)| key).collect();
        let until = clock::now() + GATHER_LIMIT;
        let ticket = self.gatherings.begin(so_far, asked.clone(), until);
        for key in asked {
            self.sessions
                .say(key, Lane::Control, &ToAgent::Report { ticket, dump });
        }
    }

    fn welcome(&mut self, key: Key, card: AgentCard, connection: u64) {
        let slots = card.slots.max(1) as usize;
        if let Some(session) = self.sessions.get_mut(key) {
            if session.card.is_some() {
                return;
            }
            session.card = Some(card);
        }
        let welcome = (self.settings).welcome(self.dispatcher.epoch(), connection);
        self.sessions.say(key, Lane::Control, &welcome);
        self.dispatcher.joined(key, slots);
        self.agents_changed();
    }

    /// The values that an agent needs for a piece.
    fn provide(&mut self, key: Key, piece: PieceId, ids: &[procpool_core::ContentId]) {
        let of_job = self
            .dispatcher
            .piece(piece)
            .and_then(|it| self.jobs.get(it.0))
            .map(|it| it.chunk.contents())
            .unwrap_or_default();
        let Some(session) = self.sessions.get_mut(key) else {
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
    fn with_contents(&self, key: Key, piece: PieceId, mut outcome: Outcome) -> Outcome {
        let job = self.dispatcher.piece(piece).map(|it| it.0);
        let completion = job.and_then(|job| Some(&self.jobs.get(job)?.completion));
        if let (Some(completion), Some(session)) = (completion, self.sessions.get(key)) {
            for id in completion.missing(&outcome) {
                if let Some(content) = session.contents.get(&id) {
                    outcome.provide(content);
                }
            }
        }
        outcome
    }

    fn outcomes(&mut self, key: Key, piece: PieceId, mut batch: OutcomeBatch) {
        let job = self.dispatcher.piece(piece).map(|it| it.0);
        let completion = job.and_then(|job| Some(&self.jobs.get(job)?.completion));
        if let Some(session) = self.sessions.get_mut(key) {
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
        let chunk = &self.jobs.get(job)?.chunk;
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
            if message.status.is_none() {
                self.timeouts.has_build(&message.payload);
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
                if !self.publishing.answered(delivery) {
                    return;
                }
                if is_unheard(message) {
                    // There is no queue, and nothing in it.
                    self.dispatcher.reconnected();
                    self.agents_changed();
                    self.make_queue();
                } else if let Some(error) = PublishError::of(&message.payload) {
                    if error.is_full {
                        self.publishing.is_full(clock::now());
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
        if !self.sessions.has_agent(agent) {
            let subject = self.subjects.to_agent(agent, self.id);
            self.connection.send(subject, Envelope::knock()).await;
        }
    }

    /// What time brings.
    fn tick(&mut self) {
        let now = clock::now();
        while let Some(job) = self.jobs.next_expired(now) {
            let text = "the deadline of the call came before it could begin";
            let error = TaskError::other(TaskErrorKind::DeadlineExceeded, text);
            self.withdraw(job, &error);
        }
        while let Some(job) = self.jobs.next_due(now) {
            self.shared.chunk_begins();
            self.dispatch(job);
        }
        if self.ask_inputs_at.is_some_and(|at| at <= now) {
            self.ask_inputs_at = None;
            self.shared.ask_inputs(true);
        }
        self.gatherings.expire(now);
        let is_up = self.connection.is_up();
        if is_up && self.publishing.take_late(now) {
            self.dispatcher.raise();
        }
        let dispatcher = &self.dispatcher;
        let lost = (self.sessions).tick(now, is_up, |key| dispatcher.watches(key));
        for key in lost {
            self.give_up(key);
        }
        let situation = Situation {
            is_up,
            waits: !self.jobs.is_empty(),
            has_agents: self.dispatcher.slots() > 0,
        };
        if let Some(text) = self.timeouts.check(now, situation) {
            self.fail_all(&text);
        }
    }

    /// Does what the dispatcher says, and sends what the links have.
    async fn act(&mut self) {
        if !self.connection.is_up() {
            return;
        }
        let may_publish = self.publishing.is_open(clock::now());
        while let Some(action) = self.dispatcher.poll_action(may_publish) {
            match action {
                Action::Publish {
                    delivery,
                    epoch,
                    pieces,
                } => self.publish(delivery, epoch, &pieces).await,
                Action::TellEpoch { agent, epoch } => {
                    self.sessions
                        .say(agent, Lane::Control, &ToAgent::Epoch(epoch));
                }
                Action::Recall { agent, piece } => {
                    self.sessions
                        .say(agent, Lane::Control, &ToAgent::Recall { piece });
                }
                Action::Cancel { agent, piece, kill } => {
                    self.sessions
                        .say(agent, Lane::Control, &ToAgent::Cancel { piece, kill });
                }
            }
        }
        self.lose();
        let now = clock::now();
        for (key, session) in self.sessions.all_mut() {
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
        self.publishing.sent(delivery, clock::now());
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
            for (_, session) in self.sessions.all_mut() {
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

fn terminated() -> TaskError {
    TaskError::other(TaskErrorKind::Cancelled, "the pool was terminated")
}

fn cancelled() -> TaskError {
    TaskError::other(TaskErrorKind::Cancelled, "the task was cancelled")
}

/// The next message of a subscription, if there is one.
async fn next_of(subscription: &mut Option<Subscriber>) -> Option<Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => None,
    }
}
