//! Starting a server, and what it and its workers are born with.
#![allow(unsafe_code)]

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, mpsc};

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use procpool_core::{ExitStatus, Pool};
use procpool_fork::{ForkPool, ForkServer};
use procpool_testing::procfs::{descriptors, exists, status};

use crate::orders::{self, Order};
use crate::rig::{end, pool, server, tell, worker};
use crate::{Scenario, again};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("threads are counted and refused", threads),
    ("a feeder that waits is named", feeder),
    ("a thread that was joined does not count", joined),
    ("what is buffered is printed once", buffers),
    ("signals are as in a fresh process", signals),
    ("standard input is the parent's alone", stdin),
    ("a worker sees no global server", global),
    (
        "a worker leaves though a thread holds standard output",
        held_stdout,
    ),
    ("a hundred servers one after the other", one_after_the_other),
    ("only what is named stays open", kept),
    ("each worker runs what is to be run after a fork", hooked),
];

/// Run by other scenarios.
pub(crate) const PARTS: &[Scenario] = &[(PRINTER, printer)];

const PRINTER: &str = "a parent and a worker that print";

fn threads() {
    let (begin, begun) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = Arc::new(Mutex::new(stopped));
    let threads = [0, 1].map(|_| {
        let stopped = Arc::clone(&stopped);
        let thread = std::thread::Builder::new().name("waits".into());
        let begin = begin.clone();
        let thread = thread.spawn(move || {
            let _ = begin.send(());
            let _ = stopped.lock().expect("nobody panics").recv();
        });
        thread.expect("the system has threads")
    });
    // A thread names itself before it runs this.
    for _ in 0..2 {
        begun.recv().expect("both begin");
    }
    let error = ForkServer::start().expect_err("there are three threads");
    assert_eq!(error.threads(), Some(3));
    let text = error.to_string();
    for part in [
        "3 threads: this one, and \"waits\", \"waits\".",
        "unsound",
        "ForkServer::start()",
        ".fork_server(&server)",
        "SpawnPool",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // SAFETY: the other threads wait, and hold nothing that the server needs, which has no worker.
    let unchecked = unsafe { ForkServer::start_unchecked() };
    drop(unchecked.expect("the system has room"));
    drop(stop);
    for thread in threads {
        thread.join().expect("it only waits");
    }
    assert!(ForkServer::start().is_ok());
}

/// The thread of an `imap` that was dropped while its input waits.
fn feeder() {
    let (stop, stopped) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let input = std::iter::once(()).chain(std::iter::from_fn(move || {
        let _ = begin.send(());
        stopped.recv().ok()
    }));
    let server = ForkServer::start().expect("there is one thread");
    let pool = ForkPool::builder().processes(1).fork_server(&server);
    let pool = pool.build().expect("a pool");
    let mut results = pool.imap(|(): ()| (), input);
    results
        .next()
        .expect("there is one")
        .expect("it does nothing");
    begun.recv().expect("the input is asked again");
    drop((results, pool));
    let error = ForkServer::start().expect_err("there is a feeder");
    assert_eq!(error.threads(), Some(2), "{error}");
    let text = error.to_string();
    for part in [
        "\"procpool-feeder\"",
        "next()",
        "or start the server before",
    ] {
        assert!(text.contains(part), "{text}");
    }
    drop(stop);
    ForkServer::start().expect("the feeder has ended");
}

fn joined() {
    for _ in 0..100 {
        std::thread::spawn(|| ()).join().expect("it does nothing");
        if let Err(error) = ForkServer::start() {
            panic!("{error}");
        }
    }
}

fn buffers() {
    let output = again(PRINTER)
        .output()
        .expect("this program can be executed");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("all of it is text");
    for part in ["from-rust", "from-c", "rust-4711", "c-4711"] {
        assert_eq!(said.matches(part).count(), 1, "{said:?}");
    }
}

fn printer() {
    print!("from-rust ");
    // SAFETY: a format without arguments, ended by a null byte.
    unsafe { libc::printf(c"from-c ".as_ptr()) };
    let (_server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    tell(&*link, Order::Print, 4711);
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 0),
        ExitStatus::Code(0)
    );
    // One that is killed says nothing.
    let (mut link, _) = worker(&mut launcher, 2);
    tell(&*link, Order::Ring, 0);
    link.kill();
}

