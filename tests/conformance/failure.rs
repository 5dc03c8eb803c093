//! What the error of a task that panicked says.

use procpool::{Pool, TaskError, TaskErrorKind, worker};

use crate::subject::{Processes, Subject};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_panic_arrives_with_message_place_and_backtrace,
        a_panic_without_a_text_arrives,
        a_huge_panic_message_arrives_whole,
        a_panic_in_a_destructor_is_a_panic_of_the_task,
        a_payload_that_panics_is_survived,
        an_error_that_a_function_returns_is_a_value,
        an_error_can_be_sent_around,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S: a_panic_costs_no_worker, a_panic_says_where_it_was]
}

fn panic_here(x: u32) -> u32 {
    panic!("{x} is not to my liking");
}
/// Where [`panic_here`] panics.
const PLACE: &str = concat!(file!(), ":");
const LINE: u32 = line!() - 4;

/// The error has the panic's message, its `file:line:column` and the backtrace of the function
/// that panicked, and its text has the first two.
fn a_panic_arrives_with_message_place_and_backtrace<S: Subject>() {
    let pool = S::pool(1);
    for error in [
        pool.apply(panic_here, 7).unwrap_err(),
        pool.apply_async(panic_here, 7).get().unwrap_err(),
        pool.map(panic_here, [7]).unwrap_err(),
    ] {
        assert_eq!(error.kind(), TaskErrorKind::Panicked);
        assert!(error.is_panic() && !error.is_worker_lost() && !error.is_cancelled());
        assert_eq!(error.panic_message(), Some("7 is not to my liking"));
        let place = format!("{PLACE}{LINE}:");
        let location = error.panic_location().expect("a panic has a place");
        assert!(location.starts_with(&place), "{location} is not {place}");
        let text = error.to_string();
        assert!(text.contains("7 is not to my liking"), "{text}");
        assert!(text.contains(&place), "{text}");
        assert_eq!((error.signal(), error.exit_code()), (None, None));
        let switched_off = ["RUST_LIB_BACKTRACE", "RUST_BACKTRACE"]
            .iter()
            .find_map(|name| std::env::var(name).ok())
            .is_some_and(|value| value == "0");
        match error.backtrace() {
            None => assert!(switched_off, "there is no backtrace"),
            Some(backtrace) => {
                assert!(backtrace.lines().count() > 3, "{backtrace}");
                // Where functions are not inlined.
                if cfg!(debug_assertions) {
                    assert!(backtrace.contains("panic_here"), "{backtrace}");
                }
            }
        }
    }
}

/// A payload that is no text is a panic as well.
fn a_panic_without_a_text_arrives<S: Subject>() {
    let pool = S::pool(1);
    let error = pool.apply(|()| std::panic::panic_any(7_u64), ());
    let error: TaskError = error.map(|(): ()| ()).unwrap_err();
    assert!(error.is_panic());
    assert!(error.panic_message().is_some() && error.panic_location().is_some());
}

/// A message of 1 MiB, more than fits anywhere on the way, arrives to the last letter.
fn a_huge_panic_message_arrives_whole<S: Subject>() {
    fn rant(letters: usize) {
        let mut message = "a".repeat(letters - 1);
        message.push('!');
        panic!("{message}");
    }
    let pool = S::pool(2);
    let errors = pool.try_map(rant, vec![1 << 20; 4]);
    assert_eq!(errors.len(), 4);
    for error in errors {
        let error = error.unwrap_err();
        let message = error.panic_message().expect("it panicked");
        assert_eq!(message.len(), 1 << 20);
        assert!(message.ends_with("aaa!"));
    }
    assert_eq!(pool.apply(|x: u32| x, 5).unwrap(), 5);
}

/// A value that panics when it is dropped: the task has panicked, the worker lives.
fn a_panic_in_a_destructor_is_a_panic_of_the_task<S: Subject>() {
    struct Touchy;
    impl Drop for Touchy {
        fn drop(&mut self) {
            panic!("do not drop me");
        }
    }
    let pool = S::pool(1);
    let error = pool.apply(
        |x: u32| {
            let _touchy = Touchy;
            x
        },
        1,
    );
    assert_eq!(error.unwrap_err().panic_message(), Some("do not drop me"));
    assert_eq!(pool.apply(|x: u32| x, 5).unwrap(), 5);
}

/// A panic whose payload panics when it is dropped is survived.
fn a_payload_that_panics_is_survived<S: Subject>() {
    struct Spiteful;
    impl Drop for Spiteful {
        fn drop(&mut self) {
            panic!("not so fast");
        }
    }
    let pool = S::pool(1);
    let error = pool.apply(|()| std::panic::panic_any(Spiteful), ());
    let error: TaskError = error.map(|(): ()| ()).unwrap_err();
    assert!(error.is_panic());
    assert_eq!(pool.apply(|x: u32| x, 5).unwrap(), 5);
}

/// A function that returns a `Result` has returned a value.
fn an_error_that_a_function_returns_is_a_value<S: Subject>() {
    let pool = S::pool(2);
    let parse = |text: String| text.parse::<u8>().map_err(|error| error.to_string());
    let results = pool.map(parse, ["1".to_owned(), "x".to_owned()]).unwrap();
    assert_eq!(results[0], Ok(1));
    assert!(results[1].is_err());
}

/// An error is `Clone`, `Send` and a `std::error::Error`, so that it fits wherever errors go.
fn an_error_can_be_sent_around<S: Subject>() {
    let pool = S::pool(1);
    let error = pool.apply(panic_here, 7).unwrap_err();
    let copy = error.clone();
    let text = std::thread::spawn(move || {
        let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(copy);
        boxed.to_string()
    });
    assert_eq!(text.join().unwrap(), error.to_string());
}

/// The worker that a task panicked in runs the next one.
fn a_panic_costs_no_worker<S: Processes>() {
    let pool = S::pool(1);
    let pid = |()| std::process::id();
    let before = pool.apply(pid, ()).unwrap();
    for x in 0..50 {
        assert!(pool.apply(panic_here, x).unwrap_err().is_panic());
    }
    assert_eq!(pool.apply(pid, ()).unwrap(), before);
    assert_eq!(pool.stats().workers_started, 1);
}

/// The error names the worker in which the task panicked.
fn a_panic_says_where_it_was<S: Processes>() {
    let pool = S::pool(1);
    let error = pool.apply(panic_here, 7).unwrap_err();
    let place = error.worker().expect("a worker had it").clone();
    let me = pool
        .apply(|()| worker::current().unwrap().pid(), ())
        .unwrap();
    assert_eq!((place.pid(), place.number()), (me, 1));
    assert!(error.to_string().contains("PoolWorker-1"), "{error}");
}
