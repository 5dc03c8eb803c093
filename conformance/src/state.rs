//! What a function keeps in its worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::OnceLock;

use procpool::{Emitter, Pool, TaskErrorKind};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_state_stays_for_later_items_and_calls,
        each_maker_has_a_state_of_its_own,
        pools_share_no_state,
        a_state_may_be_of_any_type,
        a_maker_that_panics_fails_its_item,
        a_task_that_panics_loses_the_state,
        a_state_goes_with_every_kind_of_call,
        a_state_goes_with_a_stream,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        each_worker_makes_one,
        a_state_is_dropped_before_the_finalizer,
        a_destructor_that_panics_keeps_no_other_from_running,
        a_dump_names_the_users_function,
        a_dump_names_the_users_function_that_emits,
    ]
}

fn count(calls: &mut u64, by: u64) -> u64 {
    *calls += by;
    *calls
}

fn zero() -> u64 {
    0
}

fn a_state_stays_for_later_items_and_calls<S: Subject>() {
    let pool = S::pool(1);
    let counted = pool.call(count).state(zero).map([1, 1, 1]).unwrap();
    assert_eq!(counted, [1, 2, 3]);
    assert_eq!(pool.call(count).state(zero).apply(10).unwrap(), 13);
    let other = |calls: &mut u64, _: ()| *calls;
    assert_eq!(pool.call(other).state(zero).apply(()).unwrap(), 13);
}

fn each_maker_has_a_state_of_its_own<S: Subject>() {
    let pool = S::pool(1);
    assert_eq!(pool.call(count).state(zero).apply(1).unwrap(), 1);
    assert_eq!(pool.call(count).state(|| 100).apply(1).unwrap(), 101);
    assert_eq!(pool.call(count).state(zero).apply(1).unwrap(), 2);
}

fn pools_share_no_state<S: Subject>() {
    let pools = [S::pool(1), S::pool(1)];
    for round in 1..=3 {
        for pool in &pools {
            assert_eq!(pool.call(count).state(zero).apply(1).unwrap(), round);
        }
    }
}

/// Neither `Send` nor known to serde.
fn a_state_may_be_of_any_type<S: Subject>() {
    type Known = Rc<RefCell<HashMap<String, usize>>>;
    fn number(known: &mut Known, word: String) -> usize {
        let mut known = known.borrow_mut();
        let next = known.len();
        *known.entry(word).or_insert(next)
    }
    let words = ["a", "b", "a", "c", "b"].map(str::to_owned);
    let numbers = S::pool(1).call(number).state(Known::default).map(words);
    assert_eq!(numbers.unwrap(), [0, 1, 0, 2, 1]);
}

fn a_maker_that_panics_fails_its_item<S: Subject>() {
    fn broken() -> u64 {
        panic!("the library is missing")
    }
    let pool = S::pool(1);
    for outcome in pool.call(count).state(broken).try_map([1, 2]) {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::State, "{error}");
        assert_eq!(error.panic_message(), Some("the library is missing"));
        assert!(error.to_string().contains("the worker's state"), "{error}");
    }
    // The function's own panic is told apart from that.
    let panics = |_: &mut u64, _: ()| -> u64 { panic!("no") };
    let error = pool.call(panics).state(zero).apply(()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Panicked, "{error}");
    assert_eq!(pool.call(count).state(zero).apply(1).unwrap(), 1);
}

fn a_task_that_panics_loses_the_state<S: Subject>() {
    fn odd(calls: &mut u64, by: u64) -> u64 {
        *calls += by;
        assert_eq!(*calls % 2, 1, "it is even");
        *calls
    }
    let outcomes = S::pool(1).call(odd).state(zero).try_map([1, 2, 3, 5, 7]);
    let values: Vec<_> = outcomes.into_iter().map(Result::ok).collect();
    assert_eq!(values, [Some(1), Some(3), None, Some(5), None]);
}

fn a_state_goes_with_every_kind_of_call<S: Subject>() {
    let pool = S::pool(1);
    let call = || pool.call(count).state(zero);
    assert_eq!(call().apply(1).unwrap(), 1);
    assert_eq!(call().apply_async(1).get().unwrap(), 2);
    assert_eq!(call().map_async([1, 1]).get().unwrap(), [3, 4]);
    let lazily: Result<Vec<_>, _> = call().imap([1, 1]).collect();
    assert_eq!(lazily.unwrap(), [5, 6]);
    let measured = pool.call(count).measured().state(zero).apply(1);
    assert_eq!(measured.outcome.unwrap(), 7);
}

