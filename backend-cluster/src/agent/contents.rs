//! Broadcast values that this machine has.

use std::collections::{HashMap, VecDeque};

use procpool_core::{BroadcastContent, ContentId, EncodedChunk};

/// How many bytes are kept for those that may need them again.
const MOST: usize = 4 << 30;

/// The values, the oldest of which go first when there are too many. What runs keeps its own.
#[derive(Default)]
pub(super) struct Contents {
    all: HashMap<ContentId, BroadcastContent>,
    order: VecDeque<ContentId>,
    bytes: usize,
}

impl Contents {
    pub(super) fn add(&mut self, content: BroadcastContent) {
        let id = content.id();
        self.bytes += content.bytes().len();
        if let Some(old) = self.all.insert(id, content) {
            self.bytes -= old.bytes().len();
        } else {
            self.order.push_back(id);
        }
        while self.bytes > MOST && self.order.len() > 1 {
            let oldest = self.order.pop_front();
            if let Some(old) = oldest.and_then(|id| self.all.remove(&id)) {
                self.bytes -= old.bytes().len();
            }
        }
    }

    pub(super) fn get(&self, id: &ContentId) -> Option<&BroadcastContent> {
        self.all.get(id)
    }

    /// Gives the chunk those of these that there are. Says which there are not.
    pub(super) fn provide(&self, chunk: &mut EncodedChunk, ids: &[ContentId]) -> Vec<ContentId> {
        let mut missing = Vec::new();
        for id in ids {
            match self.get(id) {
                Some(content) => {
                    chunk.provide(content);
                }
                None => missing.push(*id),
            }
        }
        missing
    }
}
