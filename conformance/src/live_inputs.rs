//! Inputs that wait: standard input, a channel, an input that is fed by the results.
//!
//! That a result or the beginning of an item does not wait for the input is shown by inputs that
//! wait for just that. A wrong pool hangs, and the watchdog says so.

use std::io::{self, BufRead, BufReader, Write};
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use procpool::{Broadcast, Pool};

use crate::backends::{Processes, Subject};
use crate::broadcast::{holdings, inode_of};
use crate::file_barrier::{self, Gate, Tally};
use crate::futures::{block_on, next};
use crate::procfs::wait_until;
use crate::program::{self, Program, programs};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        results_feed_the_input,
        each_answer_comes_before_the_next_question,
        a_stream_gives_answers_before_the_next_question,
        an_input_that_waits_is_dropped_when_it_has_answered,
        an_input_that_panics_after_a_wait,
        an_input_that_panics_is_dropped_unheard,
        an_input_may_use_the_pool,
        an_input_may_wait_for_another_call,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        an_item_begins_while_the_input_waits,
        an_item_begins_while_nobody_asks_for_results,
        a_worker_that_becomes_idle_takes_what_is_there,
        nothing_is_kept_of_an_item_while_the_input_waits,
        a_map_begins_what_is_there,
        a_map_goes_on_while_its_input_waits,
        a_filter_answers_line_by_line,
        no_thread_is_left_by_an_iterator,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: filter, iterators_and_pools]
}

fn triple(x: u64) -> u64 {
    3 * x
}

/// The options that decide how many items travel together, and how many are taken.
const WAYS: [(Option<usize>, Option<usize>); 8] = [
    (None, None),
    (Some(1), None),
    (Some(2), None),
    (None, Some(1)),
    (None, Some(7)),
    (None, Some(1000)),
    (Some(2), Some(7)),
    (Some(1), Some(1)),
];

fn call<P: Pool, F>(
    pool: &P,
    function: F,
    (buffer, chunk): (Option<usize>, Option<usize>),
) -> procpool::Call<F>
where
    F: procpool::Stateless,
{
    let mut call = pool.call(function);
    if let Some(items) = buffer {
        call = call.buffer(items);
    }
    if let Some(items) = chunk {
        call = call.chunksize(items);
    }
    call
}

/// A crawler: what is to be done next follows from the results.
fn results_feed_the_input<S: Subject>() {
    /// A page links to two others.
    fn links(page: u64) -> Vec<u64> {
        let below = [2 * page, 2 * page + 1];
        below.into_iter().filter(|page| *page < 64).collect()
    }
    let pool = S::pool(2);
    for way in WAYS {
        for ordered in [true, false] {
            let (sender, pages) = mpsc::channel();
            sender.send(1).unwrap();
            let mut open = 1;
            let mut seen = 0;
            let call = call(&pool, links, way);
            let mut results = if ordered {
                call.imap(pages)
            } else {
                call.imap_unordered(pages)
            };
            while open > 0 {
                for page in results.next().unwrap().unwrap() {
                    sender.send(page).unwrap();
                    open += 1;
                }
                open -= 1;
                seen += 1;
            }
            assert_eq!(seen, 63, "{way:?}");
            drop(sender);
            assert!(results.next().is_none());
        }
    }
}

/// Somebody who asks a question when the one before is answered.
fn asks_one_by_one(questions: Sender<u64>, answers: Receiver<u64>, count: u64) {
    for x in 0..count {
        questions.send(x).unwrap();
        assert_eq!(answers.recv().unwrap(), triple(x));
    }
}

/// Questions on a channel: each answer is there before the next question is asked.
fn each_answer_comes_before_the_next_question<S: Subject>() {
    let pool = S::pool(2);
    for way in WAYS {
        for ordered in [true, false] {
            let (asked, questions) = mpsc::channel();
            let (answer, answers) = mpsc::channel();
            let asker = thread::spawn(move || asks_one_by_one(asked, answers, 30));
            let call = call(&pool, triple, way);
            let results = if ordered {
                call.imap(questions)
            } else {
                call.imap_unordered(questions)
            };
            for result in results {
                answer.send(result.unwrap()).unwrap();
            }
            asker.join().unwrap();
        }
    }
}

