//! Tasks that do as daemons do: they close every descriptor, fork twice and leave the session, or
//! start programs in the background, which ignore interrupts.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::libc;
use nix::unistd::{ForkResult, fork, setsid};
use procpool::{ExitReason, Output, Pool, TaskErrorKind, WorkerExit, worker};
use rustix::process::{Pid, Signal, kill_process_group, waitpid};

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{self, wait_until};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_task_that_closes_what_it_does_not_know_keeps_its_tie,
        a_task_that_closes_what_it_does_not_know_costs_no_other,
        a_task_that_closes_what_it_does_not_know_costs_no_later_one,
        a_task_that_closes_what_it_does_not_know_exits_as_it_says,
        a_task_that_closes_what_it_does_not_know_has_a_large_result,
        what_closes_its_connection_and_stays_is_killed,
        a_worker_that_cannot_ring_at_all_says_so,
        an_initializer_that_closes_what_it_does_not_know_has_an_end,
        an_initializer_that_closes_its_connection_is_told_so,
        a_program_that_closes_what_it_does_not_know_gets_errors,
        a_task_that_becomes_a_daemon_ends_once,
        a_task_that_forks_twice_has_one_answer,
        a_daemon_that_stays_keeps_no_pool,
        an_interrupt_ends_what_tasks_have_started,
        what_tasks_start_does_not_ignore_interrupts,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S:
        closes_in_tasks,
        closes_in_initializers,
        closes_in_the_program,
        becomes_daemons,
        forks_twice,
        runs_in_the_background,
        ignores_interrupts,
    ]
}

fn square(x: u64) -> u64 {
    x * x
}

fn never() -> ! {
    loop {
        std::thread::park();
    }
}

/// As code does that cleans up before it executes something.
pub(crate) fn close_the_unknown() {
    // SAFETY: their owner finds that they are gone, which is the point.
    unsafe { libc::close_range(3, u32::MAX, 0) };
}

fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).status();
    let _ = ended.expect("it can be started");
}

/// What the error says of a worker that has closed its connection.
const CLOSED: &str = "had closed its connection to the pool";

fn closes_in_tasks<S: Processes>() {
    let pool = S::pool(2);
    let close_and_run = |_: u64| {
        close_the_unknown();
        run("sleep", &["1000000"]);
    };
    let handle = pool.map_async(close_and_run, 0..2);
    // A worker that closes its doorbell is killed at once, with what it has started.
    wait_until(|| handle.is_ready() || procfs::below_called("sleep").len() == 2);
    println!("ready");
    never();
}

/// Whether the worker goes on or is replaced, it and what it has started end with the parent.
fn a_task_that_closes_what_it_does_not_know_keeps_its_tie<S: Processes>() {
    for signal in [Signal::KILL, Signal::TERM] {
        let mut program = again::<S>("closes_in_tasks").start();
        assert_eq!(program.line(), "ready");
        procfs::signal(program.id(), signal);
        program.status();
        wait_until(|| program.processes().is_empty());
    }
}

/// A task that closes descriptors has its value, and so have those that its worker runs after it
/// until it is replaced.
fn a_task_that_closes_what_it_does_not_know_costs_no_other<S: Processes>() {
    let pool = S::pool(2);
    let close_some = |x: u64| {
        if x.is_multiple_of(10) {
            close_the_unknown();
        }
        square(x)
    };
    let squares = pool.call(close_some).chunksize(7).map(0..100).unwrap();
    assert_eq!(squares, (0..100).map(square).collect::<Vec<_>>());
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    pool.close();
    pool.join().unwrap();
}

/// Nobody may listen while the task runs, or when it has ended.
fn a_task_that_closes_what_it_does_not_know_costs_no_later_one<S: Processes>() {
    let pool = S::pool(1);
    let close = |_: u64| {
        close_the_unknown();
        worker::current().map(|worker| worker.number())
    };
    // A worker may run another one of these before anybody has noticed.
    let mut closed = BTreeSet::new();
    for x in 0..20 {
        let closing = pool.apply_async(close, x);
        let later: Vec<_> = (0..x).map(|x| pool.apply_async(square, x)).collect();
        if x.is_multiple_of(2) {
            wait_until(|| later.iter().all(procpool::TaskHandle::is_ready));
        }
        closed.insert(closing.get().unwrap().expect("a worker ran it"));
        for (x, later) in (0..).zip(later) {
            assert_eq!(later.get().unwrap(), square(x));
        }
    }
    let all = closed.len() as u64;
    wait_until(|| pool.stats().ended_for(ExitReason::Disconnected) == all);
}

