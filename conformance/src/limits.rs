//! Results that are too large, or larger than what the parent has memory for: each is the item's
//! error, and nothing else. And what is shown of texts that a worker has chosen.

use std::fs;
use std::process;

use procpool::{Broadcast, Output, Pool, TaskError, TaskErrorKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::backends::{Builder, Processes};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_result_beyond_the_limit,
        a_result_at_the_limit,
        a_result_that_grows_when_it_is_decoded,
        a_parent_without_memory,
        text_of_a_worker_does_nothing_to_a_terminal,
        long_text_of_a_worker_is_cut,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: little_memory]
}

const MEBIBYTE: usize = 1 << 20;

fn bytes(count: usize) -> Vec<u8> {
    vec![7; count]
}

/// As large, but not in one piece of memory.
fn words(count: usize) -> Vec<String> {
    (0..16).map(|_| "w".repeat(count / 16)).collect()
}

fn assert_too_long<R>(outcome: Result<R, TaskError>) {
    let error = outcome.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("max_result_bytes"), "{error}");
}

/// The worker says so, and lives on.
fn a_result_beyond_the_limit<S: Processes>() {
    let pool = S::builder().processes(1).max_result_bytes(100_000).build();
    let id = |()| process::id();
    let worker = pool.apply(id, ()).unwrap();
    for count in [100_001, 300_000, 10 * MEBIBYTE] {
        assert_too_long(pool.apply(bytes, count));
        assert_too_long(pool.apply(words, count));
        let mixed = pool.call(bytes).chunksize(3).try_map([10, count, 20]);
        let [first, second, third] = mixed.try_into().unwrap();
        assert_eq!(first.unwrap(), bytes(10));
        assert_too_long(second);
        assert_eq!(third.unwrap(), bytes(20));
        assert_too_long(pool.call(words).measured().apply(count).outcome);
        // What is shared is not copied.
        let share = |count| Broadcast::new(bytes(count)).unwrap();
        assert_eq!(pool.apply(share, count).unwrap().len(), count);
    }
    assert_eq!(pool.apply(id, ()).unwrap(), worker);
}

fn a_result_at_the_limit<S: Processes>() {
    // The length stands before the bytes.
    for limit in [9, 1_000, 20_000, 100_000] {
        let pool = S::builder()
            .processes(1)
            .max_result_bytes(limit as u64)
            .build();
        assert_eq!(pool.apply(bytes, limit - 8).unwrap(), bytes(limit - 8));
        assert_too_long(pool.apply(bytes, limit - 7));
        // The limit is for results alone.
        assert_eq!(
            pool.apply(|it: Vec<u8>| it.len() as u8, bytes(limit))
                .unwrap(),
            limit as u8
        );
        assert!(
            pool.apply(|()| -> u8 { panic!("{}", "p".repeat(2000)) }, ())
                .is_err()
        );
    }
}

/// A byte for each, and a quarter of a kilobyte of memory.
fn a_result_that_grows_when_it_is_decoded<S: Processes>() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Large([u64; 32]);
    let none = |count| vec![None::<Large>; count];
    let pool = S::pool(1);
    assert_eq!(pool.apply(none, 100_000).unwrap().len(), 100_000);
    let error = pool.apply(none, 1_000_000).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
    assert!(error.to_string().contains("Option<Box<T>>"), "{error}");
    let boxed = |count| vec![None::<Box<Large>>; count];
    assert_eq!(pool.apply(boxed, 1_000_000).unwrap().len(), 1_000_000);
    assert_eq!(pool.apply(|n| vec![(); n], 1000).unwrap().len(), 1000);
}

