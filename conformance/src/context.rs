//! What every item of a call needs, and a state that is made of it.

use std::collections::BTreeMap;

use procpool::{Broadcast, Emitter, Pool, SerialPool, TaskErrorKind};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::backends::{Processes, Subject};
use crate::broadcast::{inode_of, wait_for_release};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{is_sealed_memory, workers};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_context_comes_with_each_item,
        a_context_goes_with_every_kind_of_call,
        a_context_goes_with_a_stream,
        a_large_context_is_whole,
        a_context_may_have_handles_inside,
        calls_at_the_same_time_have_their_own,
        a_call_inside_of_a_task_has_its_own,
        a_context_that_cannot_travel_is_an_error,
        a_state_is_made_of_its_config,
        an_equal_config_finds_the_state,
        a_maker_that_panics_is_not_the_context,
        a_state_of_a_config_goes_with_a_stream,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_large_context_travels_once,
        a_worker_lets_go_of_a_context,
        the_next_worker_has_it_too,
        a_dump_names_the_users_function,
    ]
}

fn scale(factor: &u64, x: u64) -> u64 {
    factor * x
}

fn table(rows: u64) -> BTreeMap<u64, String> {
    (0..rows).map(|row| (row, format!("row {row}"))).collect()
}

fn look_up(table: &BTreeMap<u64, String>, row: u64) -> Option<String> {
    table.get(&row).cloned()
}

fn a_context_comes_with_each_item<S: Subject>() {
    let pool = S::pool(2);
    let scaled = pool.call(scale).context(3).map(0..1000).unwrap();
    assert!(scaled.into_iter().eq((0..1000).map(|x| 3 * x)));
    let greeted = pool
        .call(|(greeting, end): &(String, char), name: String| format!("{greeting}, {name}{end}"));
    let greeted = greeted.context(("Hello".to_owned(), '!')).chunksize(1);
    let greeted = greeted.map(["Ada", "Bob"].map(str::to_owned)).unwrap();
    assert_eq!(greeted, ["Hello, Ada!", "Hello, Bob!"]);
    // Nothing at all is a value too.
    assert_eq!(
        pool.call(|(): &(), x: u64| x).context(()).apply(7).unwrap(),
        7
    );
}

fn a_context_goes_with_every_kind_of_call<S: Subject>() {
    let pool = S::pool(2);
    let call = || pool.call(scale).context(2);
    assert_eq!(call().apply(1).unwrap(), 2);
    assert_eq!(call().apply_async(2).get().unwrap(), 4);
    assert_eq!(call().map_async([1, 2]).get().unwrap(), [2, 4]);
    let lazily: Result<Vec<_>, _> = call().imap(0..100).collect();
    assert!(lazily.unwrap().into_iter().eq((0..100).map(|x| 2 * x)));
    let numbers = [1, 2, 3];
    let local: Result<u64, _> = call().imap_unordered_local(numbers.iter().copied()).sum();
    assert_eq!(local.unwrap(), 12);
    assert_eq!(call().measured().apply(4).outcome.unwrap(), 8);
}

/// Emits the rows from this one on, and says how many there are in all.
fn rows_from(table: &BTreeMap<u64, String>, first: u64, out: &Emitter<String>) -> usize {
    for row in table.range(first..).map(|(_, row)| row) {
        out.emit(row.clone()).unwrap();
    }
    table.len()
}

/// Also a large one, and one that the worker cannot decode.
fn a_context_goes_with_a_stream<S: Subject>() {
    let pool = S::pool(1);
    if !S::CARRIES_VALUES {
        let mut values = pool.call(rows_from).context(table(1)).stream(0);
        let error = values.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Invalid, "{error}");
        return;
    }
    for rows in [0, 3, 2_000] {
        let call = pool.call(rows_from).context(table(rows));
        let mut values = call.buffer(7).stream(1);
        for row in 1..rows {
            assert_eq!(values.next(), Some(Ok(format!("row {row}"))));
        }
        assert_eq!(values.next(), None);
        assert_eq!(values.result(), Ok(rows as usize));
    }
    let call = pool.call(|k: &u64, x: u64, out: &Emitter<u64>| out.emit(k * x).is_ok());
    let mut values = call.context(3).stream(4);
    assert_eq!(values.next(), Some(Ok(12)));
    assert_eq!(values.result(), Ok(true));
    let call = pool.call(|_: &Broken, (): (), _: &Emitter<u64>| ());
    let mut values = call.context(Broken::Arriving).stream(());
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
}