/// Nothing of the worker's closes a descriptor when it exits that the task has closed: in a build
/// with debug assertions, that aborts it.
fn a_task_that_closes_what_it_does_not_know_exits_as_it_says<S: Processes>() {
    let pool = S::pool(1);
    let close_and_exit = |code: i32| -> () {
        close_the_unknown();
        std::process::exit(code)
    };
    for code in [3, 4] {
        let error = pool.apply(close_and_exit, code).unwrap_err();
        assert_eq!(error.exit_code(), Some(code), "{error}");
    }
}

/// The worker waits for space in its ring many times, and cannot say that it does.
fn a_task_that_closes_what_it_does_not_know_has_a_large_result<S: Processes>() {
    let pool = S::pool(1);
    let close_and_fill = |length: usize| {
        close_the_unknown();
        vec![7_u8; length]
    };
    for length in [0, 1 << 15, 1 << 24] {
        let result = pool.apply(close_and_fill, length).unwrap();
        assert_eq!(result.len(), length);
        let both = pool.call(close_and_fill).chunksize(2).map([length; 2]);
        assert_eq!(both.unwrap(), [vec![7_u8; length], vec![7_u8; length]]);
    }
}

/// What does not end soon after it has closed its worker's connection is most likely what has done
/// so, and nobody would hear of its end.
fn what_closes_its_connection_and_stays_is_killed<S: Processes>() {
    let pool = S::pool(1);
    let close_and_stay = |_: u64| -> u64 {
        close_the_unknown();
        never()
    };
    let error = pool.apply(close_and_stay, 0).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert!(error.to_string().contains(CLOSED), "{error}");
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    wait_until(|| pool.stats().ended_for(ExitReason::Disconnected) == 1);
}

/// A copy of the worker holds what would tell the parent. The worker has an exit code for that.
fn a_worker_that_cannot_ring_at_all_says_so<S: Processes>() {
    let pool = S::pool(1);
    let copy_and_close = |length: usize| {
        // SAFETY: the copy does nothing. It is killed with its process group.
        match unsafe { fork() }.expect("there is room for one") {
            ForkResult::Child => never(),
            ForkResult::Parent { .. } => close_the_unknown(),
        }
        // More than there is space for: it must be heard on the way.
        vec![7_u8; length]
    };
    let error = pool.apply(copy_and_close, 1 << 24).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert_eq!(error.exit_code(), Some(114), "{error}");
    assert!(error.to_string().contains("closed descriptors"), "{error}");
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

fn closes_in_initializers<S: Processes>() {
    let initializer = |()| close_the_unknown();
    let built = S::builder()
        .processes(2)
        .initializer(initializer, ())
        .try_build();
    let outcome = match built {
        Ok(pool) => pool.map(square, 0..4).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(squares) => assert_eq!(squares, [0, 1, 4, 9]),
        // In the initializer, or in a task shortly after it: when the parent has noticed.
        Err(error) => assert!(error.contains(CLOSED), "{error}"),
    }
    println!("ready");
    never();
}

/// Workers go on without what was closed, or the pool ends and says what has failed.
fn an_initializer_that_closes_what_it_does_not_know_has_an_end<S: Processes>() {
    let mut program = again::<S>("closes_in_initializers").start();
    assert_eq!(program.line(), "ready");
    program.kill();
    wait_until(|| program.processes().is_empty());
}

/// The pool has killed it, and says for what.
fn an_initializer_that_closes_its_connection_is_told_so<S: Processes>() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let note = {
        let ended = ended.clone();
        move |_: &_, exit: &WorkerExit| ended.lock().unwrap().push(*exit)
    };
    let close_and_stay = |()| {
        close_the_unknown();
        never()
    };
    let builder = S::builder().processes(1).on_worker_death(note);
    let error = builder.initializer(close_and_stay, ()).try_build();
    let error = error.err().expect("no worker can be ready").to_string();
    assert!(
        error.contains("the initializer") && error.contains(CLOSED),
        "{error}"
    );
    let ended = ended.lock().unwrap();
    assert!(!ended.is_empty());
    let disconnected = |it: &WorkerExit| it.reason() == ExitReason::Disconnected;
    assert!(ended.iter().all(disconnected), "{ended:?}");
}

