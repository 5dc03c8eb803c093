//! Descriptors where there are few of them: with a worker, with the parent, or on their way.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use procpool::{Broadcast, Fd, Pool, TaskErrorKind};

use crate::backends::Processes;
use crate::descriptors::{file_of, read, rewind};
use crate::file_barrier::{self, Gate};
use crate::hostile_support::io_uring;
use crate::program::{Program, again, programs};
use crate::trial::Test;
use crate::watchdog;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_worker_with_few_descriptors,
        a_worker_without_descriptors,
        a_parent_without_descriptors,
        many_on_their_way,
        too_many_on_their_way_for_long,
        what_the_system_does_not_pass,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: no_descriptors_here, congested, congested_for_long]
}

/// The number that the next descriptor has.
fn next_number() -> u64 {
    let next = io::pipe().expect("descriptors").0;
    u64::from(next.as_raw_fd().cast_unsigned())
}

fn limit_descriptors(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(count);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("it is less");
}

/// There are many more files than the worker may have.
fn a_worker_with_few_descriptors<S: Processes>() {
    let pool = S::pool(1);
    pool.apply(limit_descriptors, 40).unwrap();
    let texts = Vec::from_iter((0..300).map(|it| format!("file {it}")));
    let files = Vec::from_iter(texts.iter().map(|text| file_of(text)));
    assert_eq!(pool.call(read).chunksize(100).map(files).unwrap(), texts);
}

/// It says so, and nothing else is the worse for it.
fn a_worker_without_descriptors<S: Processes>() {
    let pool = S::pool(1);
    // The numbers below the next one are all taken.
    pool.apply(|()| limit_descriptors(next_number()), ())
        .unwrap();
    let many = Vec::from_iter((0..100).map(|_| file_of("")));
    let error = pool.apply(|all: Vec<Fd>| all.len(), many).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    pool.apply(limit_descriptors, 500).unwrap();
    assert_eq!(pool.apply(read, file_of("again")).unwrap(), "again");
    assert_eq!(pool.stats().workers_started, 1);
}

fn no_descriptors_here<S: Processes>() {
    let pool = S::pool(1);
    let make = |count: usize| Vec::from_iter((0..count).map(|_| file_of("made")));
    assert_eq!(pool.apply(make, 3).unwrap().len(), 3);
    limit_descriptors(next_number());
    for _ in 0..3 {
        let error = pool.apply(make, 100).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    }
    limit_descriptors(500);
    assert_eq!(pool.apply(make, 3).unwrap().len(), 3);
    assert_eq!(pool.stats().workers_started, 1);
}

/// The result is lost, and says so; the worker is not.
fn a_parent_without_descriptors<S: Processes>() {
    assert_eq!(again::<S>("no_descriptors_here").lines(), [""; 0]);
}

/// A user without privileges may have as many descriptors on their way as `ulimit -n` says. Others
/// have all of these as long as what this gives to `body` lives.
fn with_congestion(body: impl FnOnce((UnixStream, UnixStream), &Fd)) {
    use nix::unistd::{Uid, setresuid};
    let is_root = Uid::effective().is_root();
    let switch_to = |user: u32| {
        if is_root {
            // To root there are no limits.
            let user = Uid::from_raw(user);
            setresuid(user, user, Uid::from_raw(0)).expect("root may, and who was root");
        }
    };
    // Each such program takes away the room of all others of its user. Here that is nobody else's;
    // and where there is one user alone, one program comes after the other.
    switch_to(100_000 + std::process::id());
    let own = File::open("/proc/self/exe").expect("it runs");
    if !is_root {
        rustix::fs::flock(&own, rustix::fs::FlockOperation::LockExclusive).expect("a file");
    }
    limit_descriptors(300);
    let file = file_of("well");
    let others = UnixStream::pair().expect("descriptors");
    for _ in 0..2 {
        send_copies(others.0.as_fd(), file.as_fd(), 253);
    }
    body(others, &file);
    switch_to(0);
}