fn a_large_context_is_whole<S: Subject>() {
    let pool = S::pool(2);
    for rows in [0, 1, 30, 40, 50, 60, 10_000] {
        let found = pool
            .call(look_up)
            .context(table(rows))
            .map([0, rows / 2, rows]);
        let expected = table(rows);
        let expected = [0, rows / 2, rows].map(|row| expected.get(&row).cloned());
        assert_eq!(found.unwrap(), expected, "{rows}");
    }
}

/// They come back in results, too.
fn a_context_may_have_handles_inside<S: Subject>() {
    type Column = (Broadcast<[u64]>, usize);
    let pool = S::pool(2);
    let numbers = pool.broadcast((0..10_000).collect::<Vec<u64>>()).unwrap();
    let at = |(numbers, offset): &Column, at: usize| numbers[offset + at];
    let call = || pool.call(at).context((numbers.clone(), 100));
    assert_eq!(call().map([0, 1, 9_000]).unwrap(), [100, 101, 9_100]);
    let back = |(numbers, _): &Column, (): ()| numbers.clone();
    let back = pool.call(back).context((numbers.clone(), 0)).apply(());
    assert_eq!(inode_of(&*back.unwrap()), inode_of(&*numbers));
}

fn calls_at_the_same_time_have_their_own<S: Subject>() {
    let pool = S::pool(2);
    let handles = Vec::from_iter((0..100).map(|k| pool.call(scale).context(k).apply_async(k)));
    for (k, handle) in (0..).zip(handles) {
        assert_eq!(handle.get().unwrap(), k * k);
    }
    assert_eq!(pool.apply(|x: u64| x, 7).unwrap(), 7, "one without any");
}

/// That of the task is there again afterwards.
fn a_call_inside_of_a_task_has_its_own<S: Subject>() {
    fn outer(factor: &u64, x: u64) -> (u64, u64, u64) {
        let inner = SerialPool::new().call(scale).context(100).apply(x).unwrap();
        let without = SerialPool::new().apply(|x: u64| x, x).unwrap();
        (factor * x, inner, without)
    }
    let results = S::pool(1).call(outer).context(2).map([1, 2]);
    assert_eq!(results.unwrap(), [(2, 100, 1), (4, 200, 2)]);
}

/// Cannot be encoded, or else cannot be decoded; or panics instead.
#[derive(Clone, Copy)]
enum Broken {
    Leaving,
    Arriving,
    LeavingPanics,
    ArrivingPanics,
}

impl Serialize for Broken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leaving => Err(S::Error::custom("it stays here")),
            Self::LeavingPanics => panic!("it stays here"),
            Self::Arriving => serializer.serialize_u8(0),
            Self::ArrivingPanics => serializer.serialize_u8(1),
        }
    }
}

impl<'de> Deserialize<'de> for Broken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Err(D::Error::custom("it came to nothing")),
            _ => panic!("it came to nothing"),
        }
    }
}

fn a_context_that_cannot_travel_is_an_error<S: Subject>() {
    let pool = S::pool(1);
    for (broken, kind, text) in [
        (
            Broken::Leaving,
            TaskErrorKind::Encode,
            "cannot serialise the context: cannot encode",
        ),
        (
            Broken::LeavingPanics,
            TaskErrorKind::Encode,
            "the context's serialisation panicked: it",
        ),
        (
            Broken::Arriving,
            TaskErrorKind::Decode,
            "cannot deserialise the context: cannot decode",
        ),
        (
            Broken::ArrivingPanics,
            TaskErrorKind::Decode,
            "the context's deserialisation panicked",
        ),
    ] {
        let outcomes = pool
            .call(|_: &Broken, x: u64| x)
            .context(broken)
            .try_map([1, 2]);
        assert_eq!(outcomes.len(), 2);
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
        assert_eq!(pool.call(scale).context(2).apply(2).unwrap(), 4);
    }
}

/// Counts how often it was made.
struct Counted {
    config: u64,
    calls: u64,
}

fn make(config: &u64) -> Counted {
    let (config, calls) = (*config, 0);
    Counted { config, calls }
}

fn count(state: &mut Counted, (): ()) -> (u64, u64) {
    state.calls += 1;
    (state.config, state.calls)
}

fn a_state_is_made_of_its_config<S: Subject>() {
    let pool = S::pool(1);
    let call = |config: u64| pool.call(count).state_from(make, config);
    assert_eq!(call(7).map([(), ()]).unwrap(), [(7, 1), (7, 2)]);
    assert_eq!(call(7).apply(()).unwrap(), (7, 3), "it stays");
    assert_eq!(call(8).apply(()).unwrap(), (8, 1), "another one");
    assert_eq!(call(7).apply(()).unwrap(), (7, 1), "the first one is gone");
}