/// The same of a stream.
fn a_stream_gives_answers_before_the_next_question<S: Subject>() {
    let pool = S::pool(2);
    for way in WAYS {
        let (asked, questions) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let asker = thread::spawn(move || asks_one_by_one(asked, answers, 30));
        let mut stream = call(&pool, triple, way).imap(questions).into_stream();
        block_on(async {
            while let Some(result) = next(&mut stream).await {
                answer.send(result.unwrap()).unwrap();
            }
        });
        asker.join().unwrap();
    }
}

/// An iterator is dropped while its input waits. It is not waited for; the input is dropped as soon
/// as it has answered, and nothing more is asked of it.
fn an_input_that_waits_is_dropped_when_it_has_answered<S: Subject>() {
    let pool = S::pool(2);
    for way in WAYS {
        let (sender, receiver) = mpsc::channel();
        let (dropped, is_dropped) = mpsc::channel::<()>();
        let input = receiver.into_iter().inspect(move |_| {
            // Dropped with the input.
            let _ = &dropped;
        });
        let mut results = call(&pool, triple, way).imap(input);
        sender.send(5).unwrap();
        assert_eq!(results.next().unwrap().unwrap(), 15);
        drop(results);
        // It may have ended already, or it takes this one and ends.
        let _ = sender.send(6);
        assert!(is_dropped.recv().is_err(), "dropped");
        assert!(sender.send(7).is_err(), "nobody takes it");
    }
    assert_eq!(pool.apply(triple, 2).unwrap(), 6);
}

/// The results of the items before the panic are there while the input waits, the panic comes when
/// it does.
fn an_input_that_panics_after_a_wait<S: Subject>() {
    let pool = S::pool(2);
    for way in WAYS {
        let (sender, receiver) = mpsc::channel::<Option<u64>>();
        let input = receiver
            .into_iter()
            .map(|item| item.unwrap_or_else(|| resume_unwind(Box::new("no more of this"))));
        let mut results = call(&pool, triple, way).imap(input);
        for x in 0..3 {
            sender.send(Some(x)).unwrap();
            assert_eq!(results.next().unwrap().unwrap(), triple(x));
        }
        sender.send(None).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| results.next().is_some()));
        let panic = panic.expect_err("the input has panicked");
        assert_eq!(panic.downcast_ref(), Some(&"no more of this"));
        assert!(results.next().is_none());
    }
}

/// What an input panics with belongs to the caller, whoever else has to do with the input: its
/// destructor, which panics again, harms nobody.
fn an_input_that_panics_is_dropped_unheard<S: Subject>() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("the payload's destructor"));
        }
    }
    let pool = S::pool(1);
    for way in WAYS {
        let panics = iter::repeat_with(|| -> u64 { resume_unwind(Box::new(Bomb)) });
        let mut results = call(&pool, triple, way).imap((0..3).chain(panics));
        for x in 0..3 {
            assert_eq!(results.next().unwrap().unwrap(), triple(x));
        }
        drop(results);
        assert_eq!(pool.apply(triple, 5).unwrap(), 15);
    }
}

/// Each `next` is a call of its own, in whichever thread it runs, while others wait for results.
fn an_input_may_use_the_pool<S: Subject>() {
    for workers in [1, 2] {
        let pool = Arc::new(S::pool(workers));
        for way in WAYS {
            let asks = || {
                let inner = Arc::clone(&pool);
                (0..40).map(move |x| inner.apply(triple, x).unwrap())
            };
            let expected: Vec<u64> = (0..40).map(|x| 9 * x).collect();
            let results = call(&*pool, triple, way).imap(asks());
            assert_eq!(results.collect::<Result<Vec<_>, _>>().unwrap(), expected);
            let results = call(&*pool, triple, way).imap_unordered(asks());
            let mut results = results.collect::<Result<Vec<_>, _>>().unwrap();
            results.sort_unstable();
            assert_eq!(results, expected);
            assert_eq!(call(&*pool, triple, way).map(asks()).unwrap(), expected);
        }
    }
}

