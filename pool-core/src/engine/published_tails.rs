//! A look at what workers publish, without the pool's lock.

use std::sync::Arc;

use super::parent_channel::ParentChannel;
use crate::shm::region::Region;
use crate::sync::atomic::Ordering;
use crate::sync::{IS_MODEL, thread::spin_loop};

/// What can be looked at without the pool's lock: whether any of a few workers has published
/// something since.
#[derive(Default)]
pub(super) struct PublishedTails {
    queues: [Option<(Arc<Region>, u64)>; MAX_WORKERS],
}

/// A thread looks for itself only where there are idle processors, so that few workers are busy.
const MAX_WORKERS: usize = 4;

impl PublishedTails {
    /// Looks at this one, too. `false`: there is no room for more.
    pub(super) fn add(&mut self, channel: &ParentChannel) -> bool {
        let free = self.queues.iter_mut().find(|worker| worker.is_none());
        let Some(free) = free else {
            return false;
        };
        *free = Some(channel.last_seen());
        true
    }

    /// Looks for a microsecond or so. `true`: there is something new.
    pub(super) fn has_changed(&self) -> bool {
        (0..LOOKS).any(|_| {
            spin_loop();
            self.queues.iter().flatten().any(|(region, seen)| {
                let tail = &region.words().response_tail;
                tail.load(Ordering::Relaxed) != *seen
            })
        })
    }
}

/// How often to look before it is time to ask whether somebody else has brought the news, or
/// has given another worker something to do.
const LOOKS: u32 = if IS_MODEL { 2 } else { 32 };
