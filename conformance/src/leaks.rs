//! What is left of pools, and of programs that had some: nothing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use procpool::Pool;
use rustix::process::{Pid, Signal, getpgrp, kill_process_group};

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate};
use crate::procfs::{self, wait_until};
use crate::program::{Program, again, again_at, programs};
use crate::trial::Test;
use crate::watchdog;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_thousand_pools_leave_nothing,
        builds_that_fail_leave_nothing,
        nobody_outlives_a_parent_that_was_killed,
        nobody_outlives_a_parent_of_pools_in_pools,
        an_exit_in_the_middle_leaves_nothing,
        a_panic_in_the_middle_leaves_nothing,
        an_interrupt_reaches_the_parent_alone,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: a_thousand_pools, builds_that_fail, waits_to_be_killed, waits_in_pools_in_pools, exits, panics, is_interrupted]
}

fn square(x: u64) -> u64 {
    x * x
}

/// What a process holds.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    /// Mappings that another process may share.
    shared: usize,
    /// Processes below, zombies included.
    processes: Vec<u32>,
    files: Vec<PathBuf>,
}

fn holdings() -> Holdings {
    let entries = |path: &str| fs::read_dir(path).expect("there is a /proc").count();
    let maps = fs::read_to_string("/proc/self/maps").expect("there is a /proc");
    let files = fs::read_dir(std::env::temp_dir()).expect("there is a temporary folder");
    Holdings {
        descriptors: entries("/proc/self/fd"),
        threads: entries("/proc/self/task"),
        shared: maps.lines().filter(|line| line.contains("s ")).count(),
        processes: procfs::below(std::process::id()),
        files: files.flatten().map(|entry| entry.path()).collect(),
    }
}

/// The same, once no thread is left but this one: some end a moment after their pool.
fn holdings_alone() -> Holdings {
    wait_until(|| holdings().threads == 1);
    holdings()
}

/// All mappings of this process.
fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("there is a /proc");
    maps.lines().count()
}

fn a_thousand_pools<S: Processes>() {
    let one = |number: usize| {
        let pool = S::pool(1 + number % 2);
        match number % 4 {
            // Closed, terminated or dropped; used or not; with tasks under way or none.
            0 => {
                assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
                pool.close();
                pool.join().unwrap();
            }
            1 => drop(pool.map_async(square, 0..100)),
            2 => {
                let handle = pool.apply_async(square, 3);
                handle.on_complete(|_| {});
                handle.wait();
                pool.terminate();
            }
            _ => {}
        }
    };
    // What is set up once for all is not counted.
    for number in 0..8 {
        one(number);
    }
    let before = holdings_alone();
    let mapped = mappings();
    assert_eq!(before.files, [] as [PathBuf; 0]);
    for number in 0..1000 {
        one(number);
    }
    // The kernel may take a moment to end a thread that was joined.
    wait_until(|| holdings() == before);
    let more = mappings().saturating_sub(mapped);
    assert!(
        more < 100,
        "{more} mappings more than after the first pools"
    );
}

/// Descriptors, threads, shared memory, processes and files are as many after a thousand pools as
/// before.
fn a_thousand_pools_leave_nothing<S: Processes>() {
    watchdog::allow(4);
    assert_eq!(again::<S>("a_thousand_pools").lines(), [""; 0]);
}

fn builds_that_fail<S: Processes>() {
    let fail = || {
        let failed = S::builder().processes(0).try_build();
        assert!(failed.is_err());
        fn start(_: ()) {
            panic!("not today");
        }
        let hopeless = S::builder().processes(2).initializer(start, ()).try_build();
        assert!(hopeless.is_err());
    };
    fail();
    let before = holdings_alone();
    for _ in 0..10 {
        fail();
    }
    wait_until(|| holdings() == before);
}

/// A pool that could not be built, or that ended because no worker could begin, has left nothing.
fn builds_that_fail_leave_nothing<S: Processes>() {
    assert_eq!(again::<S>("builds_that_fail").lines(), [""; 0]);
}

fn never(_: u64) {
    loop {
        std::thread::park();
    }
}

fn waits_to_be_killed<S: Processes>() {
    let pool = S::pool(3);
    // One works, one has worked, one has not.
    let handle = pool.apply_async(never, 1);
    pool.apply(square, 2).unwrap();
    println!("{}", procfs::workers(&pool).len());
    let _ = handle.get();
}

