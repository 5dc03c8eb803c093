//! What is large and on its way to an agent: in parts, so that it is not all copied at once.

use std::collections::VecDeque;

use procpool_core::{BroadcastContent, ContentId};

use crate::link::{Lane, Link};
use crate::message::{Blob, PieceId, ToAgent, to_bytes};

/// How large a part is.
const PART: usize = 1 << 20;
/// How much a link has before it gets no more parts.
const ENOUGH: usize = 4 << 20;

/// See the module.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Large>,
}

struct Large {
    what: What,
    /// How much of it has gone.
    at: usize,
}

enum What {
    Content(BroadcastContent),
    Body(PieceId, Vec<u8>),
}

impl What {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Content(content) => content.bytes(),
            Self::Body(_, bytes) => bytes,
        }
    }

    fn message(&self, part: &[u8], is_last: bool) -> ToAgent {
        let part = Blob(part.to_vec());
        match self {
            Self::Content(content) => ToAgent::Content {
                id: content.id(),
                part,
                is_last,
            },
            Self::Body(piece, _) => ToAgent::Body {
                piece: *piece,
                part,
                is_last,
            },
        }
    }
}

impl Outbox {
    /// A value goes, unless it is on its way.
    pub(crate) fn add_content(&mut self, content: &BroadcastContent) {
        let id: ContentId = content.id();
        let is_same = |it: &Large| matches!(&it.what, What::Content(other) if other.id() == id);
        if !self.waiting.iter().any(is_same) {
            let what = What::Content(content.clone());
            self.waiting.push_back(Large { what, at: 0 });
        }
    }

    /// A piece goes.
    pub(crate) fn add_body(&mut self, piece: PieceId, bytes: Vec<u8>) {
        let what = What::Body(piece, bytes);
        self.waiting.push_back(Large { what, at: 0 });
    }

    /// Gives the link as much as it should have.
    pub(crate) fn feed(&mut self, link: &mut Link) {
        while link.backlog() < ENOUGH
            && let Some(large) = self.waiting.front_mut()
        {
            let bytes = large.what.bytes();
            let end = bytes.len().min(large.at + PART);
            let is_last = end == bytes.len();
            let message = large.what.message(&bytes[large.at..end], is_last);
            large.at = end;
            link.send(Lane::Data, to_bytes(&message));
            if is_last {
                self.waiting.pop_front();
            }
        }
    }
}
