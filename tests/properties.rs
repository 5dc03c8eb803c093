//! Whatever the data, the function, the chunks and the workers: a pool gives what the sequential
//! map gives, item by item, and so do all ways of asking for it.

use std::collections::BTreeMap;
use std::fmt::Debug;
#[cfg(any(feature = "fork", feature = "spawn"))]
use std::sync::{Mutex, PoisonError};

use procpool::{Call, Pool, SerialPool, Stateless, TaskError, TaskErrorKind};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::{Config, TestCaseError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

procpool::init_before_main!(fork_server);

/// What every kind of value must be able to do here.
trait Value: Serialize + DeserializeOwned + Clone + Debug + PartialEq + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Debug + PartialEq + 'static> Value for T {}

/// How a pool is asked.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Map,
    TryMap,
    MapAsync,
    Imap,
    ImapUnordered,
    /// One `apply_async` for each item.
    Apply,
}

/// What kind of pool is asked.
#[derive(Debug, Clone, Copy)]
enum Backend {
    Serial,
    #[cfg(feature = "fork")]
    Fork,
    #[cfg(feature = "spawn")]
    Spawn,
}

/// The ones with processes twice: there is more to go wrong.
const BACKENDS: &[Backend] = &[
    Backend::Serial,
    #[cfg(feature = "fork")]
    Backend::Fork,
    #[cfg(feature = "fork")]
    Backend::Fork,
    #[cfg(feature = "spawn")]
    Backend::Spawn,
    #[cfg(feature = "spawn")]
    Backend::Spawn,
];

/// Everything about a call but its items.
#[derive(Debug, Clone, Copy)]
struct Way {
    verb: Verb,
    backend: Backend,
    #[cfg_attr(
        not(any(feature = "fork", feature = "spawn")),
        expect(dead_code, reason = "a `SerialPool` has none")
    )]
    workers: usize,
    chunksize: Option<usize>,
    buffer: Option<usize>,
}

fn ways() -> impl Strategy<Value = Way> {
    let verbs = prop::sample::select(vec![
        Verb::Map,
        Verb::TryMap,
        Verb::MapAsync,
        Verb::Imap,
        Verb::ImapUnordered,
        Verb::Apply,
    ]);
    // Small ones, and now and then one that is larger than any input.
    let sizes = || prop::option::of(prop::sample::select(vec![1, 2, 3, 7, 20, 64, 1000]));
    (
        verbs,
        prop::sample::select(BACKENDS),
        1..=5_usize,
        sizes(),
        sizes(),
    )
        .prop_map(|(verb, backend, workers, chunksize, buffer)| Way {
            verb,
            backend,
            workers,
            chunksize,
            buffer,
        })
}

#[cfg(any(feature = "fork", feature = "spawn"))]
/// Lends out pools, each to one case at a time: starting workers would take most of the time.
struct Shelf<P> {
    pools: Mutex<Vec<(usize, P)>>,
}

#[cfg(any(feature = "fork", feature = "spawn"))]
impl<P> Shelf<P> {
    const fn new() -> Self {
        Self {
            pools: Mutex::new(Vec::new()),
        }
    }

    fn with<T>(
        &self,
        workers: usize,
        build: fn(usize) -> Result<P, procpool::BuildError>,
        body: impl FnOnce(&P) -> T,
    ) -> T {
        let pools = || self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = {
            let mut pools = pools();
            let place = pools.iter().position(|pool| pool.0 == workers);
            place.map(|place| pools.swap_remove(place).1)
        };
        let pool = taken.unwrap_or_else(|| build(workers).expect("a pool can be built"));
        let outcome = body(&pool);
        pools().push((workers, pool));
        outcome
    }
}

/// The outcome of each item, with its index: in order, or as they came.
type Outcomes<R> = Vec<(usize, Result<R, TaskError>)>;

