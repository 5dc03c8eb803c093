//! What happens to the workers of agents, for those who observe the pool.

use std::collections::HashMap;

use procpool_core::{ExitReason, Observe, Tracer, WorkerInfo};

use super::sessions::Key;
use crate::message::{ObservedEvent, ObservedEvents};

/// See the module.
pub(super) struct Observing {
    tracer: Tracer,
    /// What agents were asked to tell.
    wanted: Option<Observe>,
    /// The workers that are up.
    workers: HashMap<Key, Vec<WorkerInfo>>,
    /// The places in the pool of the places in agents' pools, each of which counts from 0.
    places: HashMap<(Key, u32), usize>,
}

impl Observing {
    pub(super) fn new(tracer: Tracer) -> Self {
        Self {
            tracer,
            wanted: None,
            workers: HashMap::new(),
            places: HashMap::new(),
        }
    }

    /// What agents are to tell.
    pub(super) fn wanted(&self) -> Option<Observe> {
        self.wanted
    }

    /// Observers have come or gone. Says whether agents are to tell something else from now on.
    pub(super) fn observers_changed(&mut self) -> bool {
        let wanted = self.tracer.observed();
        if wanted.is_none() {
            // Nobody hears of it. Who observes the pool next is told anew who is up.
            self.end_all(ExitReason::Closed);
        }
        std::mem::replace(&mut self.wanted, wanted) != wanted
    }

    /// What an agent has told.
    pub(super) fn observed(&mut self, key: Key, observed: ObservedEvents) {
        if self.wanted.is_none() {
            return;
        }
        if observed.is_start {
            let workers = self.workers.entry(key).or_default();
            let is_up = |worker: &WorkerInfo| {
                let mut events = observed.events.iter();
                events.any(|it| matches!(it, ObservedEvent::Up { worker: up, .. } if up == worker))
            };
            let (up, gone) = std::mem::take(workers).into_iter().partition(is_up);
            *workers = up;
            self.end(gone, ExitReason::Crashed);
        }
        for event in observed.events {
            self.tell(key, event);
        }
        if observed.lost > 0 {
            self.tracer.lost(observed.lost);
        }
    }

    fn tell(&mut self, key: Key, event: ObservedEvent) {
        let workers = self.workers.entry(key).or_default();
        match event {
            ObservedEvent::Up { worker, place } => {
                if !workers.contains(&worker) {
                    workers.push(worker.clone());
                    let place = self.place(key, place);
                    self.tracer.worker_up(&worker, place);
                }
            }
            ObservedEvent::Ended { worker, reason } => {
                if workers.contains(&worker) {
                    workers.retain(|it| *it != worker);
                    self.tracer.worker_ended(&worker, reason);
                }
            }
            ObservedEvent::Refused { worker, call } => self.tracer.call_refused(&worker, call),
            ObservedEvent::Chunk {
                worker,
                call,
                first,
                items,
                took,
                ago,
            } => {
                // An agent may say anything.
                let first = usize::try_from(first).unwrap_or(usize::MAX);
                let items = first..first.saturating_add(items as usize);
                self.tracer.chunk_ended(&worker, call, items, took, ago);
            }
        }
    }

    fn place(&mut self, key: Key, place: u32) -> usize {
        if let Some(place) = self.places.get(&(key, place)) {
            return *place;
        }
        let is_free = |place: &usize| !self.places.values().any(|it| it == place);
        let free = (0..).find(is_free).unwrap_or_default();
        self.places.insert((key, place), free);
        free
    }

    /// An agent is no more, or cannot be reached.
    pub(super) fn given_up(&mut self, key: Key, reason: ExitReason) {
        let workers = self.workers.remove(&key).unwrap_or_default();
        self.end(workers, reason);
        self.places.retain(|(of, _), _| *of != key);
    }

    /// The pool ends, or nobody observes it.
    pub(super) fn end_all(&mut self, reason: ExitReason) {
        let workers = std::mem::take(&mut self.workers);
        self.end(workers.into_values().flatten().collect(), reason);
        self.places.clear();
    }

    fn end(&self, workers: Vec<WorkerInfo>, reason: ExitReason) {
        for worker in workers {
            self.tracer.worker_ended(&worker, reason);
        }
    }
}
