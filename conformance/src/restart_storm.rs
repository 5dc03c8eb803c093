//! What keeps workers from starting, or from living: the pool tries again a few times, with pauses,
//! and then every task gets the reason.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use procpool::{ExitReason, Pool, TaskErrorKind};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, getrlimit, prlimit, set_dumpable_behavior,
};

use crate::backends::Processes;
use crate::file_barrier::{self, Gate};
use crate::procfs::{self, signal, wait_for_death, wait_until, workers};
use crate::program::{Program, again, again_at, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        workers_that_never_live_to_work_end_the_pool,
        a_task_that_kills_every_worker_is_no_storm,
        without_processes_the_tasks_get_the_reason,
        without_memory_the_tasks_get_the_reason,
        a_deleted_program_goes_on,
        a_replaced_program_goes_on,
        a_program_that_changes_its_root_goes_on_or_says_why_not,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S:
        out_of_processes,
        out_of_memory,
        deletes_itself,
        replaces_itself,
        loses_its_files,
    ]
}

fn square(x: u64) -> u64 {
    x * x
}

/// Whatever kills idle workers, one after the other and before their first task, is not fed
/// forever.
fn workers_that_never_live_to_work_end_the_pool<S: Processes>() {
    let pool = S::pool(2);
    let mut killed = 0;
    loop {
        let pids = workers(&pool);
        for pid in &pids {
            signal(*pid, Signal::KILL);
            killed += 1;
        }
        wait_for_death(&pids);
        // Nobody comes any more, or there are others.
        let lost = || pool.stats().workers_lost;
        wait_until(|| lost() >= killed);
        let started = || pool.stats().workers_started;
        if lost() > 16 && lost() == started() {
            break;
        }
        wait_until(|| !workers(&pool).is_empty() || (lost() > 16 && lost() == started()));
        assert!(killed < 100, "there is no end to it");
    }
    for error in [
        pool.apply(square, 1).unwrap_err(),
        pool.map(square, 0..10).unwrap_err(),
        pool.apply_async(square, 1).get().unwrap_err(),
    ] {
        assert_eq!(error.kind(), TaskErrorKind::Launch, "{error}");
        assert!(error.to_string().contains("lives long enough"), "{error}");
        assert_eq!(error.signal(), Some(Signal::KILL.as_raw()), "{error}");
    }
}

/// A worker that has begun a task and dies of it is replaced as often as there are such tasks: each
/// of them ends, so there is an end to it.
fn a_task_that_kills_every_worker_is_no_storm<S: Processes>() {
    let pool = S::pool(2);
    let results = pool.try_map(|_: u64| -> u64 { std::process::abort() }, 0..50);
    assert!(results.iter().all(Result::is_err));
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.signal(), Some(Signal::ABORT.as_raw()), "{error}");
    }
    assert_eq!(pool.stats().workers_lost, 50);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

/// The processes that start workers: this one, and those that do so for it.
fn starters<S: Processes>() -> Vec<Pid> {
    let names = S::STARTERS.iter();
    let servers = names.flat_map(|name| procfs::children_called(name));
    let all = servers.chain([std::process::id()]);
    all.map(|pid| Pid::from_raw(pid.cast_signed()).expect("not zero"))
        .collect()
}

/// Two tasks run, two wait; then there is a limit, and those that run die. Says what all of them
/// come to, a later one too, and the reason.
fn beyond_a_limit<S: Processes>(resource: Resource, limit: u64) {
    let pool = S::pool(2);
    let gate = Gate::new();
    let handles = [(); 4].map(|()| {
        let task = |ticket: String| -> () {
            file_barrier::pass(&ticket);
            std::process::abort()
        };
        pool.apply_async(task, gate.ticket())
    });
    let pids = gate.wait_for(2);
    wait_until(|| starters::<S>().len() == 1 + S::STARTERS.len());
    let starters = starters::<S>();
    let before = getrlimit(resource);
    let lower = Rlimit {
        current: Some(limit),
        maximum: before.maximum,
    };
    for starter in &starters {
        prlimit(Some(*starter), resource, lower).expect("a limit may be lowered");
    }
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
    let mut errors: Vec<_> = handles
        .into_iter()
        .map(|handle| handle.get().expect_err("it cannot end well"))
        .collect();
    errors.push(pool.apply(square, 1).expect_err("there is no worker"));
    for starter in starters {
        // A server may have died of it.
        let _ = prlimit(Some(starter), resource, before);
    }
    let kinds: Vec<_> = errors.iter().map(|error| error.kind()).collect();
    println!("{kinds:?}");
    println!("{}", errors.pop().expect("there are five"));
}

/// Becomes a user for whom a limit of processes holds: it does not for root.
pub(crate) fn become_limited() {
    if rustix::process::geteuid().is_root() {
        let nobody = rustix::process::Uid::from_raw(65534);
        let folder = env::temp_dir();
        rustix::fs::chown(&folder, Some(nobody), None).expect("root may");
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        // Whose user changes may not look into its own /proc otherwise.
        set_dumpable_behavior(DumpableBehavior::Dumpable).expect("it may be");
    }
}

