//! Results are those of the sequential program.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use procpool::{Call, Pool, Stateless, TaskErrorKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::backends::{Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::wait_until;
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        apply_equals_the_call,
        map_equals_serial,
        try_map_equals_serial,
        map_async_equals_serial,
        imap_equals_serial,
        imap_unordered_equals_serial,
        structs_travel_both_ways,
        several_arguments_are_a_tuple,
        an_empty_input_ends_at_once,
        a_chunksize_of_zero_is_refused,
        a_buffer_of_zero_is_refused,
        a_map_runs_every_item_and_reports_the_first_failure,
        try_map_gives_each_item_its_own,
        a_finished_handle_says_so,
        a_handle_can_be_dropped_unread,
        an_argument_is_freed_when_it_is_sent,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_handle_can_be_waited_for_in_vain,
        a_map_handle_can_be_waited_for_in_vain,
        values_are_freed_in_the_worker,
        nothing_is_queued_afterwards,
        maps_of_several_threads_do_not_mix,
        ten_threads_apply_a_thousand_times,
        statistics_count_items,
    ]
}

/// None: the pool's own choice. The last is more than there are items.
const CHUNKS: [Option<usize>; 5] = [None, Some(1), Some(20), Some(100), Some(5000)];
const ITEMS: u64 = 1000;

fn scramble(x: u64) -> String {
    format!(
        "{x}: {}",
        x.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7)
    )
}

fn scrambled() -> Vec<String> {
    (0..ITEMS).map(scramble).collect()
}

/// A call in these chunks.
fn in_chunks<F>(call: Call<F>, chunk: Option<usize>) -> Call<F> {
    match chunk {
        None => call,
        Some(items) => call.chunksize(items),
    }
}

/// `apply` and `apply_async` give what the function gives.
fn apply_equals_the_call<S: Subject>() {
    let pool = S::pool(2);
    for x in 0..10 {
        assert_eq!(pool.apply(scramble, x).unwrap(), scramble(x));
        assert_eq!(pool.apply_async(scramble, x).get().unwrap(), scramble(x));
    }
}

/// `map` gives the results in the order of the items, whatever the chunks are.
fn map_equals_serial<S: Subject>() {
    let pool = S::pool(3);
    for chunk in CHUNKS {
        let results = in_chunks(pool.call(scramble), chunk).map(0..ITEMS).unwrap();
        assert_eq!(results, scrambled(), "in chunks of {chunk:?}");
    }
}

/// So does `try_map`.
fn try_map_equals_serial<S: Subject>() {
    let pool = S::pool(3);
    for chunk in CHUNKS {
        let results = in_chunks(pool.call(scramble), chunk).try_map(0..ITEMS);
        let results: Vec<String> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, scrambled(), "in chunks of {chunk:?}");
    }
}

/// So does `map_async`.
fn map_async_equals_serial<S: Subject>() {
    let pool = S::pool(3);
    for chunk in CHUNKS {
        let handle = in_chunks(pool.call(scramble), chunk).map_async(0..ITEMS);
        assert_eq!(handle.get().unwrap(), scrambled(), "in chunks of {chunk:?}");
    }
}

/// So does `imap`.
fn imap_equals_serial<S: Subject>() {
    let pool = S::pool(3);
    for chunk in CHUNKS {
        let results = in_chunks(pool.call(scramble), chunk).imap(0..ITEMS);
        let results: Vec<String> = results.map(Result::unwrap).collect();
        assert_eq!(results, scrambled(), "in chunks of {chunk:?}");
    }
}

/// `imap_unordered` gives each result once.
fn imap_unordered_equals_serial<S: Subject>() {
    let pool = S::pool(3);
    let mut expected = scrambled();
    expected.sort_unstable();
    for chunk in CHUNKS {
        let results = in_chunks(pool.call(scramble), chunk).imap_unordered(0..ITEMS);
        let mut results: Vec<String> = results.map(Result::unwrap).collect();
        results.sort_unstable();
        assert_eq!(results, expected, "in chunks of {chunk:?}");
    }
}

