//! Agents: their intakes and workers, and what they hear and say.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Agent, CLIENT, Frame, Running, Said, World};
use crate::intake::{self, End, Intake, LEASE};
use crate::message::PieceId;

impl World {
    pub(super) fn start_agent(&mut self, slots: usize) {
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

    pub(super) fn say_to_client(&mut self, at: usize, said: Said) {
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

    pub(super) fn agent_acts(&mut self, at: usize) {
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

    pub(super) fn workers_work(&mut self, at: usize) {
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

    pub(super) fn agent_steps(&mut self, at: usize) {
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
}
