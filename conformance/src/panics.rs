//! What the error of a task that panicked says.

use std::panic::{catch_unwind, panic_any, resume_unwind, set_hook, take_hook};
use std::thread;

use procpool::{Output, Pool, SerialPool, TaskError, TaskErrorKind, worker};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Tally};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_panic_arrives_with_message_place_and_backtrace,
        a_panic_without_a_text_arrives,
        a_huge_panic_message_arrives_whole,
        a_panic_in_a_destructor_is_a_panic_of_the_task,
        a_payload_that_panics_is_survived,
        a_caught_panic_is_not_told_of_a_later_one,
        a_panic_that_is_thrown_again_keeps_its_place,
        a_panic_of_a_helper_thread_has_its_place,
        a_panic_outlives_those_in_destructors,
        a_backtrace_is_the_tasks,
        an_error_that_a_function_returns_is_a_value,
        an_error_can_be_sent_around,
    ]
}

/// What a program keeps of panics that were caught is not much, and is left out where two threads
/// panic at the same moment: other tests do so in this process, where the tasks of some pools run.
pub(crate) fn programs<S: Subject>() -> Vec<Program> {
    programs![S: throws_again_many_times, has_helpers_that_panic]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_panic_costs_no_worker,
        a_panic_says_where_it_was,
        a_panic_that_ends_the_worker_is_told,
        a_panic_that_ends_the_worker_is_not_run_again,
        a_long_panic_that_ends_the_worker_is_cut,
        an_initializer_whose_panic_ends_the_worker_is_told,
        an_abort_after_a_caught_panic_is_a_death,
    ]
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
                assert!(!backtrace.is_empty());
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

/// Like a decoder that guards itself.
fn guarded(x: u32) -> bool {
    catch_unwind(|| panic!("decoder: file {x} is broken")).is_err()
        && catch_unwind(|| panic!("decoder: broken")).is_err()
        && catch_unwind(|| panic_any(x)).is_err()
}

/// An error says of its panic what it knows of that one, or nothing; whatever was caught before, in
/// the same task or in another one.
fn a_caught_panic_is_not_told_of_a_later_one<S: Subject>() {
    let pool = S::pool(1);
    let throw = |text: bool| -> u32 {
        if text {
            resume_unwind(Box::new("by hand"))
        } else {
            resume_unwind(Box::new(7_u32))
        }
    };
    let guarded_throw = |text: bool| -> u32 {
        assert!(guarded(7));
        if text {
            resume_unwind(Box::new("by hand"))
        } else {
            resume_unwind(Box::new(7_u32))
        }
    };
    for text in [true, false] {
        assert!(pool.apply(guarded, 7).unwrap());
        let errors = [
            pool.apply(throw, text).unwrap_err(),
            pool.apply(guarded_throw, text).unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_panic());
            let message = error.panic_message().expect("every panic has one");
            assert!(message == "by hand" || !text, "{message}");
            assert_eq!((error.panic_location(), error.backtrace()), (None, None));
        }
    }
    // What follows is reported as ever.
    let error = pool.apply(panic_here, 7).unwrap_err();
    assert_eq!(error.panic_message(), Some("7 is not to my liking"));
    assert_at(&error, LINE);
}

fn assert_at(error: &TaskError, line: u32) {
    let place = format!("{PLACE}{line}:");
    let location = error.panic_location().expect("a place");
    assert!(location.starts_with(&place), "{location} is not {place}");
}

/// Says nothing of the panics of [`panic_here`], where they are panics of this program.
fn hush() {
    let before = take_hook();
    set_hook(Box::new(move |info| {
        let message = info.payload().downcast_ref::<String>();
        if message.is_none_or(|message| !message.ends_with("is not to my liking")) {
            before(info);
        }
    }));
}

fn throws_again(x: u32) -> u32 {
    let payload = catch_unwind(|| panic_here(x)).unwrap_err();
    assert!(guarded(x));
    resume_unwind(payload)
}

/// Code that cleans up after a panic and lets it go on has not panicked.
fn a_panic_that_is_thrown_again_keeps_its_place<S: Subject>() {
    assert!(
        again::<S>("throws_again_many_times")
            .start()
            .status()
            .success()
    );
}

fn throws_again_many_times<S: Subject>() {
    hush();
    let pool = S::pool(1);
    for x in 0..20 {
        let error = pool.apply(throws_again, x).unwrap_err();
        let message = format!("{x} is not to my liking");
        assert_eq!(error.panic_message(), Some(message.as_str()));
        assert_at(&error, LINE);
    }
}

