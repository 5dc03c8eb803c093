//! Calls whose handle is kept for a while, and what is done with it in the end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use fastrand::Rng;
use procpool::{MapHandle, TaskError, TaskHandle};

use super::job::{Item, Job, Outcome};
use super::oracle::CallRecord;
use super::plan::{Stop, one_in};

/// A call that was made and has not been looked at.
pub(crate) trait Waiting: Send {
    /// Looks at it, or throws it away.
    fn settle(self: Box<Self>, rng: &mut Rng);

    /// Whether it may not end until it is stopped: then nobody may wait for others before it is.
    fn is_urgent(&self) -> bool;
}

/// What a callback does after it has looked at the outcome.
pub(crate) type Afterwards = Box<dyn FnOnce() + Send>;

/// How a handle is asked.
#[derive(Debug, Clone, Copy)]
enum Way {
    Get,
    GetTimeout,
    Wait,
    Poll,
    Await,
    Drop,
}

impl Way {
    fn random(rng: &mut Rng) -> Self {
        let ways = [
            Self::Get,
            Self::GetTimeout,
            Self::Wait,
            Self::Poll,
            Self::Await,
            Self::Drop,
        ];
        ways[rng.usize(..ways.len())]
    }
}

/// Of `apply_async`.
pub(crate) struct WaitingTask<J: Job> {
    handle: TaskHandle<J::Answer>,
    item: Arc<Item>,
    call: Arc<CallRecord>,
    stop: Option<Stop>,
}

impl<J: Job> WaitingTask<J> {
    pub(crate) fn new(
        handle: TaskHandle<J::Answer>,
        item: Item,
        call: Arc<CallRecord>,
        stop: Option<Stop>,
        afterwards: Option<Afterwards>,
    ) -> Self {
        let item = Arc::new(item);
        if let Some(afterwards) = afterwards {
            let (call, item) = (call.clone(), item.clone());
            call.ledger.clone().begin(1);
            handle.on_complete(move |outcome| {
                call.check::<J>(&item, None, outcome.as_ref());
                call.ledger.end(1);
                afterwards();
            });
        }
        Self {
            handle,
            item,
            call,
            stop,
        }
    }
}

impl<J: Job> Waiting for WaitingTask<J> {
    fn settle(self: Box<Self>, rng: &mut Rng) {
        let Self {
            mut handle,
            item,
            call,
            stop,
        } = *self;
        let way = Way::random(rng);
        let operation = format!("settle {} of {item:?} by {way:?}, {stop:?}", call.kind);
        let _operation = call.ledger.operation(operation);
        let stop = stop.or_else(|| random_stop(rng));
        if let Some(stop) = stop {
            delay(rng);
            call.is_stopped.store(true, Ordering::SeqCst);
            match stop {
                Stop::Cancel => handle.cancel(),
                Stop::Kill => handle.kill(),
            }
        }
        let outcome = match way {
            Way::Drop => return call.enter_unseen(std::slice::from_ref(&item)),
            Way::Get => handle.get(),
            Way::GetTimeout => loop {
                if let Some(outcome) = handle.get_timeout(patience(rng)) {
                    call.check::<J>(&item, None, outcome.as_ref());
                    break handle.get();
                }
            },
            Way::Wait => {
                handle.wait();
                handle.get()
            }
            Way::Poll => {
                while !handle.wait_timeout(patience(rng)) {}
                if !handle.is_ready() || handle.is_successful().is_none() {
                    call.complain(&item, None, "it was there and is not any more");
                }
                handle.get()
            }
            Way::Await => block_on(handle),
        };
        call.enter::<J>(&item, None, outcome.as_ref());
    }

    fn is_urgent(&self) -> bool {
        self.stop.is_some()
    }
}

/// Of `map_async`.
pub(crate) struct WaitingMap<J: Job> {
    handle: MapHandle<J::Answer>,
    items: Arc<Vec<Item>>,
    call: Arc<CallRecord>,
    stop: Option<Stop>,
}

impl<J: Job> WaitingMap<J> {
    pub(crate) fn new(
        handle: MapHandle<J::Answer>,
        items: Vec<Item>,
        call: Arc<CallRecord>,
        stop: Option<Stop>,
        afterwards: Option<Afterwards>,
    ) -> Self {
        let items = Arc::new(items);
        if let Some(afterwards) = afterwards {
            let (call, items) = (call.clone(), items.clone());
            call.ledger.clone().begin(1);
            handle.on_complete(move |outcome| {
                look_at_all::<J>(&call, &items, outcome.as_ref(), false);
                call.ledger.end(1);
                afterwards();
            });
        }
        Self {
            handle,
            items,
            call,
            stop,
        }
    }
}

