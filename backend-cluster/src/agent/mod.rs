//! The agent: a process that hosts a local pool, takes deliveries from the queue, and runs them.

mod contents;
mod host;
mod hosting;
mod leaving;
mod observing;
mod options;
mod pulling;
mod running;
mod session;
mod sessions;
mod taken;
pub(crate) mod variables;
mod work;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Event, Message, Subscriber};
use futures_util::StreamExt;
use procpool_core::{Cancel, OutputLine, TaskError, TaskErrorKind, WorkerOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::contents::Contents;
use self::host::{Captures, Host};
use self::leaving::Goodbye;
pub(crate) use self::options::AgentOptions;
use self::pulling::Pulling;
use self::sessions::Sessions;
use self::taken::Taken;
use self::work::Report;
use crate::client::Envelope;
use crate::clock::{self, sleep_until};
use crate::intake::{Action, Arrival, End, Intake, LEASE};
use crate::link::{Lane, Limits, session_of};
use crate::message::{
    AgentCard, AgentId, ClientId, Delivery, DeliveryId, Line, ToAgent, ToClient, Wanted, from_bytes,
};
use crate::nats::{Connection, Given, Role, Subjects, is_unheard, last_number};

/// The agent's process.
pub(crate) struct Agent {
    id: AgentId,
    subjects: Subjects,
    connection: Connection,
    intake: Intake,
    sessions: Sessions,
    host: Arc<Host>,
    taken: Taken,
    contents: Contents,
    pulling: Pulling,
    reports: UnboundedSender<Report>,
    machine: String,
    slots: usize,
    /// It is to say that it is there.
    says_hello: bool,
    started: Duration,
    /// When clients were told last what their workers do.
    told: Duration,
    /// It leaves when it had no client for so long, and since when it has none.
    idle: Option<Duration>,
    idle_since: Duration,
    is_leaving: bool,
    goodbye: Goodbye,
    /// The server's address, for people.
    url: String,
    /// What the server does not permit, though no agent can do without it.
    refusal: Option<String>,
}

/// The subscriptions of an agent.
pub(crate) struct Subscriptions {
    answers: Subscriber,
    frames: Subscriber,
    questions: Subscriber,
    others: Subscriber,
}

impl Agent {
    /// Connects, and is ready to run.
    ///
    /// # Errors
    /// The text says what to do.
    pub(crate) async fn new(
        options: &AgentOptions,
    ) -> Result<(Self, Subscriptions, UnboundedReceiver<Report>), String> {
        let (reports, received) = unbounded_channel();
        let backend = options.backend.host_backend()?;
        let lines = reports.clone();
        let on_line = move |client, worker, line: &OutputLine| {
            // Without an agent there is nobody to tell.
            let _ = lines.send(Report::Line(client, Line::of(worker, line)));
        };
        let host = Host::new(options.processes, backend, &*options.machine, on_line);
        let host = Arc::new(host);
        let name = format!("procpool agent on {}", options.machine);
        let opened = Connection::open(&options.server, Role::Agent, &name).await;
        let (connection, answers) = opened.map_err(|error| error.to_string())?;
        let id = clock::draw_number();
        let subjects = Subjects::of_this_build();
        let client = connection.client();
        let gone = |error: async_nats::SubscribeError| format!("the server is gone: {error}");
        let subscriptions = Subscriptions {
            answers,
            frames: client
                .subscribe(subjects.for_agent(id))
                .await
                .map_err(gone)?,
            questions: client.subscribe(subjects.who()).await.map_err(gone)?,
            others: client.subscribe(Subjects::other()).await.map_err(gone)?,
        };
        let slots = options.processes;
        let agent = Self {
            id,
            subjects,
            connection,
            intake: Intake::new(slots),
            sessions: Sessions::default(),
            host,
            taken: Taken::default(),
            contents: Contents::default(),
            pulling: Pulling::default(),
            reports,
            machine: options.machine.clone(),
            slots,
            says_hello: true,
            started: clock::now(),
            told: clock::now(),
            idle: options.idle,
            idle_since: clock::now(),
            is_leaving: false,
            goodbye: Goodbye::Unsaid,
            url: options.server.shown(),
            refusal: None,
        };
        Ok((agent, subscriptions, received))
    }

    /// The agent's life: until it was asked to leave and has done what it had.
    ///
    /// # Errors
    /// When it has left since the server does not permit it to work.
    pub(crate) async fn run(
        mut self,
        mut subscriptions: Subscriptions,
        mut reports: UnboundedReceiver<Report>,
        mut leave: impl Future<Output = ()> + Unpin,
    ) -> Result<(), String> {
        loop {
            if std::mem::take(&mut self.says_hello) {
                let hello = self.id.to_le_bytes().to_vec();
                self.connection.send(self.subjects.hello(), hello).await;
            }
            let wake = self.next_wake();
            let Subscriptions {
                answers,
                frames,
                questions,
                others,
            } = &mut subscriptions;
            tokio::select! {
                biased;
                Some(message) = frames.next() => {
                    self.notice_connection();
                    self.frame(&message);
                }
                Some(message) = answers.next() => {
                    self.notice_connection();
                    self.answer(&message);
                }
                Some(report) = reports.recv() => {
                    let mut all = vec![report];
                    while let Ok(report) = reports.try_recv() {
                        all.push(report);
                    }
                    self.report(all);
                }
                Some(message) = questions.next() => self.question(&message),
                Some(message) = others.next() => {
                    if let Some(reply) = message.reply {
                        let build = self.subjects.build().as_bytes().to_vec();
                        self.connection.send(reply.to_string(), build).await;
                    }
                }
                event = self.connection.event() => self.event(event),
                () = &mut leave, if !self.is_leaving => self.start_leaving(),
                () = sleep_until(wake) => {}
            }
            self.notice_connection();
            self.tick();
            self.act().await;
            if self.is_leaving && self.intake.is_idle() && self.may_go() {
                break;
            }
        }
        self.connection.flush(Duration::from_secs(1)).await;
        self.refusal.map_or(Ok(()), Err)
    }

    fn next_wake(&self) -> Option<Duration> {
        let now = clock::now();
        let busy = !self.intake.is_idle() || self.is_leaving;
        let tick = busy.then(|| now + Duration::from_millis(100));
        let sessions = self
            .sessions
            .next_timer(|client| self.intake.works_for(client));
        let (free, backlog) = (self.intake.free(), self.sessions.backlog());
        let pull = self.pulling.next_time(free, backlog, now);
        let idle = self
            .idle
            .filter(|_| self.sessions.is_empty() && !self.is_leaving);
        let times = sessions
            .into_iter()
            .chain(self.intake.next_expiry())
            .chain(pull)
            .chain(self.tell_at())
            .chain(idle.map(|idle| self.idle_since + idle));
        times.chain(tick).min()
    }

    fn notice_connection(&mut self) {
        if !self.connection.is_new() {
            return;
        }
        // Clients that were back before it have asked who is there, and it has not heard them.
        self.says_hello = !self.is_leaving;
        self.pulling.forget();
        self.pulling.ask_at_once();
        self.intake.reconnected();
        self.sessions.reconnected();
    }

    fn event(&mut self, event: Option<Event>) {
        let Some(Event::ServerError(error)) = event else {
            return;
        };
        let text = error.to_string();
        let lower = text.to_lowercase();
        // An answer that comes late, to who asked which builds there are, is no matter.
        if !lower.contains("permissions violation") || lower.contains("publish to \"_inbox.") {
            return eprintln!("procpool agent: the server says: {text}");
        }
        // Clients would send work to it, and hear nothing.
        if !self.is_leaving {
            self.start_leaving();
        }
        let url = &self.url;
        self.refusal.get_or_insert_with(|| {
            format!("the NATS server at {url} does not permit what an agent needs: {text}")
        });
    }

    /// A client asks who is there.
    fn question(&mut self, message: &Message) {
        if let Some((id, rest)) = message.payload.split_first_chunk() {
            if rest == [1] {
                // The queue is a new one.
                self.pulling.forget();
            }
            self.meet(u64::from_le_bytes(*id));
        }
    }

    /// Sees to it that there is a session with this client.
    fn meet(&mut self, client: ClientId) {
        if !self.sessions.has(client) && !self.is_leaving {
            self.open(client);
        }
        // There may be a queue now.
        self.pulling.ask_at_once();
    }

    fn open(&mut self, client: ClientId) {
        let now = clock::now();
        let limits = Limits::of_payload(self.connection.max_payload());
        self.sessions.open(client, limits, now);
        let hello = ToClient::Hello {
            card: AgentCard {
                agent: self.id,
                machine: self.machine.clone(),
                pid: std::process::id(),
                slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
                up: now.saturating_sub(self.started),
            },
            connection: self.intake.connection(),
        };
        self.say(client, Lane::Control, &hello);
        if self.is_leaving {
            self.say(client, Lane::Control, &ToClient::Leaving);
        }
    }

    fn frame(&mut self, message: &Message) {
        if message.subject.as_str() == self.subjects.note(self.id) {
            if let Ok(bytes) = <[u8; 8]>::try_from(&message.payload[..]) {
                self.intake.noted(u64::from_le_bytes(bytes), clock::now());
            }
            return;
        }
        let Some(client) = last_number(&message.subject) else {
            return;
        };
        match Envelope::open(&message.payload) {
            Some(Envelope::Frame(frame)) => self.link_frame(client, frame),
            Some(Envelope::Gone(number)) => {
                let current = self.sessions.number(client);
                if current.is_some_and(|current| current <= number) {
                    self.end(client, End::Refused);
                }
            }
            Some(Envelope::Direct {
                session,
                oldest,
                delivery,
            }) => self.direct_delivery(client, session, oldest, delivery),
            Some(Envelope::Knock) => self.meet(client),
            Some(Envelope::Bye) => self.end(client, End::Dead),
            None => {}
        }
    }

    fn link_frame(&mut self, client: ClientId, frame: &[u8]) {
        let Some(session) = self.sessions.get_mut(client) else {
            return;
        };
        if session_of(frame) != Some(session.number) {
            return;
        }
        if session.link.receive(frame, clock::now()).is_err() {
            return self.end(client, End::Refused);
        }
        session.gone_since = None;
        if let Some(echo) = session.link.echo() {
            self.intake.lease(client, echo + LEASE);
        }
        while let Some(message) =
            (self.sessions.get_mut(client)).and_then(|it| it.link.poll_message())
        {
            match from_bytes::<ToAgent>(&message) {
                Some(message) => self.hear(client, message),
                None => return self.end(client, End::Refused),
            }
        }
    }

    /// What a client says.
    fn hear(&mut self, client: ClientId, message: ToAgent) {
        match message {
            ToAgent::Welcome {
                epoch,
                connection,
                options,
                stdout,
                stderr,
            } => {
                self.intake.synced(client, epoch, connection);
                let captures = Captures { stdout, stderr };
                match WorkerOptions::from_bytes(&options.0) {
                    Ok(options) => self.welcomed(client, options, captures),
                    Err(error) => {
                        eprintln!("procpool agent: a client's options make no sense: {error}");
                        self.end(client, End::Dead);
                    }
                }
            }
            ToAgent::Epoch(epoch) => self.intake.epoch(client, epoch),
            ToAgent::Sent(delivery) => self.intake.was_sent(client, delivery),
            ToAgent::Synced { epoch, connection } => self.intake.synced(client, epoch, connection),
            ToAgent::Verdict {
                delivery,
                is_granted,
            } => self
                .intake
                .verdict(client, delivery, is_granted, clock::now()),
            ToAgent::Recall { piece } => {
                self.intake.recall(client, piece, clock::now());
                self.taken.remove(client, piece);
            }
            ToAgent::Cancel { piece, kill } => {
                let how = if kill {
                    Cancel::Kill
                } else {
                    Cancel::Cooperative
                };
                let Some(work) = self.taken.get_mut(client, piece) else {
                    return;
                };
                work.cancel(how);
                if !work.has_begun() {
                    let text = "the task was cancelled";
                    let error = TaskError::other(TaskErrorKind::Cancelled, text);
                    self.fail(client, piece, error);
                }
            }
            ToAgent::Room { piece, values } => {
                if let Some(work) = self.taken.get_mut(client, piece) {
                    work.add_room(values);
                }
                self.take_values(client, piece);
            }
            ToAgent::Body {
                piece,
                part,
                is_last,
            } => {
                let session = self.sessions.get_mut(client);
                let bytes = session.and_then(|it| it.add_body(piece, &part.0, is_last));
                if let (Some(bytes), Some(work)) = (bytes, self.taken.get_mut(client, piece)) {
                    work.set_chunk(bytes.into());
                    self.start(client, piece);
                }
            }
            ToAgent::Content { id, part, is_last } => {
                let session = self.sessions.get_mut(client);
                let bytes = session.and_then(|it| it.add_content(id, &part.0, is_last));
                if bytes.is_some() {
                    self.content(client, id, bytes);
                }
            }
            ToAgent::NoContent(id) => self.content(client, id, None),
            ToAgent::Report { ticket, wanted } => self.make_report(client, ticket, wanted),
            ToAgent::Observe(wanted) => self.observe(client, wanted),
            ToAgent::Bye => self.end(client, End::Dead),
        }
    }

    /// Asks the workers for this client, which takes a moment.
    fn make_report(&self, client: ClientId, ticket: u64, wanted: Wanted) {
        let (host, reports) = (self.host.clone(), self.reports.clone());
        let ask = move || {
            let answer = match wanted {
                Wanted::Dump => ToClient::Dump {
                    ticket,
                    dump: host.dump(client),
                },
                Wanted::Activity => ToClient::Dump {
                    ticket,
                    dump: host.activity(client),
                },
                Wanted::Stats => ToClient::Stats {
                    ticket,
                    stats: host.stats(client),
                },
            };
            // Without an agent there is nobody to tell.
            let _ = reports.send(Report::Answer(client, Box::new(answer)));
        };
        let thread = std::thread::Builder::new().name("procpool-report".into());
        if let Err(error) = thread.spawn(ask) {
            // The client does not wait for ever.
            eprintln!("procpool agent: no thread can be started: {error}");
        }
    }

    /// An answer of the server's: a delivery, for the most part.
    fn answer(&mut self, message: &Message) {
        // A delivery comes under the subject that it was published to.
        let token = self.connection.token(message);
        if let Some(client) = token.and_then(|it| it.strip_prefix('c')) {
            // A client was asked, and is not there.
            if is_unheard(message)
                && let Ok(client) = u64::from_str_radix(client, 16)
            {
                self.sessions.is_gone(client, clock::now());
            }
            return;
        }
        if let Given::Delivery { time } = self.pulling.given(message, clock::now()) {
            self.delivery(time, message);
        }
    }

    fn delivery(&mut self, time: u64, message: &Message) {
        let (Some(client), Some(acknowledgement)) =
            (last_number(&message.subject), message.reply.as_ref())
        else {
            return;
        };
        let Some(delivery) = from_bytes::<Delivery>(&message.payload) else {
            // Nobody can run it. It is given out again, and then to another one.
            return;
        };
        self.meet(client);
        let arrival = Arrival::new(client, &delivery, time);
        self.taken.add(client, delivery, Some(acknowledgement));
        self.intake.arrived(arrival, clock::now());
    }

    /// A delivery that has come without the queue.
    fn direct_delivery(
        &mut self,
        client: ClientId,
        session: u32,
        oldest: DeliveryId,
        delivery: &[u8],
    ) {
        // Of an old session, the client takes nothing any more.
        if self.sessions.number(client) != Some(session) {
            return;
        }
        let Some(delivery) = from_bytes::<Delivery>(delivery) else {
            return;
        };
        let arrival = Arrival::new(client, &delivery, 1);
        if self.intake.arrived_directly(arrival, oldest, clock::now()) {
            self.taken.add(client, delivery, None);
        }
    }

    fn say(&mut self, client: ClientId, lane: Lane, message: &ToClient) {
        self.sessions.say(client, lane, message);
    }

    fn end(&mut self, client: ClientId, end: End) {
        if end == End::Dead {
            self.sessions.remove(client);
            self.host.forget(client);
            self.taken.kill_all(client);
            if self.sessions.is_empty() {
                // Whoever comes next may need others.
                self.contents = Contents::default();
            }
        } else {
            self.taken.kill_running(client);
            self.open(client);
        }
        self.intake.end(client, end, clock::now());
    }

    fn tick(&mut self) {
        let now = clock::now();
        self.intake.expire(now);
        let intake = &self.intake;
        let dead = (self.sessions).tick(now, |client| intake.works_for(client));
        for client in dead {
            self.end(client, End::Dead);
        }
        self.tell_if_due(now);
        if !self.sessions.is_empty() {
            self.idle_since = now;
        } else if !self.is_leaving && self.idle.is_some_and(|idle| now >= self.idle_since + idle) {
            self.start_leaving();
        }
    }

    async fn act(&mut self) {
        while let Some(action) = self.intake.poll_action() {
            match action {
                Action::Ask {
                    client,
                    delivery,
                    time,
                } => self.say(client, Lane::Control, &ToClient::Ask { delivery, time }),
                Action::SayBegun { client, delivery } => {
                    self.say(client, Lane::Control, &ToClient::Begun { delivery });
                }
                Action::Return { client, delivery } => {
                    self.say(client, Lane::Control, &ToClient::Returned { delivery });
                    self.taken.forget_returned(client, &self.intake);
                }
                Action::Acknowledge { client, delivery } => {
                    if let Some(subject) = self.taken.acknowledge(client, delivery) {
                        self.connection.send(subject, Vec::new()).await;
                    }
                }
                Action::Sync { client, connection } => {
                    self.say(client, Lane::Control, &ToClient::Sync { connection });
                }
                Action::Note(note) => {
                    // Behind everything that was said.
                    self.send_frames().await;
                    let note = note.to_le_bytes().to_vec();
                    self.connection
                        .send(self.subjects.note(self.id), note)
                        .await;
                }
                Action::Run { client, piece } => {
                    if let Some(work) = self.taken.get_mut(client, piece) {
                        work.allow();
                    }
                    self.start(client, piece);
                }
                Action::Discard { client, piece } | Action::Kill { client, piece } => {
                    if let Some(work) = self.taken.remove(client, piece) {
                        work.cancel(Cancel::Kill);
                    }
                }
                Action::Kept { client, epoch } => {
                    self.say(client, Lane::Control, &ToClient::Kept(epoch));
                }
                Action::End { client } => {
                    if let Some(session) = self.sessions.get(client)
                        && session.is_welcome
                    {
                        self.taken.kill_running(client);
                        self.open(client);
                    }
                    self.taken.forget_ended(client, &self.intake);
                }
            }
        }
        self.send_frames().await;
        if self.connection.is_up() {
            let (free, backlog) = (self.intake.free(), self.sessions.backlog());
            let requests = self.pulling.requests(free, backlog, clock::now());
            for request in requests {
                let subject = self.subjects.pull();
                self.connection.request(subject, "p", request).await;
            }
        }
    }

    async fn send_frames(&mut self) {
        if !self.connection.is_up() {
            return;
        }
        let now = clock::now();
        for (client, session) in self.sessions.all_mut() {
            while let Some(frame) = session.link.poll_frame(now) {
                let subject = self.subjects.to_client(client, self.id);
                let token = format!("c{client:x}");
                let frame = Envelope::frame(frame);
                self.connection.request(subject, &token, frame).await;
            }
        }
    }
}