/// Values of user types arrive as they were sent, in both directions.
fn structs_travel_both_ways<S: Subject>() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Tree {
        name: Option<String>,
        weight: f64,
        children: Vec<Tree>,
        kind: Result<(), (char, i128)>,
    }
    let leaf = Tree {
        name: None,
        weight: -0.5,
        children: Vec::new(),
        kind: Err(('ß', i128::MIN)),
    };
    let tree = Tree {
        name: Some("root".into()),
        weight: f64::INFINITY,
        children: vec![leaf.clone(), leaf],
        kind: Ok(()),
    };
    let pool = S::pool(2);
    let result = pool.apply(|tree: Tree| vec![tree.clone(), tree], tree.clone());
    assert_eq!(result.unwrap(), [tree.clone(), tree]);
}

/// Several arguments are one tuple, which the function takes apart.
fn several_arguments_are_a_tuple<S: Subject>() {
    let pool = S::pool(2);
    let words = ["a", "bc"].map(String::from);
    let items = words.into_iter().zip([3, 2]);
    let results = pool.map(|(word, times): (String, usize)| word.repeat(times), items);
    assert_eq!(results.unwrap(), ["aaa", "bcbc"]);
    let sum = pool.apply(
        |(a, b, c): (u8, u16, u32)| u64::from(a) + u64::from(b) + u64::from(c),
        (1, 2, 3),
    );
    assert_eq!(sum.unwrap(), 6);
    assert_eq!(pool.apply(|()| 7, ()).unwrap(), 7);
}

/// An input without items gives no results, at once, in every kind of call.
fn an_empty_input_ends_at_once<S: Subject>() {
    let pool = S::pool(2);
    for chunk in CHUNKS {
        let call = || in_chunks(pool.call(scramble), chunk);
        assert_eq!(call().map([]).unwrap(), [""; 0]);
        assert!(call().try_map([]).is_empty());
        assert_eq!(call().imap([]).count(), 0);
        assert_eq!(call().imap_unordered([]).count(), 0);
        let handle = call().map_async([]);
        assert!(handle.is_ready());
        assert_eq!(handle.is_successful(), Some(true));
        assert_eq!(handle.get().unwrap(), [""; 0]);
    }
    let called = Arc::new(AtomicUsize::new(0));
    let count = called.clone();
    pool.map_async(scramble, []).on_complete(move |result| {
        assert!(result.is_ok());
        count.fetch_add(1, Ordering::Relaxed);
    });
    wait_until(|| called.load(Ordering::Relaxed) == 1);
}

/// Says that every kind of this call fails as invalid, and why.
fn assert_refused<F>(call: impl Fn() -> Call<F>, reason: &str)
where
    F: Fn(u64) -> String + Stateless,
{
    let errors = [
        call().apply(1).unwrap_err(),
        call().apply_async(1).get().unwrap_err(),
        call().map(0..3).unwrap_err(),
        call().try_map(0..3).remove(2).unwrap_err(),
        call().map_async(0..3).get().unwrap_err(),
        call().imap(0..3).next().unwrap().unwrap_err(),
        call().imap_unordered(0..3).next().unwrap().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), TaskErrorKind::Invalid);
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert_eq!(call().try_map(0..3).len(), 3);
    assert_eq!(call().imap(0..3).count(), 1, "said once");
}

/// No chunk has no items.
fn a_chunksize_of_zero_is_refused<S: Subject>() {
    let pool = S::pool(2);
    assert_refused(|| pool.call(scramble).chunksize(0), "chunksize is 0");
    assert_eq!(pool.apply(scramble, 1).unwrap(), scramble(1));
}

/// With no room for an item there would be no result, ever.
fn a_buffer_of_zero_is_refused<S: Subject>() {
    let pool = S::pool(2);
    assert_refused(|| pool.call(scramble).buffer(0), "buffer is 0");
    assert_eq!(pool.apply(scramble, 1).unwrap(), scramble(1));
}