/// Like rayon, and like tasks of a runtime: the panic of a helper is carried on in the task.
fn with_helper(x: u32) -> u32 {
    match thread::spawn(move || panic_here(x)).join() {
        Ok(value) => value,
        Err(payload) => resume_unwind(payload),
    }
}

fn with_scope(x: u32) -> u32 {
    thread::scope(|scope| {
        scope.spawn(move || panic_here(x));
    });
    x
}

/// Its own message, place and backtrace, also of the second one and after panics that were caught.
fn a_panic_of_a_helper_thread_has_its_place<S: Subject>() {
    assert!(
        again::<S>("has_helpers_that_panic")
            .start()
            .status()
            .success()
    );
}

fn has_helpers_that_panic<S: Subject>() {
    hush();
    let pool = S::pool(1);
    for x in 0..20 {
        let error = pool.apply(with_helper, x).unwrap_err();
        let message = format!("{x} is not to my liking");
        assert_eq!(error.panic_message(), Some(message.as_str()));
        assert_at(&error, LINE);
        assert!(pool.apply(guarded, x).unwrap());
    }
    let error = pool.apply(with_helper, 7).unwrap_err();
    if let Some(backtrace) = error.backtrace() {
        assert!(!backtrace.contains("guarded"), "{backtrace}");
        assert!(!backtrace.contains("start_thread"), "{backtrace}");
        if cfg!(debug_assertions) {
            assert!(backtrace.contains("panic_here"), "{backtrace}");
        }
    }
    // The end of a scope is a panic of its own.
    let error = pool.apply(with_scope, 7).unwrap_err();
    assert_eq!(error.panic_message(), Some("a scoped thread panicked"));
    let location = error.panic_location().expect("a place");
    assert!(
        !location.starts_with(&format!("{PLACE}{LINE}")),
        "{location}"
    );
}

/// Values that are dropped because of a panic may catch others.
fn a_panic_outlives_those_in_destructors<S: Subject>() {
    struct Careful;
    impl Drop for Careful {
        fn drop(&mut self) {
            assert!(guarded(1));
        }
    }
    fn with_careful(x: u32) -> u32 {
        let _careful = Careful;
        panic_here(x)
    }
    let pool = S::pool(1);
    let error = pool.apply(with_careful, 7).unwrap_err();
    assert_eq!(error.panic_message(), Some("7 is not to my liking"));
    assert_at(&error, LINE);
}

/// It begins with the function that panicked and ends with the task's.
fn a_backtrace_is_the_tasks<S: Subject>() {
    fn index(x: usize) -> usize {
        [1, 2, 3][std::hint::black_box(x)]
    }
    let pool = S::pool(1);
    for error in [
        pool.apply(panic_here, 7).unwrap_err(),
        pool.apply(index, 7).unwrap_err(),
    ] {
        let Some(backtrace) = error.backtrace() else {
            return; // They are switched off.
        };
        let first = backtrace.lines().next().expect("it has frames");
        if cfg!(debug_assertions) {
            assert!(first.contains("conformance::panics"), "{backtrace}");
        }
        // The lines between name files, and those may be anywhere, in a folder `main`, too.
        let functions = backtrace
            .lines()
            .filter(|it| !it.trim_start().starts_with("at "));
        for function in functions {
            for foreign in ["procpool_core::", "std::", "rust_begin_unwind", "main"] {
                assert!(!function.contains(foreign), "{foreign} in {backtrace}");
            }
        }
    }
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

/// How a panic ends its process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum End {
    /// A destructor that runs for it panics.
    Twice,
    /// A destructor that runs for it aborts.
    DestructorAborts,
    /// It is in a function that C calls.
    InC,
    /// It is in a function that C calls, in a thread of the task's.
    InCOfThread,
}

/// The line in which it panics, after it.
const ENDS: [(End, u32); 4] = [
    (End::Twice, line!() + 25),
    (End::DestructorAborts, line!() + 24),
    (End::InC, line!() + 17),
    (End::InCOfThread, line!() + 16),
];

fn panic_to_the_end((end, tally): (End, String)) {
    struct OnDrop(End);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            if matches!(self.0, End::DestructorAborts) {
                // One that is caught in the meantime is not the cause.
                assert!(SerialPool::new().apply(panic_here, 7).is_err());
                std::process::abort();
            }
            panic!("the second");
        }
    }
    extern "C" fn callback() {
        panic!("the {}", "cause");
    }
    file_barrier::add(&tally, "run");
    match end {
        End::Twice | End::DestructorAborts => {
            let _value = OnDrop(end);
            panic!("the {}", "cause");
        }
        End::InC => callback(),
        End::InCOfThread => {
            let flusher = thread::Builder::new().name("a flusher".to_owned());
            flusher.spawn(callback_in_thread).unwrap().join().unwrap();
        }
    }
    fn callback_in_thread() {
        callback();
    }
}

