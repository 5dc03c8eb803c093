//! The deaths of the server and of the parent.
#![allow(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::task::Poll;

use nix::libc;
use nix::unistd::{ForkResult, fork};
use procpool_core::{ExitStatus, Launcher};
use procpool_testing::procfs::{children, descriptors, exists, is_alive, signal};
use rustix::process::Signal;

use crate::orders::Order;
use crate::processes::{is_readable, stop, wait_for, wait_readable, watch};
use crate::rig::{
    end, launch, pool, reap, reap_now, round, server, standby, tell, try_reach, worker,
};
use crate::{Scenario, again};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("workers die with a server that is killed", server_killed),
    (
        "launches fail with a server that is killed",
        server_killed_before_hello,
    ),
    ("everything dies with a parent that is killed", || {
        parent_dies(Parent::Killed)
    }),
    ("everything dies with a parent that exits", || {
        parent_dies(Parent::Exits)
    }),
    ("a stopped server dies with the parent", || {
        parent_dies(Parent::KilledWithStoppedServer)
    }),
    ("a stopped standby dies with the parent", || {
        parent_dies(Parent::KilledWithStoppedStandby)
    }),
    (
        "everything dies with a parent whose server was killed",
        || parent_dies(Parent::KilledAfterServer),
    ),
    (
        "everything dies with a parent of which there is a copy",
        || parent_dies(Parent::KilledWithCopy),
    ),
    ("the server ends with its last handle", last_handle),
    ("the server lives as long as a pool", pool_without_handle),
    (
        "a stopped server does not block the last drop",
        stopped_server,
    ),
    (
        "a server ends though a later one has copies of its sockets",
        two_servers,
    ),
    ("workers of workers die with them", nested),
];

/// Run by other scenarios.
pub(crate) const PARTS: &[Scenario] = &[(PARENT, parent), (COPIED_PARENT, copied_parent)];

const PARENT: &str = "a parent with three workers";
const COPIED_PARENT: &str = "a parent with three workers and a copy of itself";

fn server_killed() {
    let (server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    let (mut other, _) = worker(&mut launcher, 2);
    // One of which the end was asked for and is not answered.
    let (mut asked, _) = worker(&mut launcher, 3);
    stop(server.pid());
    assert_eq!(asked.reap(), Poll::Pending);
    assert!(!is_readable(
        launcher.notifier().expect("this backend has one")
    ));
    signal(server.pid(), Signal::KILL);
    wait_readable(launcher.notifier().expect("this backend has one"));
    // The socket is closed a moment before the server is dead.
    assert_eq!(reap_now(&launcher, &mut asked), ExitStatus::Orphaned);
    assert!(!is_readable(
        launcher.notifier().expect("this backend has one")
    ));

    assert_eq!(reap(&launcher, &mut link), ExitStatus::Orphaned);
    other.kill();
    assert_eq!(reap(&launcher, &mut other), ExitStatus::Orphaned);
    assert!(!is_readable(
        launcher.notifier().expect("this backend has one")
    ));
}

fn server_killed_before_hello() {
    let (server, mut launcher) = pool();
    standby(&server);
    stop(server.pid());
    // More than fit into the socket, so that some have not even been sent.
    let links: Vec<_> = (1..=400).map(|n| launch(&mut launcher, n)).collect();
    signal(server.pid(), Signal::KILL);
    for link in links {
        let error = try_reach(link).err().expect("the server is dead");
        assert!(error.to_string().contains("SIGKILL"), "{error}");
        assert!(error.is_lost_fork_server(), "{error}");
    }
    round(&mut launcher, 401);
}

#[derive(Clone, Copy, PartialEq)]
enum Parent {
    Killed,
    KilledWithStoppedServer,
    KilledWithStoppedStandby,
    KilledAfterServer,
    KilledWithCopy,
    Exits,
}

fn parent_dies(how: Parent) {
    let parent = match how {
        Parent::KilledWithCopy => COPIED_PARENT,
        _ => PARENT,
    };
    let mut parent = again(parent)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be executed");
    let mut line = String::new();
    BufReader::new(parent.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("the parent speaks");
    let mut pids: Vec<u32> = line
        .split_whitespace()
        .map(|pid| pid.parse().expect("a number"))
        .collect();
    let copy = (how == Parent::KilledWithCopy).then(|| pids.pop().expect("it is the last"));
    assert_eq!(
        pids.len(),
        6,
        "the server, the standby, three workers, what a task has started"
    );
    let deaths: Vec<_> = pids.iter().map(|pid| watch(*pid)).collect();
    match how {
        Parent::KilledWithStoppedServer => stop(pids[0]),
        Parent::KilledWithStoppedStandby => stop(pids[1]),
        // What the task has started nobody lives to kill: it goes with the test.
        Parent::KilledAfterServer => {
            signal(pids[0], Signal::KILL);
            signal(pids[5], Signal::KILL);
        }
        _ => {}
    }
    if how == Parent::Exits {
        let stdin = parent.stdin.take();
        drop(stdin);
    } else {
        parent.kill().expect("the parent is alive");
    }
    for death in deaths {
        wait_readable(death);
    }
    if let Some(copy) = copy {
        signal(copy, Signal::KILL);
    }
    let status = parent.wait().expect("the parent is ours");
    assert_eq!(status.success(), how == Parent::Exits);
}

/// Says who there is, and ends in bad order when its standard input does.
fn parent() {
    be_parent(false);
}

/// The same, while a process lives on that was forked by other means, and so holds copies of the
/// sockets to the server: it sees no end-of-file.
fn copied_parent() {
    be_parent(true);
}

#[allow(
    clippy::disallowed_methods,
    reason = "no destructors and no order is the point"
)]
fn be_parent(copy: bool) {
    let (server, mut launcher) = pool();
    let mut copied = None;
    if copy {
        // SAFETY: there is one thread, and the copy does nothing but sleep.
        match unsafe { fork() }.expect("a process may be forked") {
            ForkResult::Parent { child } => copied = Some(child.as_raw().cast_unsigned()),
            ForkResult::Child => {
                // SAFETY: always sound. It is longer than the test takes.
                unsafe { libc::sleep(120) };
                // SAFETY: always sound.
                unsafe { libc::_exit(0) };
            }
        }
    }
    let workers: Vec<_> = (1..=3).map(|n| worker(&mut launcher, n)).collect();
    let started = tell(&*workers[0].0, Order::StartProcess, 0);
    let mut pids = vec![server.pid(), standby(&server)];
    pids.extend(workers.iter().map(|(_, pid)| *pid));
    pids.push(started);
    pids.extend(copied);
    let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
    println!("{}", pids.join(" "));
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}