/// What it waits for was submitted before, or is by the input itself, and another thread leads.
fn an_input_may_wait_for_another_call<S: Subject>() {
    for workers in [1, 2] {
        let pool = Arc::new(S::pool(workers));
        for way in WAYS {
            let waits = || {
                let inner = Arc::clone(&pool);
                let before = pool.map_async(triple, 0..20);
                let mut before = Some(before);
                (0..20).map(move |x| {
                    let sum = before.take().map_or(0, |it| it.get().unwrap().iter().sum());
                    let each = inner.map_async(triple, 0..x).get().unwrap();
                    sum + each.len() as u64
                })
            };
            let sum: u64 = (0..20).map(triple).sum();
            let mut expected: Vec<u64> = (0..20).map(triple).collect();
            expected[0] += triple(sum);
            let leads = pool.map_async(triple, 0..500);
            let results = call(&*pool, triple, way).imap(waits());
            assert_eq!(results.collect::<Result<Vec<_>, _>>().unwrap(), expected);
            assert_eq!(call(&*pool, triple, way).map(waits()).unwrap(), expected);
            assert_eq!(leads.get().unwrap().len(), 500);
        }
    }
}

/// Adds a line to a tally.
fn note(tally: String) {
    file_barrier::add(&tally, "run");
}

/// Some items, and then an input that waits until all of them have begun.
fn until_all_begin(items: usize) -> (Tally, impl Iterator<Item = String> + Send + 'static) {
    let tally = Tally::new();
    let ticket = tally.ticket();
    let begun = ticket.clone();
    let wait = iter::from_fn(move || {
        wait_until(|| file_barrier::lines(&begun) == items);
        None
    });
    (tally, iter::repeat_n(ticket, items).chain(wait))
}

/// Items begin although the input keeps the next one back, in a pool that has not worked yet and in
/// one that knows items to be quick, so that it collects many.
fn an_item_begins_while_the_input_waits<S: Processes>() {
    for warm in [false, true] {
        let pool = S::pool(2);
        if warm {
            let tickets = vec![Tally::new().ticket(); 500];
            assert_eq!(pool.imap(|_: String| (), tickets).count(), 500);
        }
        for way in WAYS {
            for items in [1, 2, 3, 8] {
                if way.0.is_some_and(|buffer| buffer < items) {
                    continue;
                }
                let (tally, input) = until_all_begin(items);
                assert_eq!(call(&pool, note, way).imap(input).count(), items);
                let (other, input) = until_all_begin(items);
                let results = call(&pool, note, way).imap_unordered_local(input);
                assert_eq!(results.count(), items);
                assert_eq!((tally.count(), other.count()), (items, items));
            }
        }
    }
}

/// The same while the iterator's owner is at something else.
fn an_item_begins_while_nobody_asks_for_results<S: Processes>() {
    let pool = S::pool(2);
    for way in [(None, None), (None, Some(50)), (Some(40), Some(3))] {
        let (sender, receiver) = mpsc::channel();
        let tally = Tally::new();
        let mut results = call(&pool, note, way).imap(receiver);
        sender.send(tally.ticket()).unwrap();
        results.next().unwrap().unwrap();
        // No more than are taken ahead of the results.
        for count in 2..7 {
            sender.send(tally.ticket()).unwrap();
            wait_until(|| tally.count() == count);
        }
        drop(sender);
        assert_eq!(results.count(), 5);
    }
}

/// Neither of one that was handed over at once nor of those that were collected first: what a
/// handle in them means is freed with its last owner.
fn nothing_is_kept_of_an_item_while_the_input_waits<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let (items, input) = mpsc::channel();
    let work = |(shared, gate): (Broadcast<[u64]>, Option<String>)| {
        if let Some(gate) = gate {
            file_barrier::pass(&gate);
        }
        shared[0]
    };
    let mut results = pool.call(work).chunksize(100).imap(input);
    let reader = thread::spawn(move || {
        let all = [(); 5].map(|()| results.next().expect("a result").expect("a value"));
        (all, results)
    });
    let inodes = [0, 1, 2, 3, 4].map(|value| {
        let shared = pool.broadcast(vec![value; 1000]).expect("memory");
        let inode = inode_of(&shared[0]);
        let gate_of_first = (value == 0).then(|| gate.ticket());
        items.send((shared, gate_of_first)).expect("a reader");
        if value == 0 {
            gate.wait_for(1);
        }
        inode
    });
    // They wait for the worker, in the chunk that is open.
    thread::sleep(Duration::from_millis(50));
    gate.open();
    let (all, mut results) = reader.join().expect("no panic");
    assert_eq!(all, [0, 1, 2, 3, 4]);
    for inode in inodes {
        wait_until(|| holdings("self", inode) == (0, 0));
    }
    drop(items);
    assert!(results.next().is_none());
}