extern "C" fn handler(_: libc::c_int) {}

fn signals() {
    for number in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGHUP,
    ] {
        // SAFETY: the handler does nothing.
        unsafe { signal(number, SigHandler::Handler(handler)) }.expect("the signal exists");
    }
    // SAFETY: no handler at all.
    unsafe { signal(Signal::SIGUSR2, SigHandler::SigIgn) }.expect("the signal exists");
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGRTMAX(), handler as *const () as libc::sighandler_t) };
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR1);
    blocked.add(Signal::SIGTERM);
    blocked.thread_set_mask().expect("a valid mask");

    let (server, mut launcher) = pool();
    assert_eq!(SigSet::thread_get_mask().expect("a mask"), blocked);
    let (link, pid) = worker(&mut launcher, 1);
    tell(&*link, Order::Ring, 0);
    let bits = |numbers: &[i32]| -> u64 { numbers.iter().map(|n| 1 << (n - 1)).sum() };
    for process in [server.pid(), pid] {
        // The C library keeps two signals for itself and lets nobody change them.
        let own = bits(&[32, 33]);
        let set = |field| {
            let set =
                u64::from_str_radix(&status(process, field).expect("a field"), 16).expect("a set");
            set & !own
        };
        assert_eq!(set("SigBlk"), 0);
        let mut ignored = vec![libc::SIGPIPE, libc::SIGTTOU];
        if process == pid {
            ignored.push(libc::SIGTTIN);
        }
        assert_eq!(set("SigIgn"), bits(&ignored));
        // What the standard library has for stack overflows.
        assert_eq!(set("SigCgt"), bits(&[libc::SIGSEGV, libc::SIGBUS]));
    }
}

fn stdin() {
    let (server, mut launcher) = pool();
    let (link, pid) = worker(&mut launcher, 1);
    tell(&*link, Order::Ring, 0);
    for process in [server.pid(), pid] {
        assert_eq!(descriptors(process)[&0], "/dev/null");
    }
}

fn global() {
    assert!(ForkServer::global().is_none());
    let first = server();
    first.clone().set_global().expect("there is none yet");
    let seen = ForkServer::global().expect("it was set");
    assert_eq!(seen.pid(), first.pid());
    // This one is a copy of a program that has the first as its global server.
    let second = server();
    assert!(second.clone().set_global().is_err());
    let mut launcher = second.connect().expect("the server runs");
    let (link, _) = worker(&mut launcher, 1);
    assert_eq!(tell(&*link, Order::LookForGlobal, 0), 2);
}

fn held_stdout() {
    let (_server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    tell(&*link, Order::HoldStdout, 0);
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 3),
        ExitStatus::Code(3)
    );
}