/// Asks a pool for the results of all items.
fn ask<P, F, A, R>(pool: &P, way: Way, function: F, items: &[A]) -> Outcomes<R>
where
    P: Pool,
    F: Fn((usize, A)) -> (usize, R) + Stateless,
    A: Value,
    R: Value,
{
    let call = || -> Call<F> {
        let mut call = pool.call(function);
        if let Some(items) = way.chunksize {
            call = call.chunksize(items);
        }
        if let Some(items) = way.buffer {
            call = call.buffer(items);
        }
        call
    };
    let numbered = || items.iter().cloned().enumerate();
    // A result knows its index itself; an error gets it from the pool.
    let unordered = |result: Result<(usize, R), TaskError>| match result {
        Ok((index, result)) => (index, Ok(result)),
        Err(error) => (
            error.index().expect("an item's error has an index"),
            Err(error),
        ),
    };
    let ordered = |(index, result): (usize, Result<(usize, R), TaskError>)| {
        let (said, result) = unordered(result);
        assert_eq!(said, index, "this is the result of another item");
        (index, result)
    };
    // One error for all: that of the lowest index; the sequential map would come no further.
    let whole = |results: Result<Vec<(usize, R)>, TaskError>| match results {
        Ok(results) => results
            .into_iter()
            .map(Ok)
            .enumerate()
            .map(ordered)
            .collect(),
        Err(error) => vec![unordered(Err(error))],
    };
    match way.verb {
        Verb::Map => whole(call().map(numbered())),
        Verb::MapAsync => whole(call().map_async(numbered()).get()),
        Verb::TryMap => {
            let results = call().try_map(numbered());
            results.into_iter().enumerate().map(ordered).collect()
        }
        Verb::Imap => call()
            .imap_local(numbered())
            .enumerate()
            .map(ordered)
            .collect(),
        Verb::ImapUnordered => call()
            .imap_unordered_local(numbered())
            .map(unordered)
            .collect(),
        Verb::Apply => {
            let handles: Vec<_> = numbered().map(|item| call().apply_async(item)).collect();
            let results = handles.into_iter().map(|handle| handle.get());
            let results = results.enumerate().map(|(index, result)| match result {
                Ok((said, result)) => {
                    assert_eq!(said, index, "this is the result of another task");
                    (index, Ok(result))
                }
                Err(error) => {
                    assert_eq!(error.index(), None);
                    (index, Err(error))
                }
            });
            results.collect()
        }
    }
}

/// Asks the pool that the way names.
fn ask_the_right_one<F, A, R>(way: Way, function: F, items: &[A]) -> Outcomes<R>
where
    F: Fn((usize, A)) -> (usize, R) + Stateless,
    A: Value,
    R: Value,
{
    match way.backend {
        Backend::Serial => ask(&SerialPool::new(), way, function, items),
        #[cfg(feature = "fork")]
        Backend::Fork => {
            static SHELF: Shelf<procpool::ForkPool> = Shelf::new();
            let build = |workers| procpool::ForkPool::builder().processes(workers).build();
            SHELF.with(way.workers, build, |pool| ask(pool, way, function, items))
        }
        #[cfg(feature = "spawn")]
        Backend::Spawn => {
            static SHELF: Shelf<procpool::SpawnPool> = Shelf::new();
            let build = |workers| procpool::SpawnPool::builder().processes(workers).build();
            SHELF.with(way.workers, build, |pool| ask(pool, way, function, items))
        }
    }
}

/// Says that a pool gives what the function gives; `expected`: `None` where it panics.
fn check<F, A, R>(
    way: Way,
    function: F,
    items: &[A],
    expected: &[Option<R>],
) -> Result<(), TestCaseError>
where
    F: Fn((usize, A)) -> (usize, R) + Stateless,
    A: Value,
    R: Value,
{
    let mut outcomes = ask_the_right_one(way, function, items);
    let first_failure = expected.iter().position(Option::is_none);
    if let (Verb::Map | Verb::MapAsync, Some(first)) = (way.verb, first_failure) {
        prop_assert_eq!(outcomes.len(), 1);
        let (index, outcome) = &outcomes[0];
        prop_assert_eq!(*index, first);
        prop_assert!(outcome.as_ref().is_err_and(TaskError::is_panic));
        return Ok(());
    }
    outcomes.sort_by_key(|outcome| outcome.0);
    prop_assert_eq!(outcomes.len(), expected.len());
    for (place, (index, outcome)) in outcomes.into_iter().enumerate() {
        prop_assert_eq!(index, place, "an item is missing, or there twice");
        match (outcome, &expected[place]) {
            (Ok(result), Some(expected)) => prop_assert!(result == *expected, "item {}", place),
            (Err(error), None) => prop_assert_eq!(error.kind(), TaskErrorKind::Panicked),
            (outcome, expected) => prop_assert!(false, "{outcome:?} is not {expected:?}"),
        }
    }
    Ok(())
}

/// A number as a text, in some detail.
fn describe((index, number): (usize, u64)) -> (usize, String) {
    (
        index,
        format!("{number:#x} of {} ones", number.count_ones()),
    )
}

/// Panics for a part of the numbers.
fn describe_even((index, number): (usize, u64)) -> (usize, String) {
    assert!(number % 2 == 0, "{number} is odd");
    describe((index, number))
}

