//! What wakes the parent: a bell that a worker rings when it has finished something. Nobody else
//! may silence it, and a worker that has lost it is replaced.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use nix::libc;
use procpool::{ExitReason, Pool};

use crate::backends::Processes;
use crate::daemons::close_the_unknown;
use crate::file_barrier::{self, Gate, Tally};
use crate::hostile_support::Bells;
use crate::procfs::{self, wait_until};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_worker_that_reads_the_parents_pipes_costs_no_other,
        a_task_that_closes_the_bell_alone_costs_nothing,
        an_idle_worker_that_has_hung_up_is_replaced,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: is_robbed]
}

fn square(x: u64) -> u64 {
    x * x
}

/// Whatever can be read of these descriptors of a process, it reads without an end.
fn read_away((pid, numbers, begun): (u32, Vec<u32>, String)) -> u64 {
    const NONBLOCK: i32 = libc::O_NONBLOCK;
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(NONBLOCK);
    let open = |number: &u32| options.open(format!("/proc/{pid}/fd/{number}")).ok();
    let mut files: Vec<File> = numbers.iter().filter_map(open).collect();
    file_barrier::add(&begun, files.len());
    loop {
        for file in &mut files {
            let _ = file.read(&mut [0; 64]);
        }
        thread::yield_now();
    }
}

/// One of its workers takes what it can out of all that the pool has opened.
fn is_robbed<S: Processes>() {
    let numbers = || procfs::descriptors(std::process::id()).into_keys();
    let before: Vec<_> = numbers().collect();
    let pool = S::pool(2);
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    let new: Vec<_> = numbers().filter(|it| !before.contains(it)).collect();
    let begun = Tally::new();
    let thief = pool.apply_async(read_away, (std::process::id(), new, begun.ticket()));
    wait_until(|| begun.count() == 1);
    let slow_square = |x: u64| {
        // So that the parent sleeps before it comes.
        thread::sleep(Duration::from_millis(2));
        square(x)
    };
    for x in 0..300 {
        assert_eq!(pool.apply(slow_square, x).unwrap(), square(x));
        let later = pool.apply_async(slow_square, x);
        wait_until(|| later.is_ready());
        assert_eq!(later.get().unwrap(), square(x));
    }
    thief.kill();
    assert!(thief.get().is_err());
}

/// Nobody would hear of a result whose ring was taken away.
fn a_worker_that_reads_the_parents_pipes_costs_no_other<S: Processes>() {
    assert_eq!(again::<S>("is_robbed").lines(), [""; 0]);
}

/// The worker hangs up then, and the parent looks by itself.
fn a_task_that_closes_the_bell_alone_costs_nothing<S: Processes>() {
    let pool = S::pool(1);
    let close = |x: u64| {
        if let Some(bells) = Bells::find() {
            bells.close();
        }
        square(x)
    };
    for x in 0..10 {
        assert_eq!(pool.apply(close, x).unwrap(), square(x));
        let squares = pool.call(close).chunksize(3).map(0..7).unwrap();
        assert_eq!(squares, (0..7).map(square).collect::<Vec<_>>());
    }
    wait_until(|| pool.stats().ended_for(ExitReason::Disconnected) > 0);
}

/// Nobody waits for anything when it closes its descriptors.
fn an_idle_worker_that_has_hung_up_is_replaced<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let close_later = |ticket: String| {
        thread::spawn(move || {
            file_barrier::pass(&ticket);
            close_the_unknown();
        });
        std::process::id()
    };
    let first = pool.apply(close_later, gate.ticket()).unwrap();
    gate.wait_for(1);
    let is_idle = || {
        pool.stats()
            .workers
            .iter()
            .all(|worker| worker.pid() == first)
    };
    assert!(is_idle());
    gate.open();
    wait_until(|| pool.stats().ended_for(ExitReason::Disconnected) == 1);
    let second = pool.apply(|_: ()| std::process::id(), ()).unwrap();
    assert_ne!(first, second);
}