fn a_state_goes_with_a_stream<S: Subject>() {
    fn emit(calls: &mut u64, times: u64, out: &Emitter<u64>) -> u64 {
        assert!(times > 0, "no times");
        for _ in 0..times {
            out.emit(count(calls, 1)).unwrap();
        }
        *calls
    }
    let pool = S::pool(1);
    let mut values = pool.call(emit).state(zero).buffer(2).stream(5);
    if !S::CARRIES_VALUES {
        let error = values.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Invalid, "{error}");
        return;
    }
    let read: Result<Vec<_>, _> = values.by_ref().collect();
    assert_eq!(read.unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(values.result(), Ok(5));
    if S::HAS_WORKERS {
        // It is that of other calls, and is lost by a panic.
        assert_eq!(pool.call(count).state(zero).apply(10), Ok(15));
        assert_eq!(pool.call(emit).state(zero).stream(1).result(), Ok(16));
        let mut values = pool.call(emit).state(zero).stream(0);
        assert!(values.next().unwrap().unwrap_err().is_panic());
        assert_eq!(pool.call(emit).state(zero).stream(1).result(), Ok(1));
    }
    let broken = || -> u64 { panic!("the library is missing") };
    let mut values = pool.call(emit).state(broken).stream(1);
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::State, "{error}");
}

fn each_worker_makes_one<S: Processes>() {
    fn make() -> u32 {
        std::process::id()
    }
    let pool = S::pool(2);
    let gate = Gate::new();
    let wait = |made_in: &mut u32, ticket: String| {
        file_barrier::pass(&ticket);
        (*made_in, std::process::id())
    };
    let handles = [(); 2].map(|()| pool.call(wait).state(make).apply_async(gate.ticket()));
    gate.wait_for(2);
    gate.open();
    let [one, two] = handles.map(|handle| handle.get().unwrap());
    assert_eq!((one.0, two.0), (one.1, two.1));
    assert_ne!(one.0, two.0);
}

static TICKET: OnceLock<String> = OnceLock::new();

fn keep(ticket: String) {
    TICKET.set(ticket).expect("a worker is initialized once");
}

/// Writes its name down when it is dropped.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        file_barrier::add(TICKET.get().expect("it is set"), self.0);
        assert_ne!(self.0, "panics", "it panics when it is dropped");
    }
}

fn name(named: &mut Named, _: ()) -> String {
    named.0.to_owned()
}

fn finalize() {
    file_barrier::add(TICKET.get().expect("it is set"), "finalizer");
}

/// What was made last goes first; it may refer to what was there before.
fn a_state_is_dropped_before_the_finalizer<S: Processes>() {
    let tally = Tally::new();
    let builder = S::builder().processes(1).max_tasks_per_child(3);
    let pool = builder
        .initializer(keep, tally.ticket())
        .finalizer(finalize)
        .build();
    let first = pool.call(name).state(|| Named("first")).apply(());
    let second = pool.call(name).state(|| Named("second")).apply(());
    let again = pool.call(name).state(|| Named("third")).apply(());
    let names = [first, second, again].map(Result::unwrap);
    assert_eq!(names, ["first", "second", "third"]);
    // The next worker has none of these.
    pool.call(name).state(|| Named("next")).apply(()).unwrap();
    pool.close();
    pool.join().unwrap();
    let lines = tally.lines();
    let of_first = ["third", "second", "first", "finalizer"];
    let first_end = lines.iter().position(|line| line == "finalizer");
    assert_eq!(lines.len(), 6, "{lines:?}");
    if first_end == Some(3) {
        assert_eq!(lines[..4], of_first);
        assert_eq!(lines[4..], ["next", "finalizer"]);
    } else {
        // Both left at the same time.
        let of_first_only = lines
            .iter()
            .filter(|line| of_first[..3].contains(&line.as_str()));
        assert!(of_first_only.eq(of_first[..3].iter()), "{lines:?}");
    }
}

fn a_destructor_that_panics_keeps_no_other_from_running<S: Processes>() {
    let tally = Tally::new();
    let builder = S::builder()
        .processes(1)
        .stderr(procpool::Output::discard());
    let pool = builder
        .initializer(keep, tally.ticket())
        .finalizer(finalize)
        .build();
    pool.call(name).state(|| Named("first")).apply(()).unwrap();
    pool.call(name).state(|| Named("panics")).apply(()).unwrap();
    pool.close();
    pool.join().unwrap();
    assert_eq!(tally.lines(), ["panics", "first", "finalizer"]);
}

fn wait_here(_: &mut u64, ticket: String) {
    file_barrier::pass(&ticket);
}

fn a_dump_names_the_users_function<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let handle = pool.call(wait_here).state(zero).apply_async(gate.ticket());
    gate.wait_for(1);
    let dump = pool.dump().to_string();
    gate.open();
    handle.get().unwrap();
    assert!(dump.contains("state::wait_here"), "{dump}");
    assert!(!dump.contains("stateful"), "{dump}");
}

fn wait_there(_: &mut u64, ticket: String, _: &Emitter<u64>) {
    file_barrier::pass(&ticket);
}

fn a_dump_names_the_users_function_that_emits<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let values = pool.call(wait_there).state(zero).stream(gate.ticket());
    gate.wait_for(1);
    let dump = pool.dump().to_string();
    gate.open();
    values.result().unwrap();
    assert!(dump.contains("state::wait_there"), "{dump}");
    assert!(!dump.contains("stateful"), "{dump}");
}