fn reverse((index, text): (usize, String)) -> (usize, String) {
    (index, text.chars().rev().collect())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nested {
    name: String,
    numbers: Vec<Option<i32>>,
    table: BTreeMap<u16, (char, bool)>,
    inner: Option<Box<Nested>>,
    choice: Choice,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Choice {
    Nothing,
    One(u8),
    Several { low: i64, high: i128 },
    Unit(()),
}

fn nested() -> impl Strategy<Value = Nested> {
    let choice = prop::strategy::Union::new([
        prop::strategy::Just(Choice::Nothing).boxed(),
        any::<u8>().prop_map(Choice::One).boxed(),
        any::<(i64, i128)>()
            .prop_map(|(low, high)| Choice::Several { low, high })
            .boxed(),
        prop::strategy::Just(Choice::Unit(())).boxed(),
    ]);
    let flat = (
        any::<String>(),
        vec(any::<Option<i32>>(), 0..10),
        btree_map(any::<u16>(), any::<(char, bool)>(), 0..5),
        choice,
    );
    let flat = flat.prop_map(|(name, numbers, table, choice)| Nested {
        name,
        numbers,
        table,
        inner: None,
        choice,
    });
    (flat.clone(), prop::option::of(flat)).prop_map(|(outer, inner)| Nested {
        inner: inner.map(Box::new),
        ..outer
    })
}

fn turn_inside_out((index, value): (usize, Nested)) -> (usize, (Vec<Nested>, Option<Choice>)) {
    let Nested { inner, choice, .. } = value.clone();
    let inner = inner.map(|inner| *inner);
    (
        index,
        (inner.into_iter().chain([value]).collect(), Some(choice)),
    )
}

/// A block of bytes that is described by few numbers, since shrinking a megabyte takes forever.
#[derive(Debug, Clone, Copy)]
struct Block {
    seed: u8,
    len: usize,
}

impl Block {
    fn bytes(self) -> Vec<u8> {
        (0..self.len)
            .map(|at| (at as u8).wrapping_mul(31) ^ self.seed)
            .collect()
    }
}

fn block() -> impl Strategy<Value = Block> {
    // Mostly small, sometimes around the size of a ring, at times a megabyte.
    let len = prop::strategy::Union::new_weighted(vec![
        (8, (0..300_usize).boxed()),
        (3, (4000..70_000_usize).boxed()),
        (1, ((1_usize << 18)..(1 << 20)).boxed()),
    ]);
    (any::<u8>(), len).prop_map(|(seed, len)| Block { seed, len })
}

fn invert((index, mut bytes): (usize, Vec<u8>)) -> (usize, Vec<u8>) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    (index, bytes)
}

/// What the function gives for each item, alone.
fn sequentially<A: Clone, R>(
    function: fn((usize, A)) -> (usize, R),
    items: &[A],
) -> Vec<Option<R>> {
    let items = items.iter().cloned().enumerate();
    items.map(|item| Some(function(item).1)).collect()
}

proptest! {
    #![proptest_config(Config { cases: 150, failure_persistence: None, ..Config::default() })]

    /// Numbers, many of them.
    #[test]
    fn numbers(way in ways(), items in vec(any::<u64>(), 0..400)) {
        check(way, describe, &items, &sequentially(describe, &items))?;
    }

    /// Some items panic: those alone have errors.
    #[test]
    fn numbers_some_of_which_panic(way in ways(), items in vec(any::<u64>(), 0..60), is_rare: bool) {
        // Half of them, or few.
        let items: Vec<u64> = items
            .into_iter()
            .map(|item| if is_rare && item % 32 != 1 { item & !1 } else { item })
            .collect();
        let expected: Vec<Option<String>> = items
            .iter()
            .map(|item| (item % 2 == 0).then(|| describe((0, *item)).1))
            .collect();
        check(way, describe_even, &items, &expected)?;
    }

    /// Texts of any letters.
    #[test]
    fn texts(way in ways(), items in vec(any::<String>(), 0..100)) {
        check(way, reverse, &items, &sequentially(reverse, &items))?;
    }

    /// Values with all that serde knows in them.
    #[test]
    fn nested_values(way in ways(), items in vec(nested(), 0..40)) {
        check(way, turn_inside_out, &items, &sequentially(turn_inside_out, &items))?;
    }
}

proptest! {
    #![proptest_config(Config { cases: 60, failure_persistence: None, ..Config::default() })]

    /// Items of very different sizes, up to a megabyte.
    #[test]
    fn blocks_of_bytes(way in ways(), blocks in vec(block(), 0..12)) {
        let items: Vec<Vec<u8>> = blocks.iter().map(|block| block.bytes()).collect();
        check(way, invert, &items, &sequentially(invert, &items))?;
    }
}
