//! What of the program is open to a worker: descriptors, and the doors of `/proc`.
#![allow(
    unsafe_code,
    reason = "a descriptor is tried that is nobody's, and another process's memory"
)]

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use procpool::sandbox::Refusal;
use procpool::{Broadcast, ForkServer, Pool, Sandbox, worker};
use procpool_conformance::Test;
use procpool_conformance::program::{self, Program};
use procpool_testing::left_out;
use rustix::io::FdFlags;
use rustix::process::{DumpableBehavior, PidfdFlags, PidfdGetfdFlags, Uid};

use crate::{Confined, Fork};

pub(crate) fn tests<S: Confined>() -> Vec<Test> {
    vec![
        ("descriptors_of_the_program_are_closed", closed::<S>),
        ("a_protected_program_is_out_of_reach", protected::<S>),
        ("a_program_without_a_pool_is_as_it_was", unbuilt::<S>),
    ]
}

pub(crate) fn fork_tests() -> Vec<Test> {
    vec![("descriptors_that_are_kept_are_there", kept)]
}

pub(crate) fn programs<S: Confined>() -> Vec<Program> {
    let name = program::name::<S>;
    vec![
        (name("with_doors"), with_doors::<S>),
        (name("with_closed_doors"), with_closed_doors::<S>),
        (name("with_failing_workers"), with_failing_workers::<S>),
    ]
}

pub(crate) fn fork_programs() -> Vec<Program> {
    vec![(program::name::<Fork>("keeping"), keeping)]
}

/// A file that the program has opened and leaves to whatever it starts, before the fork server
/// comes. Its text is longer than what else could be there.
pub(crate) fn open_a_file() -> RawFd {
    let file = tempfile::tempfile().expect("a file");
    rustix::io::pwrite(&file, SECRET.as_bytes(), 0).expect("there is room");
    rustix::io::fcntl_setfd(&file, FdFlags::empty()).expect("it is open");
    file.into_raw_fd()
}

/// In that file.
const SECRET: &str = "what the program has open";

/// Whether a worker finds that file among what it has open.
fn finds_it((): ()) -> bool {
    (3..512).any(|number: RawFd| {
        let mut read = [0; SECRET.len()];
        // SAFETY: it is read for a moment, if there is one of this number, at a place of its own.
        let there = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::pread(there, &mut read, 0) == Ok(SECRET.len()) && read == *SECRET.as_bytes()
    })
}

fn closed<S: Confined>() {
    let open = S::plain().processes(2).build().expect("a pool");
    assert_eq!(open.apply(finds_it, ()), Ok(true));
    let pool = S::within(Sandbox::strict()).expect("this kernel has all of it");
    assert_eq!(pool.map(finds_it, [(); 10]), Ok(vec![false; 10]));
    // What a worker has of the pool's is there.
    let words = pool.broadcast(&vec![1_u8; 1 << 20]).expect("there is room");
    let len = |words: Broadcast<Vec<u8>>| words.len();
    assert_eq!(pool.apply(len, words), Ok(1 << 20));
}

fn kept() {
    assert_eq!(program::again::<Fork>("keeping").lines(), ["kept: true"]);
}

/// A fork server that was told to keep a file.
fn keeping() {
    let number = open_a_file();
    // SAFETY: it is open until the program ends.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let server = ForkServer::start_keeping(&[file]).expect("one thread");
    let builder = Fork::plain().processes(1).fork_server(&server);
    let pool = builder.sandbox(Sandbox::strict()).build().expect("a pool");
    println!("kept: {}", pool.apply(finds_it, ()).expect("it lives"));
}

/// What of this process's is reached.
fn reached(pid: u32) -> Vec<String> {
    let mut reached = Vec::new();
    let of = |name: &str| format!("/proc/{pid}/{name}");
    for name in ["environ", "mem", "auxv"] {
        if File::open(of(name)).is_ok() {
            reached.push(name.to_owned());
        }
    }
    if fs::read_dir(of("fd")).is_ok() {
        reached.push("fd".to_owned());
    }
    let process = rustix::process::Pid::from_raw(pid as i32).expect("a process");
    let handle = rustix::process::pidfd_open(process, PidfdFlags::empty());
    let takes = |it| rustix::process::pidfd_getfd(it, 2, PidfdGetfdFlags::empty()).is_ok();
    if handle.is_ok_and(takes) {
        reached.push("descriptor".to_owned());
    }
    let there = nix::unistd::Pid::from_raw(pid as i32);
    // Workers of a fork server have their program at the same place.
    let text = SECRET.as_bytes();
    let mut copy = vec![0; text.len()];
    let from = RemoteIoVec {
        base: text.as_ptr().addr(),
        len: text.len(),
    };
    let peeked = process_vm_readv(there, &mut [IoSliceMut::new(&mut copy)], &[from]);
    if !matches!(peeked, Err(nix::errno::Errno::EPERM)) {
        reached.push("memory".to_owned());
    }
    if ptrace::seize(there, ptrace::Options::empty()).is_ok() {
        let _ = ptrace::detach(there, None);
        reached.push("ptrace".to_owned());
    }
    reached
}