/// Of the program's descriptors neither server, standby nor workers have any but what was named.
fn kept() {
    /// Whether the number means this file.
    fn has((fd, inode): (i32, u64)) -> bool {
        let path = format!("/proc/self/fd/{fd}");
        std::fs::metadata(path).is_ok_and(|file| file.ino() == inode)
    }
    fn name(pipe: &std::io::PipeWriter) -> (i32, u64) {
        let file = std::fs::metadata(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
        (pipe.as_raw_fd(), file.expect("it is open").ino())
    }
    let (mut heard, writer) = std::io::pipe().expect("descriptors");
    let (_hear, named) = std::io::pipe().expect("descriptors");
    let both = [name(&named), name(&writer)];
    assert!(both.into_iter().all(has));
    let pool = ForkPool::builder().processes(2).keep_fds(&[named.as_fd()]);
    let pool = pool.build().expect("there is one thread");
    assert_eq!(pool.map(has, both).expect("values"), [true, false]);
    // Not even the standby has it, which takes the server's place.
    drop(writer);
    let end = heard.read(&mut [0]).expect("a pipe can be read");
    assert_eq!(end, 0);
    assert_eq!(pool.apply(|x: u32| x + 1, 1), Ok(2));
    drop(pool);
    // A server that is there already has what it has.
    let server = ForkServer::start_keeping(&[]).expect("there is one thread");
    let pool = ForkPool::builder().fork_server(&server);
    let pool = pool.build().expect("the server runs");
    assert_eq!(pool.apply(has, both[0]), Ok(false));
    let refused = ForkPool::builder()
        .fork_server(&server)
        .keep_fds(&[])
        .build();
    let refused = refused.expect_err("it was started before").to_string();
    assert!(refused.contains("start_keeping"), "{refused}");
}

/// With what it captures, once in each worker, before the initializer and after the settings; also
/// in those that come later, and from the standby.
fn hooked() {
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    fn note(what: String) {
        SEEN.lock().expect("nobody panics").push(what);
    }
    fn seen((): ()) -> (u32, Vec<String>) {
        let seen = SEEN.lock().expect("nobody panics");
        (std::process::id(), seen.clone())
    }
    // Nothing that could be encoded.
    let (_hear, pipe) = std::io::pipe().expect("descriptors");
    let number = pipe.as_raw_fd();
    let pool = ForkPool::builder()
        .processes(1)
        .env("PROCPOOL_HOOK", "set")
        .initializer(note, "initializer".to_owned())
        .after_fork(move || note(format!("{} {}", pipe.as_raw_fd(), std::process::id())))
        .after_fork(|| note(std::env::var("PROCPOOL_HOOK").unwrap_or_default()));
    let pool = pool.build().expect("there is one thread");
    let check = || {
        let (pid, seen) = pool.apply(seen, ()).expect("a value");
        let first = format!("{number} {pid}");
        assert_eq!(seen, [first.as_str(), "set", "initializer"]);
        pid
    };
    let first = check();
    let server = status(first, "PPid").and_then(|pid| pid.parse().ok());
    let server: u32 = server.expect("it has a parent");
    let kill = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("it is one");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
    };
    kill(first);
    while check_pid(&pool) == Some(first) {}
    assert_ne!(check(), first);
    kill(server);
    while exists(server) || pool.apply(seen, ()).is_err() {}
    check();
    assert!(SEEN.lock().expect("nobody panics").is_empty());
    drop(pool);

    let failing = ForkPool::builder().after_fork(|| panic!("no entropy"));
    let error = failing.processes(2).build().expect_err("it panics");
    assert!(error.to_string().contains("no entropy"), "{error}");

    let server = ForkServer::start().expect("there is one thread");
    let late = ForkPool::builder().fork_server(&server).after_fork(|| ());
    let refused = late.build().expect_err("it was started before");
    assert_eq!(refused.kind(), procpool_core::BuildErrorKind::InvalidConfig);
    assert!(refused.to_string().contains("after_fork"), "{refused}");
    // Workers of others have none of it.
    let plain = ForkPool::builder().fork_server(&server).processes(1);
    let plain = plain.build().expect("the server runs");
    assert_eq!(plain.apply(seen, ()).expect("a value").1, [""; 0]);
}

fn check_pid(pool: &ForkPool) -> Option<u32> {
    pool.apply(|()| std::process::id(), ()).ok()
}

fn one_after_the_other() {
    // What ties the workers of all tests to this process is made once.
    let _ = procpool_core::LaunchSpec::for_tests(1, 4096);
    let before = descriptors(std::process::id());
    for _ in 0..100 {
        let server = ForkServer::start_serving(orders::serve).expect("there is one thread");
        let mut launcher = server.connect().expect("the server runs");
        let (link, pid) = worker(&mut launcher, 1);
        let server_pid = server.pid();
        drop((server, launcher, link));
        assert!(!exists(server_pid));
        assert!(!exists(pid));
    }
    assert_eq!(descriptors(std::process::id()), before);
}
