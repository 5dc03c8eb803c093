//! The client: a thread that has the connection, and does what the dispatcher says.

mod calls;
mod command;
mod envelope;
mod gathering;
mod hearing;
mod job;
mod jobs;
mod observing;
mod outbox;
mod printer;
mod publishing;
mod sending;
mod server;
mod session;
mod sessions;
mod settings;
mod shared;
mod timeouts;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use procpool_core::{Dump, ExitReason, TaskError, TaskErrorKind};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use self::calls::Calls;
pub(crate) use self::command::Command;
pub(crate) use self::envelope::Envelope;
use self::gathering::{Gathered, Gatherings};
use self::observing::Observing;
use self::printer::Printer;
use self::publishing::Publishing;
use self::sessions::{ASK_EVERY, Sessions};
pub(crate) use self::settings::Settings;
pub(crate) use self::shared::{Shared, THREAD};
use self::timeouts::{Situation, Timeouts};
use crate::clock::{self, sleep_until};
use crate::link::Lane;
use crate::message::{ClientId, ToAgent, Wanted};
use crate::nats::{Connection, Subjects};
use crate::programs::{ASK_PROGRAMS, PROGRAM};

/// How long agents have to answer a question. They ask their workers, who may take their time:
/// stacks are given names.
pub(crate) const GATHER_LIMIT: Duration = Duration::from_secs(10);
/// How long an input may collect items, once asked, while a worker has nothing to do.
const ASK_INPUTS_AFTER: Duration = Duration::from_micros(500);
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
    observing: Observing,
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
            observing: Observing::new(shared.tracer.clone()),
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
        self.observing.end_all(match self.is_closing {
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
                if self.observing.observers_changed() {
                    let observe = ToAgent::Observe(self.observing.wanted());
                    self.sessions.say_to_all(Lane::Control, &observe);
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
