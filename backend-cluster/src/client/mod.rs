//! The client: a thread that has the connection, and does what the dispatcher says.

mod calls;
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
mod watching;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Event, Message, Subscriber};
use futures_util::StreamExt;
use procpool_core::{BroadcastContent, Dump, ExitReason, TaskError, TaskErrorKind};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use self::calls::Calls;
pub(crate) use self::command::Command;
pub(crate) use self::envelope::Envelope;
use self::gathering::{Gathered, Gatherings};
use self::printer::Printer;
use self::publishing::{PublishError, Publishing};
use self::sessions::{ASK_EVERY, Belongs, Key, Sessions};
pub(crate) use self::settings::Settings;
pub(crate) use self::shared::{Shared, THREAD};
use self::timeouts::{Situation, Timeouts};
use self::watching::Watching;
use crate::clock::{self, sleep_until};
use crate::dispatcher::Action;
use crate::link::{Lane, Limits, session_of};
use crate::message::{
    AgentCard, ClientId, Delivery, DeliveryId, Piece, PieceId, ToAgent, ToClient, Wanted,
    from_bytes, to_bytes,
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
/// So many commands are obeyed before something goes to agents.
const TOGETHER: usize = 256;

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
    calls: Calls,
    /// When inputs are to be asked.
    ask_inputs_at: Option<Duration>,
    sessions: Sessions,
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    is_closing: bool,
    is_over: bool,
    /// Where it is said that the pool is ready, or why there is none.
    ready: Option<Ready>,
    /// The queue was made anew, and agents do not know it.
    is_queue_new: bool,
    /// Agents for any program are to be told of this one.
    says_program: bool,
    gatherings: Gatherings,
    watching: Watching,
    printer: Option<Printer>,
}