fn little_memory<S: Processes>() {
    let pool = S::pool(1);
    assert_eq!(pool.apply(bytes, 100).unwrap(), bytes(100));
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').next().unwrap().parse().unwrap();
    let limit = getrlimit(Resource::As);
    let little = Rlimit {
        current: Some((pages * rustix::param::page_size() + 80 * MEBIBYTE) as u64),
        maximum: limit.maximum,
    };
    setrlimit(Resource::As, little).unwrap();
    for _ in 0..2 {
        let mut outcomes = vec![
            pool.apply(bytes, 160 * MEBIBYTE).map(|_| ()),
            pool.apply(words, 160 * MEBIBYTE).map(|_| ()),
            // What came fits, and what it is decoded to does not.
            pool.apply(words, 75 * MEBIBYTE).map(|_| ()),
        ];
        // The same of one item among several; and what came fits, but not among the others'
        // results.
        for count in [160, 75] {
            let mixed = pool.call(bytes).chunksize(3);
            let mixed = mixed.try_map([10, count * MEBIBYTE, 20]);
            let [first, second, third] = mixed.try_into().unwrap();
            assert_eq!(first.unwrap(), bytes(10));
            outcomes.push(second.map(|_| ()));
            assert_eq!(third.unwrap(), bytes(20));
        }
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
            assert!(error.to_string().contains("there is no memory"), "{error}");
        }
        assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    }
    setrlimit(Resource::As, limit).unwrap();
    assert_eq!(
        pool.apply(bytes, 160 * MEBIBYTE).unwrap().len(),
        160 * MEBIBYTE
    );
    assert_eq!(pool.stats().workers_started, 1);
}

/// It ends nobody: each is the error of its item.
fn a_parent_without_memory<S: Processes>() {
    assert_eq!(again::<S>("little_memory").lines(), [""; 0]);
}

/// Clears the screen, sets the title, and turns what follows round.
const HARMFUL: &str = "\x1b[2J\x1b]0;title\x07\u{202e}txt.exe\r";

fn assert_harmless(text: &str) {
    let harmful = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!text.contains(harmful), "{text:?}");
    assert!(text.contains("\\u{1b}[2J"), "{text:?}");
}

fn text_of_a_worker_does_nothing_to_a_terminal<S: Processes>() {
    let builder = S::builder().processes(1).stderr(Output::lines(|_| {}));
    let pool = builder.build();
    let panics = |text: String| -> u8 { panic!("{text}\nERROR of somebody else") };
    let error = pool.apply(panics, HARMFUL.to_owned()).unwrap_err();
    assert_harmless(&error.to_string());
    assert_harmless(&format!("{error:?}").replace("\\\\", "\\"));
    assert!(
        !error
            .to_string()
            .lines()
            .any(|line| line.starts_with("ERROR")),
        "{error}"
    );
    // As it is, it can be had.
    let text = format!("{HARMFUL}\nERROR of somebody else");
    assert_eq!(error.panic_message(), Some(&text[..]));

    let dies = |text: String| -> u8 {
        eprintln!("{text}");
        process::abort()
    };
    let error = pool.apply(dies, HARMFUL.to_owned()).unwrap_err();
    assert_harmless(&error.to_string());
    assert!(
        error.stderr().unwrap().contains("\x1b[2J"),
        "{:?}",
        error.stderr()
    );

    let builder = S::builder().processes(1);
    let refused = builder
        .initializer(|text: String| panic!("{text}"), HARMFUL.to_owned())
        .try_build();
    let error = refused.map(|_| "a pool").unwrap_err();
    assert_harmless(&error.to_string());
}

fn long_text_of_a_worker_is_cut<S: Processes>() {
    let pool = S::pool(1);
    let panics = |count: usize| -> u8 { panic!("{}", "p".repeat(count)) };
    let error = pool.apply(panics, 5000).unwrap_err();
    assert_eq!(error.panic_message().map(str::len), Some(5000));
    assert!(error.to_string().contains(&"p".repeat(5000)));
    let error = pool.apply(panics, 100 * MEBIBYTE).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Panicked);
    let kept = error.panic_message().unwrap();
    assert!(
        kept.starts_with(&"p".repeat(4 << 20)) && kept.len() < 5 << 20,
        "{}",
        kept.len()
    );
    assert!(error.to_string().len() < 10_000 && format!("{error:?}").len() < 10_000);
}
