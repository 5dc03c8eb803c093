//! What an agent sees of a client's workers, for the client.

use std::time::Instant;

use procpool_core::{Observe, Observer, Pool, PoolEvent, WorkerInfo};

use super::local_pool::LocalPool;
use crate::message::{Seen, SeenEvent};

/// So many events are told at once. The others wait, as long as there is room for them.
const MOST_EVENTS: usize = 4096;

/// See the module.
#[derive(Default)]
pub(super) struct Watch {
    wanted: Option<Observe>,
    observed: Option<Observed>,
    /// What came before that, and is to be told first.
    before: Option<Seen>,
}

struct Observed {
    observer: Observer,
    /// Its times are since then.
    since: Instant,
    /// Nothing has been told of it.
    is_new: bool,
    /// How many events have been told that were lost.
    lost: u64,
}

impl Watch {
    /// The client wants to know this, of this pool if there is one.
    pub(super) fn want(
        &mut self,
        wanted: Option<Observe>,
        pool: Option<&LocalPool>,
        machine: &str,
    ) {
        self.wanted = wanted;
        if wanted.is_none() {
            *self = Self::default();
        } else if let Some(pool) = pool {
            self.see(pool, machine);
        }
    }

    /// There is this pool now.
    pub(super) fn see(&mut self, pool: &LocalPool, machine: &str) {
        let Some(wanted) = self.wanted else {
            return;
        };
        let since = Instant::now();
        // It fails in a copy of this process alone.
        if let Ok(observer) = pool.observe(wanted) {
            self.before = self.take(machine);
            self.observed = Some(Observed {
                observer,
                since,
                is_new: true,
                lost: 0,
            });
        }
    }

    /// What has happened since the last time, on the machine of this name. `None`: nothing.
    pub(super) fn take(&mut self, machine: &str) -> Option<Seen> {
        if let Some(before) = self.before.take() {
            return Some(before);
        }
        let observed = self.observed.as_mut()?;
        let mut seen = Seen {
            is_start: std::mem::take(&mut observed.is_new),
            ..Seen::default()
        };
        while seen.events.len() < MOST_EVENTS
            && let Some(event) = observed.observer.try_recv()
        {
            let event = told(event, observed.since, machine);
            seen.events.extend(event);
        }
        let lost = observed.observer.dropped();
        seen.lost = lost - std::mem::replace(&mut observed.lost, lost);
        (seen.is_start || !seen.events.is_empty() || seen.lost > 0).then_some(seen)
    }
}

/// What a client is told of this event. Of its items it knows by itself.
fn told(event: PoolEvent, since: Instant, machine: &str) -> Option<SeenEvent> {
    let here = |worker: WorkerInfo| worker.with_machine(machine);
    Some(match event {
        PoolEvent::WorkerUp {
            worker, position, ..
        } => SeenEvent::Up {
            worker: here(worker),
            place: u32::try_from(position).unwrap_or(u32::MAX),
        },
        PoolEvent::WorkerEnded { worker, reason, .. } => SeenEvent::Ended {
            worker: here(worker),
            reason,
        },
        PoolEvent::CallRefused { worker, call, .. } => SeenEvent::Refused {
            worker: here(worker),
            call,
        },
        PoolEvent::ChunkEnded {
            worker,
            call,
            first,
            items,
            took,
            at,
        } => SeenEvent::Chunk {
            worker: here(worker),
            call: call.into_owned(),
            first: first as u64,
            items: u32::try_from(items).unwrap_or(u32::MAX),
            took,
            ago: since.elapsed().saturating_sub(at),
        },
        _ => return None,
    })
}
