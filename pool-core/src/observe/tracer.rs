//! Where a pool reports what happens in it, for all who observe it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event_queue::EventQueue;
use super::running_calls::{KnownCall, RunningCall, RunningCalls};
use super::trace::Event;
use super::worker_exit::ExitReason;
use crate::process::worker_info::WorkerInfo;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::sys;

/// Where an [`Executor`](crate::Executor) reports what happens: each has one, as long as it lives,
/// and reports whether anybody observes it or not. Clones are the same tracer.
///
/// An executor reports its workers itself. Items report themselves when they have their outcome,
/// once their chunk was [told](crate::Chunk::trace) whom to.
#[derive(Clone, Default)]
pub struct Tracer {
    hub: Arc<Hub>,
}

struct Hub {
    /// Somebody wants to know of each item.
    wants_items: AtomicBool,
    /// Somebody wants to know of chunks that take so long, in nanoseconds; `u64::MAX`: nobody does.
    shortest_chunk: AtomicU64,
    /// Somebody wants to know of failures who does not want to know of each item.
    wants_failures: AtomicBool,
    calls: Mutex<RunningCalls>,
    state: Mutex<State>,
    /// Who wants to know when observers come and go.
    on_change: Mutex<Option<Arc<OnChange>>>,
}

type OnChange = dyn Fn() + Send + Sync;

#[derive(Default)]
struct State {
    /// Who is up, for observers who come later: as they were told of.
    up: Vec<(WorkerInfo, Event)>,
    observers: Vec<Observed>,
}

/// Who observes it.
struct Observed {
    queue: Arc<EventQueue>,
    detail: Observe,
}

impl Observed {
    /// It is told of chunks that take so long, in nanoseconds; `u64::MAX`: of none.
    fn shortest_chunk(&self) -> u64 {
        match self.detail {
            Observe::Chunks { shortest } => nanoseconds(shortest),
            Observe::Workers | Observe::Items => u64::MAX,
        }
    }

    fn wants_failures(&self) -> bool {
        matches!(self.detail, Observe::Chunks { .. })
    }
}

/// How much an observer wants to know: see [`Pool::observe`](crate::Pool::observe).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Observe {
    /// What becomes of workers. It costs a task nothing.
    Workers,
    /// That, each item that has failed, without metrics, and what workers were at: each chunk that
    /// took at least so long. Of those that are too short, nobody is told, so that a pool of tiny
    /// tasks is not slowed down; 1 ms is enough for a picture. A [`SerialPool`](crate::SerialPool)
    /// has none.
    Chunks {
        /// Shorter ones are passed over.
        shortest: Duration,
    },
    /// What becomes of workers, and how each item has ended. Each is measured for that, which costs
    /// a few microseconds.
    Items,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            wants_items: AtomicBool::new(false),
            shortest_chunk: AtomicU64::new(u64::MAX),
            wants_failures: AtomicBool::new(false),
            calls: Mutex::default(),
            state: Mutex::default(),
            on_change: Mutex::default(),
        }
    }
}

impl Tracer {
    /// Reports a worker that is up from now on, in this place of the pool, counted from 0.
    pub fn worker_up(&self, worker: &WorkerInfo, position: usize) {
        let event = Event::WorkerUp {
            worker: worker.clone(),
            position,
            at: sys::now_ns(),
        };
        let mut state = self.lock();
        state.up.push((worker.clone(), event.clone()));
        state.tell(event);
    }

    /// Reports a worker that has ended.
    pub fn worker_ended(&self, worker: &WorkerInfo, reason: ExitReason) {
        let mut state = self.lock();
        state.up.retain(|(it, _)| it != worker);
        state.tell(Event::WorkerEnded {
            worker: worker.clone(),
            reason,
            at: sys::now_ns(),
        });
    }

    /// Reports a chunk of items that a worker has done: which items of the call these are, how long
    /// they took, and how long ago they ended. `call` is the call's [name](crate::Call::name), or
    /// the function's. It goes to those who observe chunks that take so long.
    pub fn chunk_ended(
        &self,
        worker: &WorkerInfo,
        call: impl Into<Cow<'static, str>>,
        items: Range<usize>,
        took: Duration,
        ago: Duration,
    ) {
        let took = nanoseconds(took);
        if self.wants_chunk(took) {
            let event = Event::Chunk {
                worker: worker.clone(),
                call: call.into(),
                first: items.start,
                items: u32::try_from(items.len()).unwrap_or(u32::MAX),
                took,
                at: sys::now_ns().saturating_sub(nanoseconds(ago)),
            };
            self.tell_chunk(event, took);
        }
    }