/// Items that were collected while all workers were at work begin when one of them has nothing to
/// do, although the input waits.
fn a_worker_that_becomes_idle_takes_what_is_there<S: Processes>() {
    fn pass_or_note((gate, tally): (Option<String>, String)) {
        if let Some(gate) = gate {
            file_barrier::pass(&gate);
        }
        file_barrier::add(&tally, "run");
    }
    for (chunk, local) in [(1000, false), (1000, true), (3, false), (3, true)] {
        let pool = S::pool(2);
        let (gate, tally) = (Gate::new(), Tally::new());
        let (ticket, run) = (gate.ticket(), tally.ticket());
        // Two that keep the workers, and eight more when both are kept.
        let held = iter::repeat_n((Some(ticket.clone()), run.clone()), 2);
        let (arrivals, mut left) = (ticket.clone(), 8);
        let notes = run.clone();
        let others = iter::from_fn(move || {
            if left == 8 {
                wait_until(|| file_barrier::lines(&arrivals) == 2);
            }
            if left == 0 {
                file_barrier::open(&arrivals);
                wait_until(|| file_barrier::lines(&notes) == 10);
                return None;
            }
            left -= 1;
            Some((None, notes.clone()))
        });
        let call = pool.call(pass_or_note).chunksize(chunk);
        let count = if local {
            call.imap_local(held.chain(others)).count()
        } else {
            call.imap(held.chain(others)).count()
        };
        assert_eq!((count, tally.count()), (10, 10));
    }
}

/// `map` and `try_map` begin what is there while their input waits.
fn a_map_begins_what_is_there<S: Processes>() {
    let pool = S::pool(2);
    for chunk in [None, Some(1), Some(7), Some(1000)] {
        for items in [1, 2, 8, 150] {
            let (tally, input) = until_all_begin(items);
            let results = call(&pool, note, (None, chunk)).map(input).unwrap();
            assert_eq!((results.len(), tally.count()), (items, items));
            let (tally, input) = until_all_begin(items);
            let results = call(&pool, note, (None, chunk)).try_map(input);
            assert_eq!((results.len(), tally.count()), (items, items));
        }
    }
}

/// What waits in the queue behind what workers were given goes on while the caller of `map` is with
/// its input: new workers get two chunks each, and the map has handed in three for each.
fn a_map_goes_on_while_its_input_waits<S: Processes>() {
    for items in [5, 6, 7, 8] {
        let pool = S::pool(2);
        for _ in 0..5 {
            let (tally, input) = until_all_begin(items);
            let results = pool.call(note).chunksize(1).map(input);
            assert_eq!((results.unwrap().len(), tally.count()), (items, items));
        }
    }
}

/// A program that answers each line of its standard input.
fn filter<S: Processes>() {
    let pool = S::pool(2);
    let lines = BufReader::new(io::stdin()).lines().map(Result::unwrap);
    for answer in pool.imap(|line: String| line.to_uppercase(), lines) {
        println!("{}", answer.unwrap());
    }
}

/// A program whose input is a pipe answers each line before the next one is written.
fn a_filter_answers_line_by_line<S: Processes>() {
    let (mut program, mut input) = program::again::<S>("filter").start_with_input();
    for line in ["one", "two", "three", "four", "five", "six", "seven"] {
        writeln!(input, "{line}").unwrap();
        assert_eq!(program.line(), line.to_uppercase());
    }
    drop(input);
    assert_eq!(program.line(), "");
    assert!(program.status().success());
}

/// A program that makes pools after iterators, those that fork among them, which must be alone in
/// it.
fn iterators_and_pools<S: Processes>() {
    for round in 0..20 {
        let pool = S::pool(2);
        let results = pool.imap(triple, 0..);
        assert_eq!(results.take(round).count(), round);
        let results = pool.imap(triple, 0..round as u64);
        assert_eq!(results.count(), round);
        drop(pool);
    }
    println!("done");
}

fn no_thread_is_left_by_an_iterator<S: Processes>() {
    assert_eq!(program::again::<S>("iterators_and_pools").lines(), ["done"]);
}