/// Tells who builds a pool.
pub(crate) type Ready = std::sync::mpsc::Sender<Result<(), String>>;

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
            calls: Calls::new(shared.clone()),
            ask_inputs_at: None,
            sessions: Sessions::new(clock::now()),
            watching: Watching::new(shared.clone()),
            shared,
            commands,
            is_closing: false,
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
                    // Many at once are dispatched together, but agents are not kept waiting.
                    for _ in 0..TOGETHER {
                        let Ok(command) = commands.try_recv() else {
                            break;
                        };
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
            self.calls.hand_out();
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
            self.calls.hand_out();
            self.shared.ask_inputs(false);
            // What is tried again is a command first.
            self.is_over |= self.is_closing && self.calls.is_empty() && commands.is_empty();
        }
        self.leave().await;
        self.watching.end_all(match self.is_closing {
            true => ExitReason::Closed,
            false => ExitReason::Terminated,
        });
        commands.close();
        while let Ok(command) = commands.try_recv() {
            if let Command::Submit { completion, .. } = command {
                completion.finish(&terminated());
            }
        }
    }

    /// When there is something to do though nothing has happened.
    fn next_wake(&self) -> Option<Duration> {
        let busy = !self.calls.is_empty();
        let now = clock::now();
        let tick = busy.then(|| now + ASK_EVERY / 2);
        let times = tick.into_iter().chain(self.calls.next_time());
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
        let id = self.id;
        tokio::task::spawn_local(async move {
            let made = make_queue(client, id, subjects, in_file).await;
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
        self.calls.dispatcher.reconnected();
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
                self.calls.dispatcher.disconnected();
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
            Command::Submit { chunk, completion } => self.calls.submit(chunk, completion),
            Command::Cancel { call, kill } => self.calls.cancel(call, kill),
            Command::Room(job) => {
                let rooms = self.calls.emit(job);
                self.say_rooms(rooms);
            }
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
                self.calls.dispatcher.has_queue();
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
            Command::Dump(sender) => {
                self.gather(Gathered::Dump(Dump::default(), sender), Wanted::Dump);
            }
            Command::Activity(sender) => {
                self.gather(Gathered::Dump(Dump::default(), sender), Wanted::Activity);
            }
            Command::Stats(sender) => {
                let stats = self.shared.stats(self.calls.dispatcher.waiting());
                self.gather(Gathered::Stats(Box::new(stats), sender), Wanted::Stats);
            }
            Command::AskInputs => {
                self.ask_inputs_at = Some(clock::now() + ASK_INPUTS_AFTER);
            }
            Command::Observers => {
                if self.watching.observers_changed() {
                    let observe = ToAgent::Observe(self.watching.wanted());
                    let keys: Vec<Key> = self.sessions.all().map(|(key, _)| key).collect();
                    for key in keys {
                        self.sessions.say(key, Lane::Control, &observe);
                    }
                }
            }
            Command::Close => self.is_closing = true,
            Command::Join => self.calls.join(),
            Command::Terminate => {
                self.calls.finish_all(&terminated());
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
        self.calls.finish_all(&error);
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
        if self.calls.dispatcher.reachable(key) {
            self.agents_changed();
            // Its workers may be others by now.
            self.ask_to_observe(key);
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
        let reason = match session.left_at {
            Some(_) => ExitReason::Closed,
            None => ExitReason::Crashed,
        };
        self.watching.given_up(key, reason);
        self.calls.dispatcher.given_up(key, session.link.has_gap());
        self.calls.lose(|key| self.sessions.lost_machine(key));
        let dispatcher = &self.calls.dispatcher;
        self.sessions.retain_lost(|key| dispatcher.doubts(key));
        self.agents_changed();
    }

    /// The server says that an agent is not there. Nothing is lost for good: it may live.
    fn unreachable(&mut self, key: Key) {
        if self.calls.dispatcher.unreachable(key) {
            self.agents_changed();
            self.watching.given_up(key, ExitReason::Crashed);
        }
        self.gatherings.forget(key);
    }

    /// If somebody observes the pool, this agent is to tell what its workers do.
    fn ask_to_observe(&mut self, key: Key) {
        if let Some(wanted) = self.watching.wanted() {
            let observe = ToAgent::Observe(Some(wanted));
            self.sessions.say(key, Lane::Control, &observe);
        }
    }

    /// Agents may send so many more values.
    fn say_rooms(&mut self, rooms: Vec<(Key, PieceId)>) {
        for (key, piece) in rooms {
            let room = ToAgent::Room { piece, values: 1 };
            self.sessions.say(key, Lane::Control, &room);
        }
    }

    fn agents_changed(&self) {
        let is_there = |key| !self.calls.dispatcher.is_unreachable(key);
        let agents = self.sessions.infos(is_there);
        self.shared
            .set_agents(agents, self.calls.dispatcher.slots());
    }

    /// What an agent says.
    fn hear(&mut self, key: Key, message: ToClient) {
        match message {
            ToClient::Hello { card, connection } => self.welcome(key, card, connection),
            ToClient::Sync { connection } => {
                let epoch = self.calls.dispatcher.epoch();
                self.sessions
                    .say(key, Lane::Control, &ToAgent::Synced { epoch, connection });
            }
            ToClient::Kept(epoch) => self.calls.dispatcher.kept(key, epoch),
            ToClient::Ask { delivery, time } => {
                let is_granted = self.calls.dispatcher.asked(key, delivery, time);
                let verdict = ToAgent::Verdict {
                    delivery,
                    is_granted,
                };
                self.sessions.say(key, Lane::Control, &verdict);
            }
            ToClient::Begun { delivery } => {
                if !self.calls.dispatcher.begun(key, delivery) {
                    let verdict = ToAgent::Verdict {
                        delivery,
                        is_granted: false,
                    };
                    self.sessions.say(key, Lane::Control, &verdict);
                }
            }
            ToClient::Returned { delivery } => self.calls.returned(key, delivery),
            ToClient::Fetch { piece } => {
                if let Some(chunk) = self.calls.encode(piece)
                    && let Some(session) = self.sessions.get_mut(key)
                {
                    session.outbox.add_body(piece, chunk.0);
                }
            }
            ToClient::Need { piece, contents } => self.provide(key, piece, &contents),
            ToClient::Outcomes { piece, batch } => {
                let session = self.sessions.get_mut(key);
                // Also those of a call that nobody waits for any more.
                let contents = session.map(|it| std::mem::take(&mut it.contents));
                let contents = contents.unwrap_or_default();
                self.calls.outcomes(key, piece, batch, &contents);
            }
            ToClient::Failed { piece, error } => self.calls.failed(key, piece, &error),
            ToClient::Value { piece, value } => {
                let contents = self.sessions.get(key).map(|it| &it.contents);
                let rooms = self.calls.value(key, piece, value, contents);
                self.say_rooms(rooms);
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
                self.calls.dispatcher.leaving(key);
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
            ToClient::Seen(seen) => self.watching.seen(key, seen),
        }
    }

    /// Asks all agents that can be reached.
    fn gather(&mut self, so_far: Gathered, wanted: Wanted) {
        let sessions = self.sessions.all().filter(|(key, session)| {
            let is_there = session.card.is_some() && session.left_at.is_none();
            is_there && !self.calls.dispatcher.is_unreachable(*key)
        });
        let asked: HashSet<Key> = sessions.map(|(key, _)| key).collect();
        let until = clock::now() + GATHER_LIMIT;
        let ticket = self.gatherings.begin(so_far, asked.clone(), until);
        for key in asked {
            self.sessions
                .say(key, Lane::Control, &ToAgent::Report { ticket, wanted });
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
        let welcome = (self.settings).welcome(self.calls.dispatcher.epoch(), connection);
        self.sessions.say(key, Lane::Control, &welcome);
        self.ask_to_observe(key);
        self.calls.dispatcher.joined(key, slots);
        self.agents_changed();
    }

    /// The values that an agent needs for a piece.
    fn provide(&mut self, key: Key, piece: PieceId, ids: &[procpool_core::ContentId]) {
        let of_job = self.calls.contents_of(piece);
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
                self.unreachable(key);
            }
            // The same of what was sent to it without the queue.
            (Some(b'x'), Some(delivery)) if is_unheard(message) => {
                if let Some(key) = self.calls.dispatcher.was_sent_to(delivery) {
                    self.calls.returned(key, delivery);
                    self.unreachable(key);
                }
            }
            (Some(b'd'), Some(delivery)) => {
                if !self.publishing.answered(delivery) {
                    return;
                }
                if is_unheard(message) {
                    // There is no queue, and nothing in it.
                    self.calls.dispatcher.reconnected();
                    self.agents_changed();
                    self.make_queue();
                } else if let Some(error) = PublishError::of(&message.payload) {
                    if error.is_full {
                        self.publishing.is_full(clock::now());
                        self.calls.dispatcher.refused(delivery);
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
        self.calls.tick(now);
        if self.ask_inputs_at.is_some_and(|at| at <= now) {
            self.ask_inputs_at = None;
            self.shared.ask_inputs(true);
        }
        self.gatherings.expire(now);
        let is_up = self.connection.is_up();
        if is_up && self.publishing.take_late(now) {
            self.calls.dispatcher.raise();
        }
        let dispatcher = &self.calls.dispatcher;
        let lost = (self.sessions).tick(now, is_up, |key| dispatcher.watches(key));
        for key in lost {
            self.give_up(key);
        }
        for key in self.sessions.asked_at(now) {
            for delivery in self.calls.dispatcher.take_unconfirmed(key) {
                let sent = ToAgent::Sent(delivery);
                self.sessions.say(key, Lane::Control, &sent);
            }
        }
        let situation = Situation {
            is_up,
            waits: !self.calls.is_empty(),
            has_agents: self.calls.dispatcher.slots() > 0,
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
        while let Some(action) = self.calls.dispatcher.poll_action(may_publish) {
            match action {
                Action::Publish {
                    delivery,
                    epoch,
                    pieces,
                } => self.publish(delivery, epoch, &pieces).await,
                Action::Send {
                    agent,
                    delivery,
                    oldest,
                    epoch,
                    piece,
                } => self.send(agent, delivery, oldest, epoch, piece).await,
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
        self.calls.lose(|key| self.sessions.lost_machine(key));
        let now = clock::now();
        for (key, session) in self.sessions.all_mut() {
            session.outbox.feed(&mut session.link);
            while let Some(frame) = session.link.poll_frame(now) {
                let subject = self.subjects.to_agent(session.agent, self.id);
                let token = format!("a{key}");
                let frame = Envelope::frame(frame);
                self.connection.request(subject, &token, frame).await;
            }
        }
    }

    /// To an agent itself. It is sent once: if that is lost, the agent says that it has not got it,
    /// or the server that nobody was there.
    async fn send(
        &self,
        key: Key,
        delivery: DeliveryId,
        oldest: DeliveryId,
        epoch: u64,
        piece: PieceId,
    ) {
        // Otherwise it was given up, and so was this.
        if let Some(session) = self.sessions.get(key) {
            let message = self.encode(delivery, epoch, &[piece]);
            let message = Envelope::direct(session.number, oldest, message);
            let subject = self.subjects.to_agent(session.agent, self.id);
            let token = format!("x{delivery}");
            self.connection.request(subject, &token, message).await;
        }
    }

    async fn publish(&mut self, delivery: DeliveryId, epoch: u64, pieces: &[PieceId]) {
        let message = self.encode(delivery, epoch, pieces);
        self.publishing.sent(delivery, clock::now());
        let token = format!("d{delivery}");
        let id = format!("{:016x}.{delivery}", self.id);
        let subject = self.subjects.work(self.id);
        self.connection.enqueue(subject, &token, &id, message).await;
    }

    /// A delivery as it travels.
    fn encode(&self, delivery: DeliveryId, epoch: u64, pieces: &[PieceId]) -> Vec<u8> {
        let most = INLINE.min(self.connection.max_payload() / 2);
        let mut bytes = 0;
        let mut sent = Vec::with_capacity(pieces.len());
        for id in pieces {
            let Some((_, _, attempt, retries)) = self.calls.dispatcher.piece(*id) else {
                continue;
            };
            let Some(chunk) = self.calls.encode(*id) else {
                continue;
            };
            bytes += chunk.0.len() + 64;
            sent.push(Piece {
                id: *id,
                is_last_attempt: attempt >= retries,
                chunk: (bytes <= most).then_some(chunk),
            });
        }
        to_bytes(&Delivery {
            id: delivery,
            epoch,
            pieces: sent,
        })
    }

    /// Says goodbye.
    async fn leave(&mut self) {
        let error = TaskError::other(TaskErrorKind::Closed, "the pool is closed");
        self.calls.finish_all(&error);
        if self.connection.is_up() {
            let now = clock::now();
            for (_, session) in self.sessions.all_mut() {
                session.link.send(Lane::Control, to_bytes(&ToAgent::Bye));
                while let Some(frame) = session.link.poll_frame(now) {
                    let subject = self.subjects.to_agent(session.agent, self.id);
                    let frame = Envelope::frame(frame);
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

/// The next message of a subscription, if there is one.
async fn next_of(subscription: &mut Option<Subscriber>) -> Option<Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => None,
    }
}
