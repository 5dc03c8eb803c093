//! loom: the chunk that is being filled. One thread reads an input that may wait; another one finds
//! an idle worker, and asks for what is there. An input that waits until its earlier items have
//! begun goes on, every item begins once, and nothing is left behind.
//!
//! The asking thread asks once, as somebody does who is about to sleep, and again only when it was
//! told to. So an item that is kept back while the input waits is a deadlock, which loom tells.
//!
//! Caught when broken on purpose:
//! - a thread that takes over an input does not hand over its first item at once (which was a hang
//!   once);
//! - no barrier is executed for the reading thread;
//! - the wish is lowered after the look for an idle worker;
//! - nobody is told to look again when the reader hands over more at a time;
//! - what was claimed is not counted.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::explore;
use crate::api::handle::{Collector, ResultCell};
use crate::api::input::call_site::CallSite;
use crate::api::input::feed::{End, Pusher};
use crate::error::build_error::JoinError;
use crate::observe::stats::Stats;
use crate::sync::atomic::Ordering;
use crate::sync::{Condvar, FutexWord, Mutex, MutexGuard, thread};
use crate::sys::{self, Processor};
use crate::task::call_id::CallId;
use crate::task::chunk::Chunk;
use crate::task::encode::Limit;
use crate::task::executor::{Cancel, Executor};
use crate::task::open_input::OpenInput;
use crate::task::options::Options;
use crate::worker::function::FunctionId;

/// No input has more items.
const MOST: usize = 3;

/// An executor that only writes down what was submitted.
#[derive(Default)]
struct Submissions {
    state: Mutex<State>,
    changed: Condvar,
    /// How many items have begun.
    begun: FutexWord,
}

#[derive(Default)]
struct State {
    /// How often each item has begun.
    begun: [u32; MOST],
    is_idle: bool,
    /// So many times somebody is to ask.
    asks: u32,
    /// The input has ended.
    is_over: bool,
}

impl Submissions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Waits until so many items have begun.
    fn wait(&self, items: u32) {
        loop {
            let begun = self.begun.load(Ordering::Acquire);
            if begun >= items {
                break;
            }
            sys::sleep_while(&self.begun, begun, None);
        }
    }

    /// Asks whenever it is time for that, until the input has ended.
    fn ask(&self, open: &dyn OpenInput) {
        loop {
            let mut state = self.lock();
            while state.asks == 0 && !state.is_over {
                state = self.changed.wait(state).expect("no panic");
            }
            if state.asks == 0 {
                break;
            }
            state.asks -= 1;
            drop(state);
            if let Some(chunk) = open.ask() {
                self.submit(chunk);
            }
        }
    }
}

impl Executor for Submissions {
    fn submit(&self, chunk: Chunk) {
        let count = chunk.count();
        {
            let mut state = self.lock();
            let items = chunk.items.as_slice();
            let records: Vec<&[u8]> = items.chunks(12).collect();
            assert_eq!(records.len(), count);
            for (item, record) in (chunk.first..).zip(records) {
                assert_eq!(record[4..], (item as u64).to_le_bytes());
                state.begun[item] += 1;
            }
        }
        self.begun.fetch_add(count as u32, Ordering::AcqRel);
        sys::wake_sleeper(&self.begun, None);
    }

    fn wait_until(
        &self,
        poll: &mut dyn FnMut(Option<&Waker>) -> bool,
        _deadline: Option<Instant>,
    ) -> bool {
        poll(None)
    }

    fn watch_input(&self, _open: Arc<dyn OpenInput>) -> bool {
        true
    }

    fn has_idle_worker(&self, look_again: bool) -> bool {
        let mut state = self.lock();
        if state.is_idle && look_again {
            state.asks += 1;
            self.changed.notify_all();
        }
        state.is_idle
    }

    fn cancel(&self, _call: CallId, _how: Cancel) -> bool {
        false
    }

    fn spawn_callback(&self, _job: Box<dyn FnOnce() + Send>) {}

    fn processes(&self) -> usize {
        1
    }

    fn close(&self) {}

    fn terminate(&self) {}

