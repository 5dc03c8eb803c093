//! Pieces that the local pools run, and what these say of them.

use std::collections::HashMap;

use procpool_core::{BroadcastContent, EncodedChunk, OutcomeBatch, TaskError};

use super::Agent;
use super::work::{Report, Work};
use crate::clock;
use crate::link::Lane;
use crate::message::{Blob, ClientId, Line, PieceId, ToClient};

impl Agent {
    /// Begins a piece, if everything is there that it needs.
    pub(super) fn start(&mut self, client: ClientId, piece: PieceId) {
        let Some(work) = self.taken.get_mut(client, piece) else {
            return;
        };
        let is_hosted = self.sessions.get(client).is_some_and(|it| it.is_hosted);
        if !work.may_run() || work.has_begun() || !is_hosted {
            return;
        }
        let mut chunk = match work.take_chunk() {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return self.fail(client, piece, error),
            None => {
                return self.say(client, Lane::Control, &ToClient::Fetch { piece });
            }
        };
        let missing = chunk.missing();
        let needed = self.contents.provide(&mut chunk, &missing);
        let work = self.taken.get_mut(client, piece).expect("it is there");
        // What the client has no more is an error of each item that means it.
        if !needed.is_empty() && !work.lacks_values() {
            work.wait_for(chunk, needed.iter().copied().collect());
            return self.need(client, piece, needed);
        }
        self.begin(client, piece, chunk);
    }

    fn begin(&mut self, client: ClientId, piece: PieceId, chunk: EncodedChunk) {
        let reports = self.reports.clone();
        let number = self.sessions.get(client).map_or(0, |it| it.number);
        let indices = chunk.first_index()..chunk.first_index() + chunk.count();
        let emits = chunk.options().emits;
        let sent: Vec<_> = chunk.contents().iter().map(BroadcastContent::id).collect();
        let sink = move |batch: OutcomeBatch| {
            // Without an agent there is nobody to tell.
            let _ = reports.send(Report::Outcomes {
                client,
                session: number,
                piece,
                batch,
            });
        };
        match self.host.begin(client, chunk, sink) {
            Ok(running) => {
                let work = self.taken.get_mut(client, piece).expect("it is there");
                work.run(running, indices, emits, sent);
                self.take_values(client, piece);
            }
            Err(error) => self.fail(client, piece, error),
        }
    }

    /// All of a piece's items that have no outcome end like this.
    pub(super) fn fail(&mut self, client: ClientId, piece: PieceId, error: TaskError) {
        let error = error.with_machine(&self.machine);
        self.say(client, Lane::Data, &ToClient::Failed { piece, error });
        self.taken.remove(client, piece);
        self.intake.ended(client, piece, clock::now());
    }

    /// What the local pools have said.
    pub(super) fn report(&mut self, reports: Vec<Report>) {
        let mut touched: Vec<(ClientId, PieceId)> = Vec::new();
        let mut lines: HashMap<ClientId, Vec<Line>> = HashMap::new();
        let mut is_finished = false;
        for report in reports {
            match report {
                Report::Outcomes {
                    client,
                    session,
                    piece,
                    batch,
                } => {
                    let current = self.sessions.number(client);
                    if current != Some(session) {
                        continue;
                    }
                    if let Some(work) = self.taken.get_mut(client, piece) {
                        work.add_outcomes(batch);
                        if touched.last() != Some(&(client, piece)) {
                            touched.push((client, piece));
                        }
                    }
                }
                Report::Value { client, piece } => self.take_values(client, piece),
                Report::Answer(client, answer) => self.say(client, Lane::Data, &answer),
                Report::Line(client, line) => lines.entry(client).or_default().push(line),
                Report::Finished => is_finished = true,
            }
        }
        for (client, lines) in lines {
            self.say(client, Lane::Data, &ToClient::Lines(lines));
        }
        if is_finished {
            self.say_goodbye();
        }
        touched.sort_unstable();
        touched.dedup();
        for (client, piece) in touched {
            self.take_values(client, piece);
        }
    }

    /// Sends the values that an item has emitted, as far as there is room for them.
    pub(super) fn take_values(&mut self, client: ClientId, piece: PieceId) {
        let reports = self.reports.clone();
        while let Some(value) = self
            .taken
            .get_mut(client, piece)
            .and_then(|it| it.next_value(&reports, client, piece))
        {
            self.send_contents(client, piece, value.contents());
            self.say(client, Lane::Data, &ToClient::Value { piece, value });
        }
        self.send_outcomes(client, piece);
    }

    /// The values that handles in a result mean, unless the client has sent them itself.
    fn send_contents(&mut self, client: ClientId, piece: PieceId, contents: Vec<BroadcastContent>) {
        for content in contents {
            let id = content.id();
            let is_known = self
                .taken
                .get(client, piece)
                .is_some_and(|it| it.has_sent(id));
            if !is_known {
                let bytes = Blob::of_content(content);
                self.say(client, Lane::Data, &ToClient::Content { id, bytes });
            }
        }
    }

    fn send_outcomes(&mut self, client: ClientId, piece: PieceId) {
        while let Some(batch) = (self.taken.get_mut(client, piece)).and_then(Work::next_outcomes) {
            self.send_contents(client, piece, batch.contents());
            self.say(client, Lane::Data, &ToClient::Outcomes { piece, batch });
        }
        let work = self.taken.get(client, piece);
        if work.is_some_and(Work::is_through) {
            self.taken.remove(client, piece);
            self.intake.ended(client, piece, clock::now());
        }
    }
}