fn out_of_processes<S: Processes>() {
    become_limited();
    beyond_a_limit::<S>(Resource::Nproc, 0);
}

/// When a fork or an exec fails, as often as it is tried, the tasks that wait get the reason.
fn without_processes_the_tasks_get_the_reason<S: Processes>() {
    let lines = again::<S>("out_of_processes").lines();
    assert_eq!(lines[0], "[WorkerLost, WorkerLost, Launch, Launch, Launch]");
    assert!(lines[1].contains("ulimit -u"), "{}", lines[1]);
}

/// Less than there is already, so that nothing more can be had.
fn out_of_memory<S: Processes>() {
    beyond_a_limit::<S>(Resource::As, 1 << 20);
}

/// So they do when there is no memory for another worker.
fn without_memory_the_tasks_get_the_reason<S: Processes>() {
    let lines = again::<S>("out_of_memory").lines();
    assert_eq!(lines[0], "[WorkerLost, WorkerLost, Launch, Launch, Launch]");
    assert!(
        lines[1].contains("no worker can be started"),
        "{}",
        lines[1]
    );
}

/// Changes the program's file between the first workers and their replacements.
fn beside<S: Processes>(change: impl FnOnce(&Path)) {
    let file = env::current_exe().expect("it has a path");
    let pool = S::pool(2);
    let squares = Vec::from_iter((0..100).map(|x| x * x));
    assert_eq!(pool.map(square, 0..100).unwrap(), squares);
    change(&file);
    for _ in 0..3 {
        let before = workers(&pool);
        before.iter().for_each(|pid| signal(*pid, Signal::KILL));
        wait_for_death(&before);
        assert_eq!(pool.map(square, 0..100).unwrap(), squares);
        // One replacement may have done all of that before the other one's death was noticed.
        wait_until(|| !workers(&pool).iter().any(|pid| before.contains(pid)));
    }
    drop(pool);
    assert_eq!(S::pool(2).map(square, 0..100).unwrap(), squares);
}

fn deletes_itself<S: Processes>() {
    beside::<S>(|file| fs::remove_file(file).expect("it is there"));
}

fn replaces_itself<S: Processes>() {
    beside::<S>(|file| {
        let other = file.with_extension("other");
        fs::write(&other, "#!/bin/sh\nexit 3\n").expect("the folder can be written");
        fs::rename(&other, file).expect("it is there");
    });
}

/// Runs this program from another file of it.
fn elsewhere<S: Processes>(name: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("program");
    let this = env::current_exe().expect("it has a path");
    if fs::hard_link(&this, &file).is_err() {
        fs::copy(&this, &file).expect("there is room for a copy");
    }
    assert_eq!(again_at::<S>(&file, name).lines(), [""; 0]);
}

/// A program whose file was deleted while it runs, by an update for instance, starts workers from
/// what the kernel has still of it.
fn a_deleted_program_goes_on<S: Processes>() {
    elsewhere::<S>("deletes_itself");
}

/// A program whose file was replaced goes on as what it was, and its workers are what it is.
fn a_replaced_program_goes_on<S: Processes>() {
    elsewhere::<S>("replaces_itself");
}

/// As a daemon does once it has what it needs; and then its only worker dies.
fn loses_its_files<S: Processes>() {
    let pool = S::quiet_pool(1);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    let root = env::temp_dir();
    if let Err(error) = rustix::process::chroot(&root) {
        return println!("only root may: {error}");
    }
    env::set_current_dir("/").expect("it is a folder");
    assert_eq!(pool.apply(square, 4).unwrap(), 16);
    let lost = pool.apply(|_: u64| -> u64 { std::process::abort() }, 0);
    assert_eq!(lost.unwrap_err().kind(), TaskErrorKind::WorkerLost);
    // Although there is no /proc that shows it dying.
    let ended = pool.stats().workers_ended;
    assert_eq!(ended, BTreeMap::from([(ExitReason::Crashed, 1)]));
    match pool.apply(square, 5) {
        Ok(value) => println!("{value}"),
        Err(error) => println!("{:?}: {error}", error.kind()),
    }
    pool.close();
    pool.join().unwrap();
}

/// Workers that are forked need nothing that the new root has not. Others may, and then every task
/// gets the reason, and what to do.
fn a_program_that_changes_its_root_goes_on_or_says_why_not<S: Processes>() {
    let lines = again::<S>("loses_its_files").lines();
    if lines[0].starts_with("only root may") {
        return println!("  {}", lines[0]);
    }
    let goes_on = lines[0] == "25";
    let is_launch = lines[0].starts_with("Launch: ");
    assert!(goes_on || is_launch && !S::IS_COPY, "{}", lines[0]);
    assert!(goes_on || lines[0].contains("chroot"), "{}", lines[0]);
}