/// Every descriptor of the library's becomes another file, as when a program has closed all and
/// goes on to open its own.
fn closes_in_the_program<S: Processes>() {
    let pool = S::pool(2);
    let (begun, gate) = (Tally::new(), Gate::new());
    let wait = |(begun, gate): (String, String)| {
        file_barrier::add(&begun, "begun");
        file_barrier::pass(&gate);
    };
    let under_way = pool.apply_async(wait, (begun.ticket(), gate.ticket()));
    let null = std::fs::File::open("/dev/null").expect("it is there");
    for number in 3..512 {
        // SAFETY: their owner finds that they are another file, which is the point.
        unsafe {
            if number != null.as_raw_fd() && libc::fcntl(number, libc::F_GETFD) >= 0 {
                libc::dup2(null.as_raw_fd(), number);
            }
        }
    }
    let error = under_way.get().unwrap_err();
    // What is seen first: that nobody can be waited for, or that a fork server has left, which is
    // no longer connected.
    let kinds = [TaskErrorKind::Launch, TaskErrorKind::WorkerLost];
    assert!(kinds.contains(&error.kind()), "{error}");
    pool.apply(square, 1).unwrap_err();
    pool.map(square, 0..9).unwrap_err();
    drop(pool);
    println!("errors");
    never();
}

/// It spoils its pools, and hears of that, and does not wait for those who sleep for good.
fn a_program_that_closes_what_it_does_not_know_gets_errors<S: Processes>() {
    // As often as it takes for a wait of seconds to be one that the watchdog sees.
    for _ in 0..6 {
        let mut program = again::<S>("closes_in_the_program").start();
        assert_eq!(program.line(), "errors");
        program.kill();
        wait_until(|| program.processes().is_empty());
    }
}

fn becomes_daemons<S: Processes>() {
    let pool = S::pool(2);
    let daemonize = |x: u64| {
        // SAFETY: this process has one thread.
        assert_eq!(unsafe { libc::daemon(0, 0) }, 0);
        x
    };
    for x in 0..5 {
        let error = pool.apply(daemonize, x).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
        assert_eq!(error.exit_code(), Some(0), "{error}");
    }
    let outcomes = pool.call(daemonize).chunksize(2).try_map(0..6);
    assert_eq!(outcomes.iter().filter(|it| it.is_err()).count(), 6);
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    pool.close();
    pool.join().unwrap();
    println!("joined");
}

/// The worker leaves, as `daemon(3)` has it; the daemon leaves as well when it comes back from the
/// task.
fn a_task_that_becomes_a_daemon_ends_once<S: Processes>() {
    let mut program = again::<S>("becomes_daemons").start();
    assert_eq!(program.line(), "joined");
    assert!(program.status().success());
    wait_until(|| program.processes().is_empty());
}

/// Forks twice; says whether this is the last copy.
fn fork_twice() -> bool {
    // SAFETY: the copies do what may be done in one: they have one thread, as this process does.
    match unsafe { fork() }.expect("the system has processes") {
        ForkResult::Parent { child } => {
            let child = Pid::from_raw(child.as_raw());
            waitpid(child, rustix::process::WaitOptions::empty()).expect("it is a child");
            false
        }
        ForkResult::Child => {
            setsid().expect("it leads no group");
            // SAFETY: as above.
            match unsafe { fork() }.expect("the system has processes") {
                // SAFETY: it always works.
                ForkResult::Parent { .. } => unsafe { libc::_exit(0) },
                ForkResult::Child => true,
            }
        }
    }
}