    /// Reports that so many events were lost on their way to this process: observers count them as
    /// [dropped](crate::Observer::dropped).
    pub fn lost(&self, events: u64) {
        for observer in &self.lock().observers {
            observer.queue.lost(events);
        }
    }

    /// The most that any observer wants to know of workers: [`Observe::Workers`], or
    /// [`Observe::Chunks`] with the shortest time. `None`: nobody observes the pool. An executor
    /// whose workers are on other machines asks them for no more than that; others need not ask.
    #[must_use]
    pub fn observed(&self) -> Option<Observe> {
        let state = self.lock();
        let shortest = state.observers.iter().map(Observed::shortest_chunk).min()?;
        Some(match shortest {
            u64::MAX => Observe::Workers,
            shortest => Observe::Chunks {
                shortest: Duration::from_nanos(shortest),
            },
        })
    }

    /// From now on, `changed` is called when an observer has come or gone, in the thread that has
    /// done that: then [`observed`](Self::observed) may say something else. It must not wait, nor
    /// panic. It takes the place of a function that was set before.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        *self.change_hook() = Some(Arc::new(changed));
    }

    fn change_hook(&self) -> MutexGuard<'_, Option<Arc<OnChange>>> {
        (self.hub.on_change.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        let hook = self.change_hook().clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Reports a system call of this name that a worker's sandbox has refused, while the worker
    /// lives.
    pub fn call_refused(&self, worker: &WorkerInfo, call: impl Into<Cow<'static, str>>) {
        self.lock().tell(Event::CallRefused {
            worker: worker.clone(),
            call: call.into(),
            at: sys::now_ns(),
        });
    }

    /// Reports items.
    pub(crate) fn tell_all(&self, events: Vec<Event>) {
        let state = self.lock();
        let wants_items = |it: &&Observed| it.detail == Observe::Items;
        for observer in state.observers.iter().filter(wants_items) {
            observer.queue.push(events.iter().cloned());
        }
    }

    /// Whether somebody wants to know of each item.
    #[inline]
    pub(crate) fn wants_items(&self) -> bool {
        self.hub.wants_items.load(Ordering::Relaxed)
    }

    /// Whether somebody wants to know of a chunk that took so many nanoseconds.
    #[inline]
    pub(crate) fn wants_chunk(&self, took: u64) -> bool {
        took >= self.hub.shortest_chunk.load(Ordering::Relaxed)
    }

    /// Reports a chunk that took so many nanoseconds, to those to whom it is long enough.
    #[cold]
    pub(crate) fn tell_chunk(&self, event: Event, took: u64) {
        let state = self.lock();
        let is_told = |it: &&Observed| it.shortest_chunk() <= took;
        for observer in state.observers.iter().filter(is_told) {
            observer.queue.push([event.clone()]);
        }
    }

    /// Whether somebody wants to know of failures alone.
    #[inline]
    pub(crate) fn wants_failures(&self) -> bool {
        self.hub.wants_failures.load(Ordering::Relaxed)
    }

    /// Reports items that have failed to those who do not want to know of each item.
    pub(crate) fn tell_failures(&self, events: &[Event]) {
        let state = self.lock();
        for observer in state.observers.iter().filter(|it| it.wants_failures()) {
            observer.queue.push(events.iter().cloned());
        }
    }

    /// A call of many items begins.
    pub(crate) fn call_begins(&self, call: KnownCall) {
        self.calls().add(call);
    }

    /// It has ended. (It need not be said, but then it is forgotten later.)
    pub(crate) fn call_ends(&self, call: *const dyn RunningCall) {
        self.calls().remove(call);
    }

    /// The calls of many items that have not ended, the oldest first.
    pub(crate) fn running_calls(&self) -> Vec<KnownCall> {
        self.calls().running()
    }

    fn calls(&self) -> MutexGuard<'_, RunningCalls> {
        (self.hub.calls.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, this observer is told of all: first, who is up.
    pub(crate) fn observe(&self, queue: &Arc<EventQueue>, detail: Observe) {
        let mut state = self.lock();
        queue.push(state.up.iter().map(|(_, event)| event.clone()));
        state.observers.push(Observed {
            queue: queue.clone(),
            detail,
        });
        self.count(&state);
        drop(state);
        self.changed();
    }

    /// This observer is told of nothing any more.
    pub(crate) fn leave(&self, queue: &Arc<EventQueue>) {
        let mut state = self.lock();
        state.observers.retain(|it| !Arc::ptr_eq(&it.queue, queue));
        self.count(&state);
        drop(state);
        queue.finish();
        self.changed();
    }

    fn count(&self, state: &State) {
        let wants_items = |it: &Observed| it.detail == Observe::Items;
        let wants_items = state.observers.iter().any(wants_items);
        self.hub.wants_items.store(wants_items, Ordering::Relaxed);
        let shortest = state.observers.iter().map(Observed::shortest_chunk).min();
        let shortest = shortest.unwrap_or(u64::MAX);
        self.hub.shortest_chunk.store(shortest, Ordering::Relaxed);
        let wants_failures = state.observers.iter().any(Observed::wants_failures);
        (self.hub.wants_failures).store(wants_failures, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.hub
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is longer than centuries is cut.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl State {
    fn tell(&self, event: Event) {
        for observer in &self.observers {
            observer.queue.push([event.clone()]);
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::super::event_queue::Taken;
    use super::*;

    fn told(observer: &EventQueue) -> Vec<String> {
        let mut taken = Taken::default();
        observer.take(&mut taken, Some(sys::now()));
        let name = |event: &Event| match event {
            Event::WorkerUp { worker, .. } => format!("{worker} is up"),
            Event::WorkerEnded { worker, .. } => format!("{worker} has ended"),
            other => format!("{other:?}"),
        };
        taken.events.iter().map(name).collect()
    }

    #[test]
    fn each_observer_is_told_of_all_from_who_is_up_on() {
        let tracer = Tracer::default();
        let [one, two] = [1, 2].map(|number| WorkerInfo::new(number, 0, 100 + number));
        tracer.worker_up(&one, 0);
        let early = Arc::new(EventQueue::default());
        tracer.observe(&early, Observe::Items);
        tracer.worker_up(&two, 1);
        tracer.worker_ended(&one, ExitReason::Crashed);
        let late = Arc::new(EventQueue::default());
        tracer.observe(&late, Observe::Workers);
        tracer.worker_ended(&two, ExitReason::Crashed);
        let all = [
            format!("{one} is up"),
            format!("{two} is up"),
            format!("{one} has ended"),
            format!("{two} has ended"),
        ];
        assert_eq!(told(&early), all);
        assert_eq!(told(&late), [all[1].clone(), all[3].clone()]);
        assert!(tracer.wants_items());
        tracer.leave(&early);
        assert!(!tracer.wants_items());
        tracer.worker_up(&one, 0);
        assert!(told(&early).is_empty());
    }

    /// For a pool whose workers are elsewhere, and tell only what somebody wants to know.
    #[test]
    fn it_says_what_observers_want_together() {
        use crate::sync::atomic::AtomicUsize;
        let tracer = Tracer::default();
        let changes = Arc::new(AtomicUsize::new(0));
        let of_tracer = changes.clone();
        tracer.on_change(move || {
            of_tracer.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(tracer.observed(), None);
        let shortest = |ms| Observe::Chunks {
            shortest: Duration::from_millis(ms),
        };
        let details = [Observe::Items, shortest(9), shortest(5), Observe::Workers];
        let observers = details.map(|detail| {
            let observer = Arc::new(EventQueue::default());
            tracer.observe(&observer, detail);
            observer
        });
        assert_eq!(tracer.observed(), Some(shortest(5)));
        let worker = WorkerInfo::new(1, 0, 7);
        let took = Duration::from_millis(7);
        tracer.chunk_ended(&worker, "call", 3..5, took, Duration::MAX);
        tracer.lost(2);
        let counts = observers.each_ref().map(|observer| {
            let mut taken = Taken::default();
            observer.take(&mut taken, Some(sys::now()));
            (taken.events.len(), taken.dropped)
        });
        assert_eq!(counts, [(0, 2), (0, 2), (1, 2), (0, 2)]);
        tracer.leave(&observers[2]);
        assert_eq!(tracer.observed(), Some(shortest(9)));
        tracer.leave(&observers[1]);
        assert_eq!(tracer.observed(), Some(Observe::Workers));
        assert_eq!(changes.load(Ordering::Relaxed), 6);
    }
}