impl<J: Job> Waiting for WaitingMap<J> {
    fn settle(self: Box<Self>, rng: &mut Rng) {
        let Self {
            mut handle,
            items,
            call,
            stop,
        } = *self;
        let way = Way::random(rng);
        let operation = format!(
            "settle {} of {} {} by {way:?}, {stop:?}",
            call.kind,
            items.len(),
            call.job
        );
        let _operation = call.ledger.operation(operation);
        let stop = stop.or_else(|| random_stop(rng));
        if let Some(stop) = stop {
            delay(rng);
            call.is_stopped.store(true, Ordering::SeqCst);
            match stop {
                Stop::Cancel => handle.cancel(),
                Stop::Kill => handle.kill(),
            }
        }
        let outcome = match way {
            Way::Drop => return call.enter_unseen(&items),
            Way::Get => handle.get(),
            Way::GetTimeout => loop {
                if let Some(outcome) = handle.get_timeout(patience(rng)) {
                    look_at_all::<J>(&call, &items, outcome.as_ref(), false);
                    break handle.get();
                }
            },
            Way::Wait => {
                handle.wait();
                handle.get()
            }
            Way::Poll => {
                while !handle.wait_timeout(patience(rng)) {}
                if !handle.is_ready() || handle.is_successful().is_none() {
                    call.ledger.violation("a map was there and is not any more");
                }
                handle.get()
            }
            Way::Await => block_on(handle),
        };
        look_at_all::<J>(&call, &items, outcome.as_ref(), true);
    }

    fn is_urgent(&self) -> bool {
        self.stop.is_some()
    }
}

/// Checks what a whole map has answered, and enters it unless that is done elsewhere.
pub(crate) fn look_at_all<J: Job>(
    call: &CallRecord,
    items: &[Item],
    outcome: Result<&Vec<J::Answer>, &TaskError>,
    enter: bool,
) {
    let look = |item: &Item, outcome: Result<&J::Answer, &TaskError>| {
        if enter {
            call.enter::<J>(item, Some(item.index), outcome);
        } else {
            call.check::<J>(item, Some(item.index), outcome);
        }
    };
    match outcome {
        Ok(answers) => {
            if answers.len() != items.len() {
                call.ledger.violation(&format!(
                    "{} of {} {} gave {} results",
                    call.kind,
                    items.len(),
                    call.job,
                    answers.len()
                ));
            }
            for (item, answer) in items.iter().zip(answers) {
                look(item, Ok(answer));
            }
        }
        Err(error) => {
            let Some(failed) = error.index().and_then(|index| items.get(index)) else {
                call.ledger.violation(&format!(
                    "{} of {} {} has failed at no item: {error:?}",
                    call.kind,
                    items.len(),
                    call.job
                ));
                return if enter {
                    call.enter_unseen(items)
                };
            };
            look(failed, Err(error));
            if let Some(item) = items[..failed.index]
                .iter()
                .find(|item| !item.deed.can_succeed())
            {
                call.complain(item, Some(error), "a later item's error was reported");
            }
            if enter {
                call.enter_unseen(&items[..failed.index]);
                call.enter_unseen(&items[failed.index + 1..]);
            }
        }
    }
}

/// Where nothing must be stopped, something may be.
fn random_stop(rng: &mut Rng) -> Option<Stop> {
    match rng.u32(..10) {
        0 => Some(Stop::Cancel),
        1 => Some(Stop::Kill),
        _ => None,
    }
}

fn delay(rng: &mut Rng) {
    if one_in(rng, 2) {
        thread::sleep(Duration::from_micros(rng.u64(..5000)));
    }
}

fn patience(rng: &mut Rng) -> Duration {
    Duration::from_micros(if one_in(rng, 4) { 0 } else { rng.u64(..20_000) })
}

/// Waits for a future, as a runtime would.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// The outcomes of `try_map`.
pub(crate) fn look_at_each<J: Job>(call: &CallRecord, items: &[Item], outcomes: &[Outcome<J>]) {
    if outcomes.len() != items.len() {
        call.ledger.violation(&format!(
            "{} of {} {} gave {} results",
            call.kind,
            items.len(),
            call.job,
            outcomes.len()
        ));
    }
    for (item, outcome) in items.iter().zip(outcomes) {
        call.enter::<J>(item, Some(item.index), outcome.as_ref());
    }
}