fn congested<S: Processes>() {
    let pool = S::pool(1);
    with_congestion(|others, file| {
        let task = pool.apply_async(read, file.try_clone().expect("descriptors"));
        let tasks = Vec::from_iter((0..20).map(|x| pool.apply_async(|x: u64| x + 1, x)));
        // It cannot have come, however often it is tried.
        assert!(!task.wait_timeout(Duration::from_millis(50)));
        drop(others);
        assert_eq!(task.get().unwrap(), "well");
        for (x, task) in (0..).zip(tasks) {
            assert_eq!(task.get().unwrap(), x + 1);
        }
        rewind(file);
        let again = file.try_clone().expect("descriptors");
        assert_eq!(pool.apply(read, again).unwrap(), "well");
    });
    assert_eq!(pool.stats().workers_started, 1);
}

fn congested_for_long<S: Processes>() {
    let pool = S::pool(1);
    let shared = pool.broadcast("shared").unwrap();
    let length = |shared: Broadcast<str>| shared.len();
    with_congestion(|others, file| {
        // There is another way for memory.
        assert_eq!(pool.apply(length, shared.clone()).unwrap(), 6);
        assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
        let task = pool.apply_async(read, file.try_clone().expect("descriptors"));
        let error = task.get().unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
        assert!(error.to_string().contains("ETOOMANYREFS"), "{error}");
        // There still is no room. It is nothing that others notice.
        assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
        drop(others);
        let again = file.try_clone().expect("descriptors");
        assert_eq!(pool.apply(read, again).unwrap(), "well");
        assert_eq!(pool.apply(length, shared.clone()).unwrap(), 6);
    });
    assert_eq!(pool.stats().workers_started, 1);
}

/// Sends a descriptor, so many times in one message.
fn send_copies(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, count: usize) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = vec![file; count];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let parts = [io::IoSlice::new(b"x")];
    sendmsg(socket, &parts, &mut ancillary, SendFlags::empty()).expect("there is room");
}

fn many_on_their_way<S: Processes>() {
    watchdog::allow(2);
    assert_eq!(again::<S>("congested").lines(), [""; 0]);
    // More packets than fit into a socket wait behind a task.
    let pool = S::pool(1);
    let gate = Gate::new();
    let busy = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    gate.wait_for(1);
    let file = file_of("");
    let length = |fd: Fd| {
        File::from(fd.into_owned())
            .metadata()
            .expect("a file")
            .len()
    };
    let tasks = (0..600).map(|_| pool.apply_async(length, file.try_clone().expect("descriptors")));
    let tasks = Vec::from_iter(tasks);
    gate.open();
    busy.get().unwrap();
    for task in tasks {
        assert_eq!(task.get().unwrap(), 0);
    }
    assert_eq!(pool.stats().workers_started, 1);
}

/// The item waits for ten seconds. It costs nothing else.
fn too_many_on_their_way_for_long<S: Processes>() {
    watchdog::allow(2);
    assert_eq!(again::<S>("congested_for_long").lines(), [""; 0]);
}

/// It is known at once, and costs its item alone.
fn what_the_system_does_not_pass<S: Processes>() {
    let pool = S::pool(1);
    let Some(ring) = io_uring() else {
        // Not every kernel and sandbox has such a thing.
        return;
    };
    let gate = Gate::new();
    let busy = pool.apply_async(|gate: String| file_barrier::pass(&gate), gate.ticket());
    gate.wait_for(1);
    let before = pool.apply_async(read, file_of("before"));
    let task = pool.apply_async(|_: Fd| (), Fd::from(ring));
    let behind = pool.apply_async(read, file_of("behind"));
    gate.open();
    busy.get().unwrap();
    assert_eq!(before.get().unwrap(), "before");
    assert_eq!(behind.get().unwrap(), "behind");
    // Kernels before 6.7 pass it.
    if let Err(error) = task.get() {
        assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
        assert!(error.to_string().contains("no other process"), "{error}");
    }
    let make = |()| io_uring().map(Fd::from);
    if let Err(error) = pool.apply(make, ()) {
        assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
        assert!(error.to_string().contains("cannot be sent"), "{error}");
    }
    assert_eq!(pool.stats().workers_started, 1);
}