/// Also one that is so large that it is shared anew by each call.
fn an_equal_config_finds_the_state<S: Subject>() {
    fn make(table: &BTreeMap<u64, String>) -> (usize, u64) {
        (table.len(), 0)
    }
    fn count(state: &mut (usize, u64), (): ()) -> (usize, u64) {
        state.1 += 1;
        *state
    }
    let pool = S::pool(1);
    for rows in [2, 10_000] {
        let call = |rows| {
            pool.call(count)
                .state_from(make, table(rows))
                .apply(())
                .unwrap()
        };
        assert_eq!(call(rows), (rows as usize, 1));
        assert_eq!(call(rows), (rows as usize, 2));
        assert_eq!(call(rows + 1), (rows as usize + 1, 1));
    }
}

/// It is the state that calls without values have.
fn a_state_of_a_config_goes_with_a_stream<S: Subject>() {
    if !S::CARRIES_VALUES {
        return;
    }
    let emit = |state: &mut Counted, times: u64, out: &Emitter<(u64, u64)>| {
        for _ in 0..times {
            out.emit(count(state, ())).unwrap();
        }
    };
    let pool = S::pool(1);
    let values = |config: u64, times| {
        let values = pool.call(emit).state_from(make, config).stream(times);
        values.collect::<Result<Vec<_>, _>>().unwrap()
    };
    assert_eq!(values(7, 2), [(7, 1), (7, 2)]);
    assert_eq!(values(8, 1), [(8, 1)], "another one");
    // A pool without processes runs a stream in a thread of its own.
    if S::HAS_WORKERS {
        assert_eq!(values(8, 1), [(8, 2)], "it stays");
        let plain = pool.call(count).state_from(make, 8).apply(());
        assert_eq!(plain, Ok((8, 3)));
    }
}

fn a_maker_that_panics_is_not_the_context<S: Subject>() {
    let pool = S::pool(1);
    let broken = |_: &u64| -> Counted { panic!("no such file") };
    let error = pool
        .call(count)
        .state_from(broken, 1)
        .apply(())
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::State, "{error}");
    let never = |_: &Broken| Counted {
        config: 0,
        calls: 0,
    };
    let error = pool
        .call(count)
        .state_from(never, Broken::Arriving)
        .apply(());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
}

fn a_large_context_travels_once<S: Processes>() {
    let pool = S::pool(2);
    let table = table(50_000);
    let before = pool.stats().bytes_sent;
    let found = pool.call(look_up).context(table).chunksize(1).map(0..200);
    assert!(found.unwrap().iter().all(Option::is_some));
    let sent = pool.stats().bytes_sent - before;
    assert!(sent < 100_000, "{sent} bytes were sent");
}

fn a_worker_lets_go_of_a_context<S: Processes>() {
    let pool = S::pool(1);
    let inode = |bytes: &Vec<u8>, (): ()| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_shared = |line: &&str| is_sealed_memory(line);
        let line = maps.lines().find(is_shared).map(str::to_owned);
        let inode = line.and_then(|line| line.split_whitespace().nth(4)?.parse::<u64>().ok());
        (bytes.len(), inode)
    };
    let (length, inode) = pool
        .call(inode)
        .context(vec![7_u8; 1 << 20])
        .apply(())
        .unwrap();
    assert_eq!(length, 1 << 20);
    let inode = inode.expect("it is mapped while the task runs");
    let [worker] = workers(&pool)[..] else {
        panic!("one worker");
    };
    wait_for_release(worker, inode);
    wait_for_release(std::process::id(), inode);
}

fn the_next_worker_has_it_too<S: Processes>() {
    fn first_dies(ticket: &(String, Vec<u8>), x: u64) -> u64 {
        if x == 1 && file_barrier::lines(&ticket.0) == 0 {
            file_barrier::add(&ticket.0, "dies");
            std::process::abort();
        }
        x + ticket.1.len() as u64
    }
    for bytes in [1, 100_000] {
        let pool = S::quiet_pool(1);
        let tally = Tally::new();
        let context = (tally.ticket(), vec![0; bytes]);
        let call = pool
            .call(first_dies)
            .context(context)
            .retries(1)
            .chunksize(3);
        let expected = [0, 1, 2].map(|x| x + bytes as u64);
        assert_eq!(call.map([0, 1, 2]).unwrap(), expected);
        assert_eq!(tally.count(), 1);
    }
}

fn wait_here(_: &u64, ticket: String) {
    file_barrier::pass(&ticket);
}

fn a_dump_names_the_users_function<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let handle = pool.call(wait_here).context(1).apply_async(gate.ticket());
    gate.wait_for(1);
    let dump = pool.dump().to_string();
    gate.open();
    handle.get().unwrap();
    assert!(dump.contains("context::wait_here"), "{dump}");
    assert!(!dump.contains("contextual"), "{dump}");
}