fn forks_twice<S: Processes>() {
    let pool = S::pool(2);
    let number = |x: u64| {
        fork_twice();
        square(x)
    };
    assert_eq!(pool.map(number, 0..8).unwrap().len(), 8);
    let text = |x: u64| {
        let copy = if fork_twice() { "copy" } else { "" };
        format!("{copy}{x}")
    };
    let expected: Vec<String> = (0..8).map(|x| x.to_string()).collect();
    assert_eq!(pool.map(text, 0..8).unwrap(), expected);
    pool.close();
    pool.join().unwrap();
    println!("joined");
}

/// The copy that comes back says nothing.
fn a_task_that_forks_twice_has_one_answer<S: Processes>() {
    let mut program = again::<S>("forks_twice").start();
    assert_eq!(program.line(), "joined");
    assert!(program.status().success());
    wait_until(|| program.processes().is_empty());
}

/// A daemon has left its worker's group, and holds copies of all that the worker had open. No pool
/// waits for it, whatever becomes of the workers' output.
fn a_daemon_that_stays_keeps_no_pool<S: Processes>() {
    let daemons = Tally::new();
    let gate = Gate::new();
    for output in [Output::inherit(), Output::tee(), Output::discard()] {
        let builder = S::builder()
            .processes(1)
            .stdout(output.clone())
            .stderr(output);
        let pool = builder.build();
        let start = |(daemons, gate): (String, String)| {
            if fork_twice() {
                file_barrier::add(&daemons, std::process::id());
                file_barrier::pass(&gate);
                // SAFETY: it always works.
                unsafe { libc::_exit(0) };
            }
        };
        pool.apply(start, (daemons.ticket(), gate.ticket()))
            .unwrap();
        assert_eq!(pool.apply(square, 3).unwrap(), 9);
        let died = pool
            .apply(|_: u64| -> () { std::process::abort() }, 0)
            .unwrap_err();
        assert_eq!(died.kind(), TaskErrorKind::WorkerLost);
        assert_eq!(pool.apply(square, 3).unwrap(), 9);
        pool.close();
        pool.join().unwrap();
    }
    wait_until(|| daemons.count() == 3);
    let pids: Vec<u32> = daemons
        .lines()
        .iter()
        .map(|line| line.parse().expect("a number"))
        .collect();
    for pid in &pids {
        assert!(procfs::is_alive(*pid), "it has left the group by itself");
    }
    gate.open();
    procfs::wait_for_death(&pids);
}

fn runs_in_the_background<S: Processes>() {
    let pool = S::pool(2);
    let background = |x: u64| {
        if x == 0 {
            run("sleep", &["1000000"]);
        } else {
            run("sh", &["-c", "sleep 1000000 & sleep 1000000 & wait"]);
        }
    };
    let _handle = pool.map_async(background, 0..2);
    wait_until(|| procfs::below_called("sleep").len() == 3);
    println!("ready");
    never();
}

/// Ctrl-C ends the parent alone; what tasks have started goes with it, even though a shell has its
/// background ignore interrupts.
fn an_interrupt_ends_what_tasks_have_started<S: Processes>() {
    let mut program = again::<S>("runs_in_the_background").start();
    assert_eq!(program.line(), "ready");
    let group = Pid::from_raw(program.id().cast_signed()).expect("it is not zero");
    kill_process_group(group, Signal::INT).expect("it leads its group");
    assert_eq!(program.status().signal(), Some(libc::SIGINT));
    wait_until(|| program.processes().is_empty());
}

fn ignores_interrupts<S: Processes>() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    let pool = S::pool(1);
    let is_ended = |_: u64| {
        let mut child = Command::new("sleep")
            .arg("1000000")
            .spawn()
            .expect("it can be started");
        procfs::signal(child.id(), Signal::INT);
        child.wait().expect("it is a child").signal()
    };
    assert_eq!(pool.apply(is_ended, 0).unwrap(), Some(libc::SIGINT));
    println!("ended");
}

/// Whatever the program does with interrupts, what a task starts has the default.
fn what_tasks_start_does_not_ignore_interrupts<S: Processes>() {
    assert_eq!(again::<S>("ignores_interrupts").lines(), ["ended"]);
}