fn fail_on_sevens((ticket, x): (String, u32)) -> u32 {
    file_barrier::add(&ticket, x);
    assert!(x % 10 != 7, "{x} is bad");
    x
}

/// A map does not stop at a failure: every item is run once, and the error is that of the lowest
/// index that failed.
fn a_map_runs_every_item_and_reports_the_first_failure<S: Subject>() {
    let pool = S::pool(3);
    for chunk in [None, Some(1), Some(8), Some(100)] {
        for background in [false, true] {
            let tally = Tally::new();
            let items = (0..50).map(|x| (tally.ticket(), x));
            let call = in_chunks(pool.call(fail_on_sevens), chunk);
            let result = if background {
                call.map_async(items).get()
            } else {
                call.map(items)
            };
            let error = result.unwrap_err();
            assert_eq!(error.index(), Some(7));
            assert_eq!(error.panic_message(), Some("7 is bad"));
            let mut run: Vec<u32> = tally
                .lines()
                .iter()
                .map(|line| line.parse().unwrap())
                .collect();
            run.sort_unstable();
            assert_eq!(run, Vec::from_iter(0..50), "in chunks of {chunk:?}");
        }
    }
}

/// `try_map`, `imap` and `imap_unordered` give the value of each item that has one, and the
/// error, with the item's index, of each that has not.
fn try_map_gives_each_item_its_own<S: Subject>() {
    let pool = S::pool(3);
    for chunk in [None, Some(1), Some(8), Some(100)] {
        let tally = Tally::new();
        let items = || (0..50).map(|x| (tally.ticket(), x));
        let call = || in_chunks(pool.call(fail_on_sevens), chunk);
        let mut unordered: Vec<_> = call().imap_unordered_local(items()).collect();
        unordered.sort_by_key(|result| match result {
            Ok(x) => *x as usize,
            Err(error) => error.index().unwrap(),
        });
        for results in [
            call().try_map(items()),
            call().imap_local(items()).collect(),
            call().imap(Vec::from_iter(items())).collect(),
            unordered,
        ] {
            assert_eq!(results.len(), 50);
            for (index, result) in results.into_iter().enumerate() {
                if index % 10 == 7 {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), TaskErrorKind::Panicked);
                    assert_eq!(error.index(), Some(index));
                } else {
                    assert_eq!(result.unwrap() as usize, index);
                }
            }
        }
    }
}

/// Once a task has ended, its handle says whether with a value, and gives the outcome to everyone
/// who asks.
fn a_finished_handle_says_so<S: Subject>() {
    let pool = S::pool(2);
    let mut good = pool.apply_async(scramble, 3);
    good.wait();
    assert!(good.is_ready() && good.wait_timeout(Duration::ZERO));
    assert_eq!(good.is_successful(), Some(true));
    for _ in 0..2 {
        let result = good.get_timeout(Duration::ZERO).unwrap();
        assert_eq!(result.unwrap(), scramble(3));
    }
    assert_eq!(good.get().unwrap(), scramble(3));

    let bad = pool.apply_async(|()| -> () { panic!("as I must") }, ());
    bad.wait();
    assert_eq!(bad.is_successful(), Some(false));
    assert!(bad.get().unwrap_err().is_panic());

    let mut map = pool.map_async(scramble, 0..ITEMS);
    map.wait();
    assert!(map.is_ready() && map.wait_timeout(Duration::ZERO));
    assert_eq!(map.is_successful(), Some(true));
    for _ in 0..2 {
        let results = map.get_timeout(Duration::ZERO).unwrap();
        assert_eq!(results.unwrap(), scrambled());
    }

    let bad = pool.map_async(|x: i32| 1 / x, [1, 0]);
    bad.wait();
    assert_eq!(bad.is_successful(), Some(false));
    assert_eq!(bad.get().unwrap_err().index(), Some(1));
}

