//! What happens to a client's workers, for the client if somebody observes its pool.

use std::collections::VecDeque;
use std::time::Instant;

use procpool_core::{Observe, Observer, Pool, PoolEvent, WorkerInfo};

use super::local_pool::LocalPool;
use crate::message::{ObservedEvent, ObservedEvents};

/// So many events go into one message.
const MOST_EVENTS: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Observation {
    wanted: Option<Observe>,
    attached: Option<Attached>,
    /// What was taken of observers that were there before.
    before: VecDeque<ObservedEvents>,
}

/// The observer of the pool that there is.
struct Attached {
    observer: Observer,
    /// Its times are since then.
    since: Instant,
    /// Nothing was taken of it.
    is_new: bool,
    /// How many of the events that it has dropped are counted.
    lost: u64,
}

impl Observation {
    /// The client wants to know this, of this pool if there is one.
    pub(super) fn set(&mut self, wanted: Option<Observe>, pool: Option<&LocalPool>, machine: &str) {
        if wanted.is_none() {
            *self = Self::default();
            return;
        }
        self.wanted = wanted;
        if let Some(pool) = pool {
            self.attach(pool, machine);
        }
    }

    /// There is this pool now. What has happened in the one before is kept.
    pub(super) fn attach(&mut self, pool: &LocalPool, machine: &str) {
        let Some(wanted) = self.wanted else {
            return;
        };
        let since = Instant::now();
        // It fails in a copy of this process alone.
        let Ok(observer) = pool.observe(wanted) else {
            return;
        };
        if let Some(mut old) = self.attached.take() {
            while let Some(events) = old.take(machine) {
                self.before.push_back(events);
            }
        }
        self.attached = Some(Attached {
            observer,
            since,
            is_new: true,
            lost: 0,
        });
    }

    /// What has happened since the last time, on the machine of this name; to be asked until there
    /// is nothing.
    pub(super) fn take(&mut self, machine: &str) -> Option<ObservedEvents> {
        let before = self.before.pop_front();
        before.or_else(|| self.attached.as_mut()?.take(machine))
    }
}

impl Attached {
    fn take(&mut self, machine: &str) -> Option<ObservedEvents> {
        let mut taken = ObservedEvents {
            is_start: std::mem::take(&mut self.is_new),
            ..ObservedEvents::default()
        };
        while taken.events.len() < MOST_EVENTS
            && let Some(event) = self.observer.try_recv()
        {
            taken.events.extend(carried(event, self.since, machine));
        }
        let lost = self.observer.dropped();
        taken.lost = lost - std::mem::replace(&mut self.lost, lost);
        (taken.is_start || !taken.events.is_empty() || taken.lost > 0).then_some(taken)
    }
}

/// What a client is told of this event. Of its items it knows by itself.
fn carried(event: PoolEvent, since: Instant, machine: &str) -> Option<ObservedEvent> {
    let here = |worker: WorkerInfo| worker.with_machine(machine);
    Some(match event {
        PoolEvent::WorkerUp {
            worker, position, ..
        } => ObservedEvent::Up {
            worker: here(worker),
            place: u32::try_from(position).unwrap_or(u32::MAX),
        },
        PoolEvent::WorkerEnded { worker, reason, .. } => ObservedEvent::Ended {
            worker: here(worker),
            reason,
        },
        PoolEvent::CallRefused { worker, call, .. } => ObservedEvent::Refused {
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
        } => ObservedEvent::Chunk {
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