fn last_handle() {
    let (server, mut launcher) = pool();
    let (link, pid) = worker(&mut launcher, 1);
    let server_pid = server.pid();
    let again = server.clone();
    drop(server);
    drop(again);
    assert!(is_alive(server_pid));
    drop(launcher);
    assert!(is_alive(server_pid), "the link needs it");
    drop(link);
    assert!(!exists(server_pid));
    assert!(!is_alive(pid));
    assert!(children(std::process::id()).is_empty());
}

fn pool_without_handle() {
    let (server, mut launcher) = pool();
    drop(server);
    let (mut link, _) = worker(&mut launcher, 1);
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 6),
        ExitStatus::Code(6)
    );
}

fn stopped_server() {
    let (server, mut launcher) = pool();
    let (link, pid) = worker(&mut launcher, 1);
    let death = watch(pid);
    let server_pid = server.pid();
    stop(server_pid);
    drop((link, launcher, server));
    assert!(!exists(server_pid));
    wait_readable(death);
}

fn two_servers() {
    let (first, mut launcher) = pool();
    let (link, pid) = worker(&mut launcher, 1);
    let death = watch(pid);
    // It has copies of the parent's ends of the sockets to the first one.
    let second = server();
    let open = descriptors(first.pid()).len();
    drop((launcher, link));
    wait_readable(death);
    wait_for("the server closes the pool's connection", || {
        descriptors(first.pid()).len() < open
    });
    let first_pid = first.pid();
    let ended = watch(first_pid);
    drop(first);
    wait_readable(ended);
    let mut launcher = second.connect().expect("the second server runs");
    let (mut link, _) = worker(&mut launcher, 1);
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 7),
        ExitStatus::Code(7)
    );
}

fn nested() {
    let (_server, mut launcher) = pool();
    let (mut link, _) = worker(&mut launcher, 1);
    assert_eq!(tell(&*link, Order::NestAndReap, 8), 8);
    let inner = tell(&*link, Order::Nest, 0);
    let death = watch(inner);
    link.kill();
    wait_readable(death);
    assert_eq!(reap(&launcher, &mut link), ExitStatus::Signal(9));
    // A worker that leaves in good order.
    let (mut link, _) = worker(&mut launcher, 2);
    let death = watch(tell(&*link, Order::Nest, 0));
    assert_eq!(
        end(&launcher, &mut link, Order::Exit, 9),
        ExitStatus::Code(9)
    );
    wait_readable(death);
}