/// A panic that cannot be unwound takes the process along. The error is that of a panic all the
/// same, with its message and place, and with what became of the worker; the second panic is no
/// cause.
fn a_panic_that_ends_the_worker_is_told<S: Processes>() {
    let pool = S::quiet_pool(1);
    for (lost, (end, line)) in (1..).zip(ENDS) {
        let tally = Tally::new();
        // After other items, of which some panic and are caught by the pool.
        assert!(pool.map(panic_here, 1..4).unwrap_err().is_panic());
        let error = pool
            .apply(panic_to_the_end, (end, tally.ticket()))
            .unwrap_err();
        assert!(error.is_panic(), "{end:?}: {error}");
        let message = error.panic_message().expect("a panic has a message");
        let expected = match end {
            End::Twice => "the cause; then, while unwinding: the second (at ",
            _ => "the cause",
        };
        assert!(message.starts_with(expected), "{end:?}: {message}");
        let is_alone = !matches!(end, End::Twice);
        assert_eq!(message == "the cause", is_alone, "{end:?}: {message}");
        let place = format!("{PLACE}{line}:");
        let location = error.panic_location().expect("a panic has a place");
        assert!(
            location.starts_with(&place),
            "{end:?}: {location} is not {place}"
        );
        assert_eq!(error.signal(), Some(Signal::ABORT.as_raw()), "{error}");
        let text = error.to_string();
        let who = match end {
            End::InCOfThread => {
                "the thread \"a flusher\" panicked, which this task or an earlier one"
            }
            _ => "the task panicked",
        };
        for words in [who, "the cause", &place, "killed by signal 6 (SIGABRT)"] {
            assert!(text.contains(words), "{end:?}: no {words:?} in {text}");
        }
        assert!(error.worker().is_some());
        assert_eq!(pool.apply(|x: u32| x, lost).unwrap(), lost);
        assert_eq!(pool.stats().workers_lost, u64::from(lost));
    }
}

/// It would panic again: retries are for what was lost.
fn a_panic_that_ends_the_worker_is_not_run_again<S: Processes>() {
    let pool = S::quiet_pool(1);
    for (end, _) in ENDS {
        let tally = Tally::new();
        let call = pool.call(panic_to_the_end).retries(5);
        let error = call.apply((end, tally.ticket())).unwrap_err();
        assert!(error.is_panic(), "{end:?}: {error}");
        assert_eq!(tally.count(), 1, "{end:?}");
    }
}

/// There is little room for what a worker leaves, and the cause comes first.
fn a_long_panic_that_ends_the_worker_is_cut<S: Processes>() {
    extern "C" fn callback() {
        panic!("{}", "\u{1b}long ".repeat(10_000));
    }
    let pool = S::quiet_pool(1);
    let error = pool.apply(|()| callback(), ()).unwrap_err();
    assert!(error.is_panic(), "{error}");
    let message = error.panic_message().expect("a panic has a message");
    assert!(message.starts_with("\u{1b}long \u{1b}long "), "{message}");
    assert!(message.len() < 4096 && message.ends_with(".."), "{message}");
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

/// An initializer is reported like any other function.
fn an_initializer_whose_panic_ends_the_worker_is_told<S: Processes>() {
    extern "C" fn callback() {
        panic!("the {}", "cause");
    }
    let builder = S::builder().processes(1).stderr(Output::discard());
    let built = builder.initializer(|()| callback(), ()).try_build();
    let text = built.map(|_| "a pool").unwrap_err().to_string();
    for words in ["initializer", "the cause", "killed by signal 6 (SIGABRT)"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

/// What was caught is past, no matter where: by the task, or the pool in an earlier item.
fn an_abort_after_a_caught_panic_is_a_death<S: Processes>() {
    fn task(catches: bool) {
        if catches {
            assert!(catch_unwind(|| panic!("caught")).is_err());
            assert!(thread::spawn(|| panic!("caught")).join().is_err());
            assert!(SerialPool::new().apply(panic_here, 7).is_err());
        }
        std::process::abort();
    }
    let pool = S::quiet_pool(1);
    for catches in [true, false] {
        assert!(pool.apply(panic_here, 7).unwrap_err().is_panic());
        let error = pool.apply(task, catches).unwrap_err();
        assert!(error.is_worker_lost(), "{error}");
        assert_eq!(error.panic_message(), None, "{error}");
        assert_eq!(error.signal(), Some(Signal::ABORT.as_raw()), "{error}");
    }
}