/// A task whose handle nobody keeps is run all the same.
fn a_handle_can_be_dropped_unread<S: Subject>() {
    fn note((ticket, x): (String, u32)) {
        file_barrier::add(&ticket, x);
    }
    let pool = S::pool(2);
    let tally = Tally::new();
    for x in 0..100 {
        drop(pool.apply_async(note, (tally.ticket(), x)));
    }
    drop(pool.map_async(note, (100..200).map(|x| (tally.ticket(), x))));
    pool.close();
    pool.join().unwrap();
    assert_eq!(tally.count(), 200);
}

/// Travels as nothing, and holds something meanwhile in the process where it was made.
struct Held(#[expect(dead_code, reason = "it is only held")] Option<Arc<()>>);

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self(None))
    }
}

/// What an argument holds is let go as soon as the argument is encoded, before the task has
/// ended, and also where nobody waits for it.
fn an_argument_is_freed_when_it_is_sent<S: Subject>() {
    let pool = S::pool(2);
    let held = Arc::new(());
    let handle = pool.apply_async(|_: Held| (), Held(Some(held.clone())));
    assert_eq!(Arc::strong_count(&held), 1, "apply_async");
    let items = || std::iter::repeat_with(|| Held(Some(held.clone()))).take(100);
    let map = pool.map_async(|_: Held| (), items());
    assert_eq!(Arc::strong_count(&held), 1, "map_async");
    pool.map(|_: Held| (), items()).unwrap();
    assert_eq!(Arc::strong_count(&held), 1, "map");
    for result in pool.imap_local(|_: Held| (), items()) {
        result.unwrap();
        assert_eq!(Arc::strong_count(&held), 1, "imap_local");
    }
    let theirs = held.clone();
    let items = std::iter::repeat_with(move || Held(Some(theirs.clone()))).take(100);
    assert_eq!(pool.imap(|_: Held| (), items).count(), 100);
    assert_eq!(Arc::strong_count(&held), 1, "imap, and its input");
    handle.get().unwrap();
    assert_eq!(map.get().unwrap().len(), 100);
}

/// `get_timeout` and `wait_timeout` come back without a result while there is none, and with it
/// later.
fn a_handle_can_be_waited_for_in_vain<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let mut handle = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    assert!(!handle.is_ready());
    assert_eq!(handle.is_successful(), None);
    assert!(!handle.wait_timeout(Duration::from_millis(5)));
    assert!(!handle.wait_timeout(Duration::ZERO));
    assert!(handle.get_timeout(Duration::from_millis(5)).is_none());
    gate.open();
    assert!(handle.wait_timeout(Duration::MAX));
    assert_eq!(handle.is_successful(), Some(true));
    handle.get_timeout(Duration::MAX).unwrap().unwrap();
}

/// The same for a map of which only a part has ended.
fn a_map_handle_can_be_waited_for_in_vain<S: Processes>() {
    let pool = S::pool(2);
    let gate = Gate::new();
    let items = [None, Some(gate.ticket()), None];
    let passing = |ticket: Option<String>| {
        ticket.is_some_and(|ticket| {
            file_barrier::pass(&ticket);
            true
        })
    };
    let mut handle = pool.call(passing).chunksize(1).map_async(items);
    gate.wait_for(1);
    assert!(!handle.is_ready());
    assert_eq!(handle.is_successful(), None);
    assert!(!handle.wait_timeout(Duration::from_millis(5)));
    assert!(handle.get_timeout(Duration::from_millis(5)).is_none());
    gate.open();
    let results = handle.get_timeout(Duration::MAX).unwrap();
    assert_eq!(results.unwrap(), [false, true, false]);
}

/// How many of [`Counted`] there are in this process.
static LIVING: AtomicUsize = AtomicUsize::new(0);

#[derive(Serialize)]
struct Counted(u32);