/// The same of the program and of a sibling, by one of two workers.
fn reached_by_a_worker<S: Confined>(pool: &S::Pool) -> (Vec<String>, Vec<String>) {
    let pids = pool.stats().workers;
    let pids: Vec<u32> = pids.iter().map(|it| it.info.pid()).collect();
    let reach = |(parent, workers): (u32, Vec<u32>)| {
        let own = worker::current().expect("it is a worker").pid();
        let sibling = workers.into_iter().find(|it| *it != own);
        (reached(parent), reached(sibling.expect("there are two")))
    };
    let task = (std::process::id(), pids);
    pool.apply(reach, task).expect("the worker lives")
}

fn protected<S: Confined>() {
    let is_root = rustix::process::getuid().is_root();
    let root = is_root
        .then_some(())
        .ok_or_else(|| "this is not root".to_owned());
    let doors = program::again::<S>("with_doors").lines();
    let lines = program::again::<S>("with_closed_doors").lines();
    assert_eq!(lines, ["all is well"]);
    // Others of the same user are reached but for that.
    if left_out::unless("doors that are open", "a user of its own", root).is_some() {
        assert!(doors[0].contains("environ"), "{doors:?}");
    }
}

/// Root has rights that no door holds.
fn become_nobody() {
    if rustix::process::getuid().is_root() {
        let nobody = Uid::from_raw(65534);
        rustix::fs::chown(std::env::temp_dir(), Some(nobody), None).expect("root may");
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).expect("it may be");
}

fn with_doors<S: Confined>() {
    become_nobody();
    let pool = S::plain().processes(2).build().expect("a pool");
    println!("{:?}", reached_by_a_worker::<S>(&pool));
}

fn with_closed_doors<S: Confined>() {
    become_nobody();
    let is_dumpable = || rustix::process::dumpable_behavior() == Ok(DumpableBehavior::Dumpable);
    assert!(is_dumpable());
    let pool = S::plain().processes(2).protect_parent().build();
    let pool = pool.expect("a pool");
    assert!(!is_dumpable());
    let nothing = (Vec::new(), Vec::new());
    assert_eq!(reached_by_a_worker::<S>(&pool), nothing);
    works::<S>(&pool);
    // A program starts a fork server while it has one thread.
    drop(pool);
    // A second one, whose workers are started by a program that is shut, each in its sandbox.
    for sandbox in [Sandbox::strict(), Sandbox::strict().user_namespace()] {
        let sandbox = sandbox.on_refusal(Refusal::Fail);
        let builder = S::plain().processes(2).sandbox(sandbox).protect_parent();
        let builder = builder.max_tasks_per_child(3).max_memory_per_child(1 << 30);
        let pool = builder.build().expect("a pool");
        assert_eq!(reached_by_a_worker::<S>(&pool), nothing);
        works::<S>(&pool);
    }
    println!("all is well");
}

/// Nothing of a pool needs a door.
fn works<S: Confined>(pool: &S::Pool) {
    let words = pool
        .broadcast(&vec![7_u64; 100_000])
        .expect("there is room");
    let sum = |words: Broadcast<Vec<u64>>| words.iter().sum::<u64>();
    assert_eq!(pool.map(sum, vec![words; 20]), Ok(vec![700_000; 20]));
    let large = |size: usize| vec![7_u8; size];
    assert_eq!(pool.apply(large, 1 << 24).map(|it| it.len()), Ok(1 << 24));
    let ends = pool.apply(|()| -> u64 { std::process::abort() }, ());
    assert!(ends.expect_err("it has aborted").is_worker_lost());
    let sleep = pool.call(|()| std::thread::sleep(Duration::from_secs(1000)));
    let late = sleep.timeout(Duration::from_millis(20)).apply(());
    assert!(late.expect_err("it is late").is_timeout());
    // One that was killed may be on its way out.
    assert!(pool.dump().workers.len() >= 2);
    assert_eq!(pool.apply(|x: u64| x + 1, 1), Ok(2));
}

fn unbuilt<S: Confined>() {
    let lines = program::again::<S>("with_failing_workers").lines();
    assert_eq!(lines, ["dumpable: true"]);
}

fn with_failing_workers<S: Confined>() {
    let builder = S::plain().processes(1).protect_parent();
    let failed = builder.initializer(|()| Err::<(), _>("no"), ()).build();
    assert!(failed.is_err());
    let behavior = rustix::process::dumpable_behavior();
    println!("dumpable: {}", behavior == Ok(DumpableBehavior::Dumpable));
}