    fn join(&self, _deadline: Option<Instant>) -> Result<bool, JoinError> {
        Ok(true)
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// Gives so many numbers, and waits before each until all earlier ones from `waits_from` on have
/// begun.
struct Input {
    submissions: Arc<Submissions>,
    given: usize,
    items: usize,
    waits_from: usize,
    panics: bool,
}

impl Iterator for Input {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.given >= self.waits_from {
            self.submissions.wait(self.given as u32);
        }
        if self.given == self.items {
            if self.panics {
                std::panic::resume_unwind(Box::new("the input"));
            }
            return None;
        }
        self.given += 1;
        Some(self.given as u64 - 1)
    }
}

struct Model {
    submissions: Arc<Submissions>,
    executor: Arc<dyn Executor>,
    collector: Arc<Collector>,
    pusher: Pusher<Input>,
}

/// A call over an input that waits once `waits_from` items were taken.
fn model(items: usize, waits_from: usize, panics: bool) -> Model {
    let submissions = Arc::new(Submissions::default());
    let executor: Arc<dyn Executor> = submissions.clone();
    let collector = Arc::new(Collector::default());
    let call = CallSite {
        entry: FunctionId::of_nothing(),
        options: Options::default().check().expect("options"),
        ext: None,
        retry: None,
    };
    let input = Input {
        submissions: submissions.clone(),
        given: 0,
        items,
        waits_from,
        panics,
    };
    let pusher = Pusher::new(&executor, call, input, collector.clone());
    Model {
        submissions,
        executor,
        collector,
        pusher,
    }
}

fn limit(items: usize) -> Limit {
    Limit {
        items,
        ..Limit::NONE
    }
}

/// Reads the input to its end.
fn read(mut pusher: Pusher<Input>, submissions: &Submissions, size: usize) -> End {
    pusher.begin();
    let end = loop {
        if let Some(end) = pusher.push(limit(size)) {
            break end;
        }
    };
    pusher.finish();
    submissions.lock().is_over = true;
    submissions.changed.notify_all();
    end
}

/// Has a thread read the input while the calling one asks.
fn read_and_ask(model: Model, size: usize, meanwhile: impl FnOnce(&Submissions)) -> End {
    let Model {
        submissions,
        executor,
        collector: _collector,
        pusher,
    } = model;
    let open = pusher.open().clone();
    let theirs = submissions.clone();
    let reader = thread::Builder::new()
        .spawn(move || Processor::run(|| read(pusher, &theirs, size)))
        .expect("a thread");
    meanwhile(&submissions);
    submissions.ask(&*open);
    let end = reader.join().expect("no panic");
    drop(executor);
    end
}

fn all_begin_once(submissions: &Submissions, items: usize) {
    assert!(
        submissions.lock().begun[..items]
            .iter()
            .all(|&times| times == 1)
    );
}

/// A worker is idle from the beginning.
fn idle_from_the_beginning(fenced: bool) {
    explore(2, move || {
        if fenced {
            Processor::without_barriers();
        }
        let model = model(2, 2, false);
        let submissions = model.submissions.clone();
        {
            let mut state = submissions.lock();
            (state.is_idle, state.asks) = (true, 1);
        }
        let end = read_and_ask(model, 10, |_| ());
        assert!(matches!(end, End::Exhausted));
        all_begin_once(&submissions, 2);
    });
}

#[test]
fn what_is_there_begins_while_the_input_waits_with_membarrier() {
    idle_from_the_beginning(false);
}

#[test]
fn what_is_there_begins_while_the_input_waits_with_fences() {
    idle_from_the_beginning(true);
}

/// A worker becomes idle while an earlier wish is answered.
#[test]
fn a_wish_is_not_lost_with_the_one_before() {
    explore(2, || {
        let model = model(2, 2, false);
        let submissions = model.submissions.clone();
        model.pusher.open().interrupt();
        let end = read_and_ask(model, 10, |submissions| {
            let mut state = submissions.lock();
            (state.is_idle, state.asks) = (true, 1);
        });
        assert!(matches!(end, End::Exhausted));
        all_begin_once(&submissions, 2);
    });
}

/// A worker is through with each item at once, so that the reader hands over more at a time, and
/// somebody looks again.
#[test]
fn what_is_handed_over_later_begins_as_well() {
    explore(1, || {
        let model = model(3, 3, false);
        let submissions = model.submissions.clone();
        {
            let mut state = submissions.lock();
            (state.is_idle, state.asks) = (true, 1);
        }
        let end = read_and_ask(model, 10, |_| ());
        assert!(matches!(end, End::Exhausted));
        all_begin_once(&submissions, 3);
    });
}

/// The thread that asks has read the first item itself, and now another one reads.
#[test]
fn what_another_thread_reads_begins() {
    explore(2, || {
        let mut model = model(2, 2, false);
        let submissions = model.submissions.clone();
        {
            let mut state = submissions.lock();
            (state.is_idle, state.asks) = (true, 1);
        }
        assert!(model.pusher.push(limit(1)).is_none());
        let end = read_and_ask(model, 10, |_| ());
        assert!(matches!(end, End::Exhausted));
        all_begin_once(&submissions, 2);
    });
}

#[test]
fn what_was_there_before_a_panic_begins_once() {
    explore(1, || {
        let model = model(2, MOST, true);
        let submissions = model.submissions.clone();
        {
            let mut state = submissions.lock();
            (state.is_idle, state.asks) = (true, 1);
        }
        let end = read_and_ask(model, 10, |_| ());
        assert!(matches!(end, End::Panicked(_)));
        all_begin_once(&submissions, 2);
    });
}

/// Nobody wants the results any more: the reader ends, and what was not handed over by then never
/// begins.
#[test]
fn a_call_that_is_cancelled_ends() {
    explore(2, || {
        let model = model(3, usize::MAX, false);
        let submissions = model.submissions.clone();
        {
            let mut state = submissions.lock();
            (state.is_idle, state.asks) = (true, 1);
        }
        let (collector, open) = (model.collector.clone(), model.pusher.open().clone());
        read_and_ask(model, 10, move |_| {
            collector.abandon();
            open.interrupt();
        });
        assert!(submissions.lock().begun.iter().all(|&times| times <= 1));
    });
}