/// Workers, busy or idle, and their starters die with the program, although it had no
/// chance to end them.
fn nobody_outlives_a_parent_that_was_killed<S: Processes>() {
    let mut program = again::<S>("waits_to_be_killed").start();
    assert_eq!(program.line(), "3");
    assert!(program.processes().len() >= 4, "this tests nothing");
    program.kill();
    wait_until(|| program.processes().is_empty());
    assert_eq!(program.files(), [] as [PathBuf; 0]);
}

/// Builds a pool of its own, says so, and never ends.
fn inner<S: Processes>(ticket: String) {
    let pool = S::pool(2);
    file_barrier::add(&ticket, pool.apply(|()| std::process::id(), ()).unwrap());
    pool.map(never, 0..10).unwrap();
}

fn waits_in_pools_in_pools<S: Processes>() {
    let tally = file_barrier::Tally::new();
    let pool = S::pool(2);
    let handle = pool.map_async(inner::<S>, [tally.ticket(), tally.ticket()]);
    wait_until(|| tally.count() == 2);
    // The folder has to be gone before this is killed.
    drop(tally);
    println!("ready");
    let _ = handle.get();
}

/// So do the workers of the pools that its workers have.
fn nobody_outlives_a_parent_of_pools_in_pools<S: Processes>() {
    let mut program = again::<S>("waits_in_pools_in_pools").start();
    assert_eq!(program.line(), "ready");
    assert!(program.processes().len() >= 1 + 2 + 4, "this tests nothing");
    program.kill();
    wait_until(|| program.processes().is_empty());
    assert_eq!(program.files(), [] as [PathBuf; 0]);
}

fn exits<S: Processes>() {
    let pool = S::pool(2);
    let _handle = pool.map_async(never, 0..10);
    println!("{}", procfs::workers(&pool).len());
    std::process::exit(0);
}

/// `exit` while tasks run, with a pool that nobody drops.
fn an_exit_in_the_middle_leaves_nothing<S: Processes>() {
    assert_eq!(again::<S>("exits").lines(), ["2"]);
}

fn panics<S: Processes>() {
    let pool = S::pool(2);
    let _handle = pool.map_async(never, 0..10);
    let inner = S::pool(1);
    std::thread::spawn(move || {
        let _handle = inner.apply_async(never, 1);
        panic!("in another thread, which owns a pool");
    })
    .join()
    .expect_err("it has panicked");
    panic!("in the main thread, beside another");
}

/// A panic that nobody catches, in a thread or in `main`, while tasks run.
fn a_panic_in_the_middle_leaves_nothing<S: Processes>() {
    let mut program = again::<S>("panics").start();
    assert_eq!(program.status().code(), Some(101));
    wait_until(|| program.processes().is_empty());
    assert_eq!(program.files(), [] as [PathBuf; 0]);
}

fn is_interrupted<S: Processes>() {
    let pool = S::pool(2);
    let gate = Gate::new();
    let task = |ticket: String| file_barrier::pass(&ticket);
    let handles = [(); 2].map(|()| pool.apply_async(task, gate.ticket()));
    let pids = gate.wait_for(2);
    // What the terminal does at Ctrl-C. This process ignores it, for the time being.
    kill_process_group(getpgrp(), Signal::INT).expect("this process is in it");
    gate.open();
    for handle in handles {
        handle.get().expect("its worker has heard nothing");
    }
    assert!(pids.iter().all(|pid| procfs::is_alive(*pid)));
    drop(gate);
    let _handles = pool.map_async(never, 0..2);
    println!("ready");
    never(0);
}

/// The terminal's Ctrl-C goes to the program, its workers do not hear of it: they go on as long as
/// it does, and end with it if it ends of that.
fn an_interrupt_reaches_the_parent_alone<S: Processes>() {
    let this = std::env::current_exe().expect("it has a path");
    let shell = again_at::<S>("/bin/sh".as_ref(), "is_interrupted");
    let ignoring = ["-c", "trap '' INT; exec \"$0\""].map(OsStr::new);
    let mut hardened = shell.args(&ignoring).args(&[this.as_os_str()]).start();
    assert_eq!(hardened.line(), "ready");
    let mut usual = again::<S>("waits_to_be_killed").start();
    assert_eq!(usual.line(), "3");
    for (program, signal) in [(&mut hardened, Signal::TERM), (&mut usual, Signal::INT)] {
        let group = Pid::from_raw(program.id().cast_signed()).expect("it is not zero");
        kill_process_group(group, signal).expect("it leads its group");
        assert_eq!(program.status().signal(), Some(signal.as_raw()));
        wait_until(|| program.processes().is_empty());
        assert_eq!(program.files(), [] as [PathBuf; 0]);
    }
}
