//! Launches that fail, and what the parent then says.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use backend_spawn::check_ready;
use ipc_channel::ipc::{IpcSender, IpcSharedMemory};
use pool_core::{Advance, ExitStatus, Link};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::harness::{
    LONG, Scenario, assert_shares_region, failure, is_readable, is_worker, launch, reach, reap,
    sleep,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_stranger_is_refused", a_stranger_is_refused),
        Scenario::new("too_many_strangers_fail_the_launch", too_many_strangers),
        Scenario::new("no_temporary_folder", no_temporary_folder)
            .variable("TMPDIR", "/nonexistent/folder"),
        Scenario::new("a_temporary_folder_with_a_long_name", a_long_name)
            .variable("TMPDIR", format!("/tmp/{}", "long/".repeat(20))),
        Scenario::new("a_temporary_folder_with_a_strange_name", a_strange_name)
            .variable("TMPDIR", OsStr::from_bytes(b"/tmp/\xff")),
        Scenario::new("a_worker_without_descriptors", no_descriptors).worker(give_up_descriptors),
        Scenario::new("a_worker_without_memory", no_memory).worker(give_up_memory),
        Scenario::new("a_main_that_ends_before_init", ends_early).worker(end),
        Scenario::new("a_main_that_dies_before_init", dies_early).worker(|| std::process::abort()),
        Scenario::new("a_main_that_closes_its_standard_input", closes_early)
            .worker(close_standard_input),
        Scenario::new("a_main_that_never_comes_to_init", never_comes).worker(|| sleep()),
        Scenario::new("a_worker_that_passes_by_init", passes_by)
            .worker(pass_by)
            .without_init(),
        Scenario::new("a_program_without_init_is_not_ready", not_ready).without_init(),
        Scenario::new(
            "a_worker_of_another_version_is_not_ready",
            not_ready_for_another,
        )
        .variable("PROCPOOL_WORKER", another_version()),
    ]
}

/// What the parent sends, with a wrong nonce.
#[derive(serde::Serialize)]
struct Setup {
    nonce: u128,
    memory: IpcSharedMemory,
}

/// Waits for the worker's first word, leaves it unread, and finds the worker's socket.
pub(crate) fn socket(link: &dyn Link) -> String {
    assert!(is_readable(link.bell(), LONG));
    find_socket().expect("a socket")
}

pub(crate) fn find_socket() -> Option<String> {
    let folders = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    folders(env::temp_dir())
        .flat_map(|outer| folders(outer.path()))
        .map(|inner| inner.path().join("socket"))
        .find(|path| path.exists())
        .map(|path| path.display().to_string())
}

fn a_stranger_is_refused() {
    let strangers: [fn(String); 3] = [
        |server| {
            let memory = IpcSharedMemory::from_byte(0, 3 * 4096);
            let sender = IpcSender::connect(server).expect("a connection");
            sender.send(Setup { nonce: 1, memory }).expect("sent");
        },
        |server| {
            let sender = IpcSender::<String>::connect(server).expect("a connection");
            sender.send("open up".to_owned()).expect("sent");
        },
        |server| drop(IpcSender::<()>::connect(server).expect("a connection")),
    ];
    for stranger in strangers {
        let mut link = launch();
        stranger(socket(&*link));
        reach(&mut *link).expect("a worker nevertheless");
        assert_shares_region(&*link);
    }
}

fn too_many_strangers() {
    let mut link = launch();
    let mut last = String::new();
    let error = loop {
        let server = socket_or_word(&*link, &last);
        if let Some(server) = server {
            // The worker may not listen yet.
            if IpcSender::<()>::connect(server.clone()).is_ok() {
                last = server;
            }
        } else {
            break reach(&mut *link).expect_err("no worker");
        }
    };
    assert!(
        error.to_string().contains("refused 16 connections"),
        "{error}"
    );
    assert_eq!(reap(&mut *link), ExitStatus::Code(1));
}

/// The worker's next socket, or nothing once the worker is gone.
fn socket_or_word(link: &dyn Link, last: &str) -> Option<String> {
    loop {
        match find_socket() {
            Some(socket) if socket != last => return Some(socket),
            _ if is_readable(link.death()?, Duration::from_millis(1)) => return None,
            _ => {}
        }
    }
}

fn no_temporary_folder() {
    let error = failure();
    for part in ["/nonexistent/folder:", "os error 2", "set TMPDIR"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(!error.is_missing_init());
}

fn a_long_name() {
    let error = failure().to_string();
    assert!(error.contains("too long"), "{error}");
    assert!(error.contains("set TMPDIR"), "{error}");
}

fn a_strange_name() {
    let error = failure().to_string();
    assert!(error.contains("not UTF-8"), "{error}");
}

fn limit(resource: Resource, value: u64) {
    let (current, maximum) = (Some(value), Some(value));
    setrlimit(resource, Rlimit { current, maximum }).expect("a lower limit");
}

fn give_up_descriptors() {
    limit(Resource::Nofile, 6);
}

fn no_descriptors() {
    let error = failure().to_string();
    assert!(error.contains("too few descriptors"), "{error}");
}

fn give_up_memory() {
    let pages = fs::read_to_string("/proc/self/statm").expect("this process");
    let pages: u64 = pages
        .split(' ')
        .next()
        .and_then(|size| size.parse().ok())
        .expect("a size");
    limit(Resource::As, pages * 4096 + (8 << 20));
}

fn no_memory() {
    let error = reach(&mut *crate::harness::launch_with(16 << 20)).expect_err("no worker");
    assert!(
        error.to_string().contains("refused 16 connections"),
        "{error}"
    );
}

fn end() {
    #[allow(clippy::disallowed_methods, reason = "a `main` that ends")]
    std::process::exit(7)
}

fn ends_early() {
    let mut link = launch();
    let error = reach(&mut *link).expect_err("no worker");
    assert!(error.is_missing_init());
    for part in ["exited with code 7", "call procpool::init()"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(reap(&mut *link), ExitStatus::Code(7));
}

fn dies_early() {
    let error = failure();
    assert!(!error.is_missing_init());
    assert!(error.to_string().contains("killed by signal 6"), "{error}");
}

fn close_standard_input() {
    rustix::stdio::dup2_stdin(rustix::stdio::stdout()).expect("a descriptor");
    sleep();
}

fn closes_early() {
    let error = failure();
    assert!(error.is_missing_init());
    assert!(
        error.to_string().contains("closed its standard input"),
        "{error}"
    );
}

fn never_comes() {
    let mut link = launch();
    assert!(!is_readable(link.bell(), Duration::from_millis(100)));
    assert_eq!(link.advance().expect("no error"), Advance::Pending);
    // The engine's deadline passes.
    link.kill();
    assert_eq!(reap(&mut *link), ExitStatus::Signal(9));
}

fn pass_by() {
    let error = check_ready().expect_err("not ready");
    assert!(
        error.to_string().contains("passed by procpool::init()"),
        "{error}"
    );
    sleep();
}

fn passes_by() {
    let error = failure();
    assert!(error.is_missing_init());
    assert!(
        error.to_string().contains("passed by procpool::init()"),
        "{error}"
    );
}

fn not_ready() {
    let error = check_ready().expect_err("not ready");
    assert!(error.to_string().contains("has not been called"), "{error}");
}

/// A summons of a version yet to come: the test's process is the worker, this one its parent.
fn another_version() -> String {
    format!("4294967295:{}:0:something new", std::process::id())
}

fn not_ready_for_another() {
    assert!(is_worker());
    let error = check_ready().expect_err("not ready");
    assert!(
        error.to_string().contains("passed by procpool::init()"),
        "{error}"
    );
}
