//! What is large and on its way to an agent: in parts, so that it is not all copied at once.

use std::collections::VecDeque;

use bytes::Bytes;
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
    /// What of it has not gone.
    rest: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Content(ContentId),
    Body(PieceId),
}

impl What {
    fn message(self, part: Bytes, is_last: bool) -> ToAgent {
        let part = Blob(part);
        match self {
            Self::Content(id) => ToAgent::Content { id, part, is_last },
            Self::Body(piece) => ToAgent::Body {
                piece,
                part,
                is_last,
            },
        }
    }
}

impl Outbox {
    /// A value goes, unless it is on its way.
    pub(crate) fn add_content(&mut self, content: &BroadcastContent) {
        let what = What::Content(content.id());
        if !self.waiting.iter().any(|it| it.what == what) {
            let rest = Blob::of_content(content.clone()).0;
            self.waiting.push_back(Large { what, rest });
        }
    }

    /// A piece goes.
    pub(crate) fn add_body(&mut self, piece: PieceId, rest: Bytes) {
        let what = What::Body(piece);
        self.waiting.push_back(Large { what, rest });
    }

    /// Gives the link as much as it should have.
    pub(crate) fn feed(&mut self, link: &mut Link) {
        while link.backlog() < ENOUGH
            && let Some(large) = self.waiting.front_mut()
        {
            let part = large.rest.split_to(large.rest.len().min(PART));
            let is_last = large.rest.is_empty();
            let message = large.what.message(part, is_last);
            link.send(Lane::Data, to_bytes(&message));
            if is_last {
                self.waiting.pop_front();
            }
        }
    }
}
