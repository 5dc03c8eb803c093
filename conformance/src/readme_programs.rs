//! The programs that the project set out from, to the letter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procpool::{Pool, worker};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Tally};
use crate::procfs::wait_until;
use crate::program::{Program, again, programs};
use crate::trial::Test;

const SQUARES: [u64; 10] = [0, 1, 4, 9, 16, 25, 36, 49, 64, 81];

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S: squares, squares_in_three_processes, jobs_one_by_one]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        every_worker_says_that_it_starts,
        every_replacement_says_that_it_starts,
        workers_run_two_tasks_at_most,
        an_idle_worker_is_replaced_when_its_tasks_are_used_up,
        ten_slow_talkers,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: four_workers, four_workers_of_two_tasks, slow_talkers]
}

fn square(x: u64) -> u64 {
    x * x
}

/// `map` on a pool with all options at their defaults gives the squares.
fn squares<S: Subject>() {
    let pool = S::default_pool();
    assert_eq!(pool.map(|x: u64| x * x, 0..10).unwrap(), SQUARES);
}

/// So it does on one of three processes, which says that it has three.
fn squares_in_three_processes<S: Subject>() {
    let pool = S::pool(3);
    assert_eq!(pool.map(|x: u64| x * x, 0..10).unwrap(), SQUARES);
    let expected = if S::HAS_WORKERS { 3 } else { 1 };
    assert_eq!(pool.processes(), expected);
}

/// `apply_async` gives one result, and ten of them give what `map` gives.
fn jobs_one_by_one<S: Subject>() {
    let pool = S::default_pool();
    assert_eq!(pool.apply_async(square, 2).get().unwrap(), 4);
    let handles: Vec<_> = (0..10).map(|x| pool.apply_async(square, x)).collect();
    let results: Vec<u64> = handles
        .into_iter()
        .map(|handle| handle.get().unwrap())
        .collect();
    assert_eq!(results, SQUARES);
}

fn start_process(_: ()) {
    let worker = worker::current().expect("an initializer runs in a worker");
    println!("Starting {}", worker.name());
}

fn calculate(x: u64) -> u64 {
    x * 2
}

fn print_maps<P: Pool>(pool: &P, chunksize: Option<usize>) {
    let inputs: Vec<u64> = (0..10).collect();
    println!("Input   : {inputs:?}");
    let built_in: Vec<u64> = inputs.iter().copied().map(calculate).collect();
    println!("Built-in: {built_in:?}");
    let call = pool.call(calculate);
    let outputs = match chunksize {
        None => call.map(inputs),
        Some(items) => call.chunksize(items).map(inputs),
    };
    pool.close();
    pool.join().unwrap();
    println!("Pool    : {:?}", outputs.unwrap());
}

fn four_workers<S: Processes>() {
    let builder = S::builder().processes(4);
    print_maps(&builder.initializer(start_process, ()).build(), None);
}

fn four_workers_of_two_tasks<S: Processes>() {
    let builder = S::builder().processes(4).max_tasks_per_child(2);
    print_maps(&builder.initializer(start_process, ()).build(), Some(1));
}

/// The numbers of the workers that said that they started; the other lines are checked.
fn starts(lines: &[String]) -> Vec<u32> {
    let (starts, maps): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line.starts_with("Starting "));
    let doubles = "[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]";
    assert_eq!(
        maps,
        [
            "Input   : [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]",
            &format!("Built-in: {doubles}"),
            &format!("Pool    : {doubles}"),
        ]
    );
    let number = |line: &String| line.strip_prefix("Starting PoolWorker-")?.parse().ok();
    starts
        .into_iter()
        .map(|line| number(line).unwrap_or_else(|| panic!("what is this: {line}")))
        .collect()
}

/// The initializer prints one line in each of four workers, numbered from 1 to 4, and the
/// program ends.
fn every_worker_says_that_it_starts<S: Processes>() {
    let mut numbers = starts(&again::<S>("four_workers").lines());
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

/// Ten chunks of one item in workers of two tasks take at least five workers, and no number is
/// used twice.
fn every_replacement_says_that_it_starts<S: Processes>() {
    let numbers = starts(&again::<S>("four_workers_of_two_tasks").lines());
    let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), numbers.len(), "a number was used again");
    assert!(numbers.len() >= 5, "only {numbers:?}");
    assert!(distinct.contains(&1), "numbers begin with 1: {numbers:?}");
}

/// No worker of two tasks runs a third, and the results are what they are without a limit.
fn workers_run_two_tasks_at_most<S: Processes>() {
    fn who(x: u64) -> (u64, u32, u32) {
        let worker = worker::current().expect("a task runs in a worker");
        (x * x, worker.number(), worker.pid())
    }
    let pool = S::builder().processes(4).max_tasks_per_child(2).build();
    let results = pool.call(who).chunksize(1).map(0..10).unwrap();
    let squares: Vec<u64> = results.iter().map(|result| result.0).collect();
    assert_eq!(squares, SQUARES);
    let mut tasks = BTreeMap::new();
    for (_, number, pid) in results {
        tasks.entry((number, pid)).or_insert(Vec::new()).push(());
    }
    assert!(tasks.len() >= 5, "{tasks:?}");
    assert!(tasks.values().all(|tasks| tasks.len() <= 2), "{tasks:?}");
}

/// A worker that has used up its tasks is replaced although there is nothing to do.
fn an_idle_worker_is_replaced_when_its_tasks_are_used_up<S: Processes>() {
    fn note(ticket: String) {
        let worker = worker::current().expect("an initializer runs in a worker");
        file_barrier::add(&ticket, worker.number());
    }
    let starts = Tally::new();
    let builder = S::builder().processes(1).max_tasks_per_child(2);
    let pool = builder.initializer(note, starts.ticket()).build();
    for x in 0..2 {
        assert_eq!(pool.apply(square, x).unwrap(), x * x);
    }
    wait_until(|| starts.lines() == ["1", "2"]);
    assert_eq!(pool.stats().workers_started, 2);
    assert_eq!(pool.stats().workers_lost, 0, "nobody was lost");
}

fn talk(i: u32) -> String {
    for line in 0..3 {
        if line > 0 {
            std::thread::sleep(Duration::from_secs(1));
        }
        println!("hello {i}");
    }
    format!("done hello {i}")
}

fn slow_talkers<S: Processes>() {
    let pool = S::builder().processes(10).build();
    let handles: Vec<_> = (0..10).map(|i| pool.apply_async(talk, i)).collect();
    pool.close();
    pool.join().unwrap();
    for handle in handles {
        println!("{}", handle.get().unwrap());
    }
}

/// Ten tasks that print three lines a second apart all do so before `join` returns, and their
/// results are there after it.
fn ten_slow_talkers<S: Processes>() {
    let lines = again::<S>("slow_talkers").lines();
    let (hellos, done) = lines.split_at(lines.len() - 10);
    for (i, done) in done.iter().enumerate() {
        assert_eq!(*done, format!("done hello {i}"));
        let hello = format!("hello {i}");
        let said = hellos.iter().filter(|line| **line == hello);
        assert_eq!(said.count(), 3, "{hello}");
    }
    assert_eq!(hellos.len(), 30);
}