impl Counted {
    fn new(number: u32) -> Self {
        LIVING.fetch_add(1, Ordering::Relaxed);
        Self(number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain(u32);
        Plain::deserialize(deserializer).map(|plain| Self::new(plain.0))
    }
}

/// A worker keeps neither arguments nor results, also not those of tasks that panic.
fn values_are_freed_in_the_worker<S: Processes>() {
    let living = |()| LIVING.load(Ordering::Relaxed);
    let pool = S::pool(1);
    let results = pool.try_map(
        |argument: Counted| {
            assert!(!argument.0.is_multiple_of(3), "a panic drops the argument");
            Counted::new(argument.0)
        },
        (0..300).map(Counted::new),
    );
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 200);
    assert_eq!(pool.apply(living, ()).unwrap(), 0);
    let two = pool.apply(|()| [Counted::new(1), Counted::new(2)].len(), ());
    assert_eq!(two.unwrap(), 2);
    assert_eq!(pool.apply(living, ()).unwrap(), 0);
    let kept = pool.apply(
        |()| {
            let kept = Box::leak(Box::new(Counted::new(3)));
            kept.0
        },
        (),
    );
    assert_eq!(kept.unwrap(), 3);
    assert_eq!(pool.apply(living, ()).unwrap(), 1, "this test can fail");
}

/// When all calls have come back, nothing is queued and nothing runs.
fn nothing_is_queued_afterwards<S: Processes>() {
    let pool = S::pool(2);
    pool.map(scramble, 0..ITEMS).unwrap();
    pool.map_async(scramble, 0..ITEMS).wait();
    assert_eq!(pool.imap_unordered(scramble, 0..ITEMS).count(), 1000);
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.running), (0, 0));

    // That they say something else where something is.
    let gate = Gate::new();
    let tickets = vec![gate.ticket(); 50];
    let handle = pool
        .call(|ticket: String| file_barrier::pass(&ticket))
        .chunksize(1)
        .map_async(tickets);
    gate.wait_for(2);
    let stats = pool.stats();
    assert_eq!(stats.queued + stats.running, 50);
    gate.open();
    handle.get().unwrap();
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.running), (0, 0));
}

/// Four threads map over one pool at the same time, in different ways, and each gets its own.
fn maps_of_several_threads_do_not_mix<S: Processes>() {
    let pool = &S::pool(3);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..5 {
                    let base = thread * 1_000_000 + round * 10_000;
                    let expected: Vec<u64> = (base..base + 500).map(|x| x ^ 0x5a5a).collect();
                    let call = in_chunks(pool.call(|x: u64| x ^ 0x5a5a), CHUNKS[round as usize]);
                    let items = base..base + 500;
                    let results = match thread {
                        0 => call.map(items).unwrap(),
                        1 => call.map_async(items).get().unwrap(),
                        2 => call.imap(items).map(Result::unwrap).collect(),
                        _ => {
                            let results = call.imap_unordered(items).map(Result::unwrap);
                            let mut results: Vec<u64> = results.collect();
                            results.sort_unstable_by_key(|x| x ^ 0x5a5a);
                            results
                        }
                    };
                    assert_eq!(results, expected, "thread {thread}, round {round}");
                }
            });
        }
    });
}

/// Ten threads that wait for one task after the other do not take each other's results.
fn ten_threads_apply_a_thousand_times<S: Processes>() {
    let pool = &S::pool(3);
    std::thread::scope(|scope| {
        for thread in 0..10_u64 {
            scope.spawn(move || {
                for x in 0..1000 {
                    let x = thread * 10_000 + x;
                    assert_eq!(pool.apply(|x: u64| x + 1, x).unwrap(), x + 1);
                }
            });
        }
    });
    assert_eq!(pool.stats().succeeded, 10_000);
}

/// The statistics count items by how they ended, and workers.
fn statistics_count_items<S: Processes>() {
    let pool = S::pool(2);
    let _ = pool.try_map(|x: i32| 100 / x, -5..5);
    let _ = pool.apply(|x: i32| 100 / x, 5);
    let stats = pool.stats();
    assert_eq!(
        (stats.submitted, stats.succeeded, stats.failed),
        (11, 10, 1)
    );
    assert_eq!((stats.workers_started, stats.workers_lost), (2, 0));
    let mut numbers: Vec<u32> = stats
        .workers
        .iter()
        .map(|worker| worker.info.number())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}
