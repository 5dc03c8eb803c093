//! What the workers of agents do, for those who observe the pool.

use std::collections::HashMap;
use std::sync::Arc;

use procpool_core::{ExitReason, Observe, WorkerInfo};

use super::sessions::Key;
use super::shared::Shared;
use crate::message::{Seen, SeenEvent};

/// See the module.
pub(super) struct Watching {
    shared: Arc<Shared>,
    /// What agents were asked to tell.
    wanted: Option<Observe>,
    /// The workers that are up.
    workers: HashMap<Key, Vec<WorkerInfo>>,
    /// The places in the pool of the places in agents' pools: numbers of its own, since each agent
    /// counts from 0.
    places: HashMap<(Key, u32), usize>,
}

impl Watching {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
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
        let wanted = self.shared.tracer.observed();
        if wanted.is_none() {
            // Nobody hears of it. Who observes the pool next is told anew who is up.
            self.end_all(ExitReason::Closed);
        }
        std::mem::replace(&mut self.wanted, wanted) != wanted
    }

    /// What an agent has told.
    pub(super) fn seen(&mut self, key: Key, seen: Seen) {
        if self.wanted.is_none() {
            return;
        }
        if seen.is_start {
            let is_up = |worker: &WorkerInfo| {
                let is_of =
                    |it: &SeenEvent| matches!(it, SeenEvent::Up { worker: up, .. } if up == worker);
                seen.events.iter().any(is_of)
            };
            let workers = self.workers.entry(key).or_default();
            let (up, gone) = std::mem::take(workers).into_iter().partition(is_up);
            *workers = up;
            self.end(gone, ExitReason::Crashed);
        }
        for event in seen.events {
            self.tell(key, event);
        }
        if seen.lost > 0 {
            self.shared.tracer.lost(seen.lost);
        }
    }

    fn tell(&mut self, key: Key, event: SeenEvent) {
        let tracer = &self.shared.tracer;
        let workers = self.workers.entry(key).or_default();
        match event {
            SeenEvent::Up { worker, place } => {
                if !workers.contains(&worker) {
                    workers.push(worker.clone());
                    let place = self.place(key, place);
                    self.shared.tracer.worker_up(&worker, place);
                }
            }
            SeenEvent::Ended { worker, reason } => {
                if workers.contains(&worker) {
                    workers.retain(|it| *it != worker);
                    tracer.worker_ended(&worker, reason);
                }
            }
            SeenEvent::Refused { worker, call } => tracer.call_refused(&worker, call),
            SeenEvent::Chunk {
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
                tracer.chunk_ended(&worker, call, items, took, ago);
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

    /// An agent is no more.
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
            self.shared.tracer.worker_ended(&worker, reason);
        }
    }
}
