//! What a pool for a client needs: its options, and the values that handles in these and in its
//! pieces mean.

use procpool_core::{BroadcastContent, ContentId, WorkerOptions};

use super::Agent;
use super::host::Captures;
use crate::link::Lane;
use crate::message::{ClientId, PieceId, ToClient};

impl Agent {
    /// A client welcomes this agent, and says what its workers are to be.
    pub(super) fn welcomed(
        &mut self,
        client: ClientId,
        options: WorkerOptions,
        captures: Captures,
    ) {
        let Some(session) = self.sessions.get_mut(client) else {
            return;
        };
        if std::mem::replace(&mut session.is_welcome, true) {
            return;
        }
        session.options = Some((options, captures));
        self.host_client(client);
        let session = self.sessions.get(client);
        if let Some((options, _)) = session.and_then(|it| it.options.as_ref()) {
            let contents = options.missing();
            self.need(client, 0, contents);
        }
    }

    /// Has a pool for this client, if everything is there that its options mean.
    fn host_client(&mut self, client: ClientId) {
        let Some(session) = self.sessions.get_mut(client) else {
            return;
        };
        let Some((mut options, captures)) = session.options.take() else {
            return;
        };
        for id in options.missing() {
            if let Some(content) = self.contents.get(&id) {
                options.provide(content);
            }
        }
        if !options.missing().is_empty() {
            session.options = Some((options, captures));
            return;
        }
        session.is_hosted = true;
        self.host.welcome(client, options, captures);
        self.host.observe(client, session.observes);
        let pieces: Vec<PieceId> = self.taken.of(client).map(|(piece, _)| piece).collect();
        for piece in pieces {
            self.start(client, piece);
        }
    }

    /// All of a value has come, or it does not come for the piece that it was asked for.
    pub(super) fn content(&mut self, client: ClientId, id: ContentId, bytes: Option<Vec<u8>>) {
        let Some(session) = self.sessions.get_mut(client) else {
            return;
        };
        let asker = session.was_asked_for(id);
        if let Some(bytes) = bytes
            && let Ok(content) = BroadcastContent::new(&bytes)
            && content.id() == id
        {
            self.contents.add(content);
        }
        self.host_client(client);
        let is_there = self.contents.get(&id).is_some();
        let mut ready = Vec::new();
        let mut waiting = Vec::new();
        for (piece, work) in self.taken.of(client) {
            if is_there || Some(piece) == asker {
                if work.has_come(id, is_there) {
                    ready.push(piece);
                }
            } else if work.needs(id) {
                waiting.push(piece);
            }
        }
        for piece in ready {
            self.start(client, piece);
        }
        // The call that it was asked for may be over at the client; another one has it.
        if let Some(piece) = waiting.into_iter().min() {
            self.need(client, piece, vec![id]);
        }
    }

    /// Asks the client for these values, but for those that are on their way.
    pub(super) fn need(&mut self, client: ClientId, piece: PieceId, contents: Vec<ContentId>) {
        let Some(session) = self.sessions.get_mut(client) else {
            return;
        };
        let contents = session.ask_for(piece, contents);
        if !contents.is_empty() {
            self.say(client, Lane::Control, &ToClient::Need { piece, contents });
        }
    }
}
