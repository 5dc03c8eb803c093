//! What an agent has of a client.

use std::collections::HashMap;
use std::time::Duration;

use procpool_core::{ContentId, Observe, WorkerOptions};

use super::host::Captures;
use crate::link::{Limits, Link};
use crate::message::PieceId;

/// How long a client may say nothing before it is asked whether it lives.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// The same of a client that has no work here, but perhaps a pool with workers.
const ASK_IDLE: Duration = Duration::from_secs(60);

/// A session with a client.
pub(super) struct Session {
    pub(super) number: u32,
    pub(super) link: Link,
    pub(super) opened: Duration,
    /// When it was asked last.
    pub(super) asked: Duration,
    /// Since when nobody is there.
    pub(super) gone_since: Option<Duration>,
    pub(super) is_welcome: bool,
    /// What its workers are to be, until all is there that handles in it mean.
    pub(super) options: Option<(WorkerOptions, Captures)>,
    /// There is a pool for it, or will be with its first piece.
    pub(super) is_hosted: bool,
    /// What the client wants to know of its workers.
    pub(super) observes: Option<Observe>,
    /// Parts that have come of what is large.
    bodies: HashMap<PieceId, Vec<u8>>,
    contents: HashMap<ContentId, Vec<u8>>,
    /// The values that the client was asked for, and for which piece. Others that need them wait.
    asked_for: HashMap<ContentId, PieceId>,
}

impl Session {
    pub(super) fn new(number: u32, limits: Limits, now: Duration) -> Self {
        Self {
            number,
            link: Link::new(number, limits),
            opened: now,
            asked: now,
            gone_since: None,
            is_welcome: false,
            options: None,
            is_hosted: false,
            observes: None,
            bodies: HashMap::new(),
            contents: HashMap::new(),
            asked_for: HashMap::new(),
        }
    }

    /// When the client is to be asked whether it lives, if nothing is heard of it. `works`:
    /// something depends on the answer.
    pub(super) fn ask_at(&self, works: bool) -> Duration {
        let heard = self.link.heard().unwrap_or(self.opened);
        if works || !self.is_welcome || self.gone_since.is_some() {
            (heard + ASK_AFTER).max(self.asked + ASK_AFTER / 2)
        } else {
            heard.max(self.asked) + ASK_IDLE
        }
    }

    /// A part of a piece has come. Gives all of it, if this is the last one.
    pub(super) fn add_body(
        &mut self,
        piece: PieceId,
        part: &[u8],
        is_last: bool,
    ) -> Option<Vec<u8>> {
        self.bodies
            .entry(piece)
            .or_default()
            .extend_from_slice(part);
        is_last.then(|| self.bodies.remove(&piece))?
    }

    /// The same of a value.
    pub(super) fn add_content(
        &mut self,
        id: ContentId,
        part: &[u8],
        is_last: bool,
    ) -> Option<Vec<u8>> {
        self.contents.entry(id).or_default().extend_from_slice(part);
        is_last.then(|| self.contents.remove(&id))?
    }

    /// The client is asked for those of these values that are not on their way: says which, and
    /// remembers that they are for this piece.
    pub(super) fn ask_for(&mut self, piece: PieceId, mut ids: Vec<ContentId>) -> Vec<ContentId> {
        ids.retain(|id| !self.asked_for.contains_key(id));
        self.asked_for.extend(ids.iter().map(|id| (*id, piece)));
        ids
    }

    /// A value has come, or does not come. Says for which piece it was asked for.
    pub(super) fn was_asked_for(&mut self, id: ContentId) -> Option<PieceId> {
        self.contents.remove(&id);
        self.asked_for.remove(&id)
    }
}
